"""This tool's training as a process of its own, for the benchmark: prints one JSON line."""

import csv
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.training import Train

STEP = 32  # images at a time, where they are only loaded


def main():
    """Train with the options of the command line."""
    words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    only_load = words.pop("--only-load", "no") == "yes"
    given = {flag[2:].replace("-", "_"): value for flag, value in words.items()}
    with tempfile.TemporaryDirectory() as runs:
        options = checked(Train, {"weights": "none", "device": "cpu", "runs": runs, **given})
        found = load(options) if only_load else train_it(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**found, "peak_mb": peak}))


def train_it(options):
    """Train; return the seconds of each epoch and of all, and the best validation AUC."""
    from models.training.stage import train

    started = time.perf_counter()
    result = train(options, Silent())
    total = time.perf_counter() - started
    with (Path(result.folder) / "history.csv").open(encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return {"seconds": seconds, "total": total, "auc": result.facts["best_val_auc"]}


def load(options):
    """Turn each training image into a normalised tensor, once an epoch."""
    import torch

    from models.data.loading import EvalTransform, TrainTransform, load_split
    from models.inference import prepare_process
    from pipeline.manifest import read_manifest

    prepare_process(options.workers)
    rows = read_manifest(options.data)
    split = load_split(options.data, rows, "train", options.size, 0, Silent())
    transform = EvalTransform(0.449, 0.226, torch.device("cpu"))
    augmented, seconds = TrainTransform(transform, options.augment, 1), []
    for epoch in range(options.epochs):
        started = time.perf_counter()
        order = np.random.default_rng(epoch).permutation(len(split))
        for start in range(0, len(order), STEP):
            augmented(split, order[start : start + STEP], epoch)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "total": sum(seconds), "auc": 0.0}


if __name__ == "__main__":
    main()
