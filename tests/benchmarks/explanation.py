"""What a heat-map costs, in forward passes of the same images.

Run as `python -m tests.benchmarks.explanation`; `--rounds 3 --sizes 224` for a quick look. Score
and map take turns, so that whatever else the machine does meets both. It is one map that is
measured: `explain`, `predict` and the page show the mean of the image's and its mirror image's.
"""

import argparse
import statistics
import time

import numpy as np

from models.explanation.cams import heat_maps
from models.inference import (
    TrainedModel,
    choose_compute,
    image_logits,
    place,
    prepare_process,
    scoring_batch,
)
from models.networks import build, normalisation
from models.registry import MODELS, TARGET_LAYERS
from tests.benchmarks import machine

SIZES, ROUNDS, BATCHES = (224, 288, 512), 9, 1
GOAL = 1.2


def model_of(row):
    """Return a row's network with random weights."""
    mean, std = normalisation(row.architecture)
    facts = {
        "architecture": row.architecture,
        "head": {"widths": list(row.head.widths), "dropout": row.head.dropout},
        "input": {"size": row.size, "channels": 1, "mean": mean, "std": std},
    }
    return TrainedModel(build(row.architecture, row.head).eval(), facts)


def measure(row, size, rounds, compute, method="gradcam"):
    """Return the seconds of an image's score, of its map, and the median of their ratios."""
    model = model_of(row)
    place(model.network, compute)
    count = BATCHES * scoring_batch(size)
    images = np.random.default_rng(1).integers(0, 256, (count, size, size), np.uint8)
    transform = model.transform(compute)
    scores, maps = [], []
    for number in range(rounds + 1):
        started = time.perf_counter()
        image_logits(model.network, images, transform, compute)
        between = time.perf_counter()
        heat_maps(model, images, compute, method, mirrored=False)
        if number:  # the first warms up
            scores.append((between - started) / count)
            maps.append((time.perf_counter() - between) / count)
    ratios = [one / other for one, other in zip(maps, scores, strict=True)]
    return statistics.median(scores), statistics.median(maps), statistics.median(ratios)


def networks():
    """Return a row for each classifier that differs; what is trained of it costs a map nothing."""
    kinds = {}
    for row in MODELS.values():
        if not row.is_detector:
            kinds.setdefault((row.architecture, row.head), row)
    return list(kinds.values())


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    prepare_process(0)
    compute = choose_compute(given.device, "fp32")
    print(machine.text(machine.facts(with_gpu=False)))
    print(f"{given.method}; medians of {given.rounds} rounds; goal: at most {GOAL} forward passes")
    print(f"{'model':<24}{'target layer':<24}{'size':>5}{'score (ms)':>12}{'map (ms)':>10}"
          f"{'ratio':>8}")  # fmt: skip
    for row in networks():
        for size in given.sizes:
            score, heat, ratio = measure(row, size, given.rounds, compute, given.method)
            layer = TARGET_LAYERS[row.architecture].unit
            print(f"{row.name:<24}{layer:<24}{size:>5}{1000 * score:>12.1f}{1000 * heat:>10.1f}"
                  f"{ratio:>8.2f}{'' if ratio <= GOAL else '  above the goal'}")  # fmt: skip


if __name__ == "__main__":
    main()
