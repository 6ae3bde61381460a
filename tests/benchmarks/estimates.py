"""Measures the tables behind the estimates of time: `python -m tests.benchmarks.estimates`.

On one thread and in CPU time, so that it may be done on a machine that is busy. What a network
costs for each image is told in GFLOP of the reference convolution, what it costs for each batch in
seconds of the reference core: so the table holds for other machines. With `--check DATASET` real
trainings of two epochs are held against their estimates.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from models.data.loading import EvalTransform, Split, TrainTransform
from models.inference import choose_compute, place, prepare_process
from models.networks import build, freeze, logits, split_before, train_mode
from models.registry import MODELS
from models.training import budget
from models.training.budget import convolution_speed
from models.training.stage import train
from pipeline.manifest import Row
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.resources import machine
from pipeline.resources.machine import REFERENCE_BLOCKS, SIDE, compress, rate
from pipeline.resources.sizes import bytes_of
from pipeline.stages.training import Train

SIZES, BATCH = (64, 224), 16


def seconds_of(work, times):
    work()
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found)


def images_of(size):
    row = {"patient_id": "P", "split": "train", "label": "benign", "path": "a.png",
           "laterality": "LEFT", "view": "CC", "height": size, "width": size}  # fmt: skip
    rows = tuple(Row(image_id=str(number), **row) for number in range(BATCH))
    pixels = np.random.default_rng(0).integers(0, 255, (BATCH, size, size), np.uint8)
    return Split(rows, pixels, np.zeros(BATCH, np.float32), ())


def costs_of(row, size, times):
    """Return the seconds of a batch: frozen layers, a step, scoring; and of its augmentation."""
    compute = choose_compute("cpu", "fp32")
    torch.manual_seed(0)
    network = build(row.architecture, row.head)
    freeze(network, row.trained_from)
    place(network, compute)
    frozen, trained = None, network
    if row.trained_from:
        frozen, trained = split_before(network, row.trained_from)
    split, everyone = images_of(size), np.arange(BATCH)
    plain = EvalTransform(0.5, 0.2, compute.device)
    augmented = TrainTransform(plain, "flip-rotate", 1)
    images = plain(split.images[everyone])

    def pass_frozen():
        with torch.no_grad():
            return frozen.eval()(images)

    found = {"augment": seconds_of(lambda: augmented(split, everyone, 0), times)}
    inputs = pass_frozen() if frozen is not None else images
    found["frozen"] = seconds_of(pass_frozen, times) if frozen is not None else 0.0
    if not row.takes_steps:
        return found | {"step": 0.0, "scored": 0.0}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4)

    def step():
        train_mode(network, row.trained_from)
        optimizer.zero_grad()
        logits(trained, inputs, compute.dtype).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def score():
        network.eval()
        with torch.no_grad():
            logits(trained, inputs, compute.dtype)

    return found | {"step": seconds_of(step, times), "scored": seconds_of(score, times)}


def check(data, model, size):
    """Train for two epochs, and hold the CPU time of one thread against the estimate."""
    machine.core_speed.cache_clear()
    core = machine.rate(machine.compress, 0.2, time.process_time) / REFERENCE_BLOCKS
    convolution_speed.cache_clear()
    speed = convolution_speed(clock=time.process_time)
    budget.core_speed, budget.cores, budget.speed = (lambda: core), (lambda: 1), (lambda _: speed)
    with tempfile.TemporaryDirectory() as folder:
        options = checked(Train, {
            "data": data, "model": model, "weights": "none", "size": size, "epochs": 2,
            "workers": 1, "runs": folder, "precision": "fp32", "device": "cpu", "seed": 7,
        })  # fmt: skip
        (planned,) = budget.plan([options])
        estimate = budget.training_estimate(planned)
        held, started = bytes_of(data), time.process_time()
        train(options, Silent())
        seconds = time.process_time() - started
        size_made = bytes_of(Path(folder)) + bytes_of(data) - held
    print(f"{model:<22} {size:>4} px: about {estimate.seconds:6.1f} s, took {seconds:6.1f} s, "
          f"ratio {estimate.seconds / seconds:.2f}; about {estimate.size / 1e6:.0f} MB, "
          f"left {size_made / 1e6:.0f} MB", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--check", type=Path)
    parser.add_argument("--sizes", default="64,224")
    given = parser.parse_args()
    prepare_process(1)
    if given.check:
        for size in map(int, given.sizes.split(",")):
            for name in given.models.split(","):
                check(given.check, name, size)
        return
    core = rate(compress, 0.5, time.process_time)
    print(f"compression: {core:.0f} blocks/s, matrices {_matrices():.1f} GFLOP/s")
    for name in given.models.split(","):
        costs = [costs_of(MODELS[name], size, given.times) for size in SIZES]
        convolution_speed.cache_clear()
        speed = convolution_speed(clock=time.process_time)
        small, large = costs
        share = (SIZES[0] / SIZES[1]) ** 2
        parts = []
        for part in ("frozen", "step", "scored", "augment"):
            each = max(0.0, (large[part] - small[part]) / (1 - share) / BATCH)
            fixed = max(0.0, large[part] - each * BATCH)
            unit = core / REFERENCE_BLOCKS
            own = each * unit if part == "augment" else each * speed
            parts.append(f"{part} ({fixed * unit:.3g}, {own:.3g})")
        print(f"{name:<22} {speed:.1f} GFLOP/s {', '.join(parts)}", flush=True)


def _matrices():
    left = np.full((SIDE, SIDE), 0.5, np.float32)
    with threadpool_limits(1):
        return 2e-9 * SIDE**3 * rate(lambda: left @ left, 0.5, time.process_time)


if __name__ == "__main__":
    main()
