"""What training an autoencoder through this tool costs beside a plain PyTorch loop.

    python -m tests.benchmarks.anomaly.training --rounds 5

Both train the same network from the same weights, in float32, on the same tensors in memory, with
AdamW and the same batches, and score the same validation images after each epoch. This tool's side
is its whole training loop: the figures, batch norm recalibrated, weights and checkpoint written.
In one process, in turns; seconds are medians over the rounds, of ratios of each round. The goal is
at most 1.2 times the plain loop. Run it alone on the machine.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from models.data.loading import EvalTransform, Split
from models.inference import choose_compute, place, prepare_process
from models.networks import build
from models.registry import AUTOENCODERS, MODELS
from models.run_facts import HyperParameters, TrainingData
from models.training.loop import fit
from pipeline.manifest import Row
from pipeline.progress import Silent
from tests.benchmarks import machine

GOAL = 1.2
BATCH, RATE, DECAY, CLIP = 16, 2e-3, 1e-2, 1.0


def split(name, count, side, seed):
    """Return normal images of smooth noise with a black margin."""
    random = np.random.default_rng(seed)
    coarse = random.integers(1, 256, (count, side // 8, side // 8)).astype(np.uint8)
    images = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    images[:, :, : side // 4] = 0
    rows = [
        Row(image_id=f"{name}{n}", patient_id=f"{name}{n}", split=name, label="normal", path="",
            diagnosis="normal")
        for n in range(count)
    ]  # fmt: skip
    if name == "val":  # so that there is an AUC
        rows[0] = Row(image_id="val0", patient_id="val0", split=name, label="abnormal", path="",
                      diagnosis="abnormal")  # fmt: skip
    targets = np.array([row.is_positive for row in rows], np.float32)
    return Split(tuple(rows), images, targets, ())


def plain(network, train, val, epochs):
    """Train as a tutorial would, on (N, 1, S, S) tensors."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(epochs):
        network.train()
        for indices in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad()
            network(train[indices]).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            torch.cat([network(some) for some in val.split(2 * BATCH)])


def ours(network, data, epochs):
    """Train through this tool's loop."""
    hparams = HyperParameters(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, weight_decay=DECAY, patience=epochs,
        augment="none", seed=1, clip=CLIP, reconstruction=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fit(network, "", data, hparams, Path(folder), Silent())


def seconds(work, *given):
    """Return how long something takes."""
    started = time.perf_counter()
    work(*given)
    return time.perf_counter() - started


def measure(model, options):
    """Return the seconds of the plain loop and of this tool, for each round."""
    row, compute = MODELS[model], choose_compute("cpu", "fp32")
    torch.manual_seed(1)
    start = build(row.architecture, row.head)
    train = split("train", options.images, options.side, 1)
    val = split("val", max(4, options.images // 4), options.side, 2)
    transform = EvalTransform(0.0, 1.0, compute.device)
    data = TrainingData(Path(), train, val, transform, compute)
    tensors = transform(train.images), transform(val.images)
    found = []
    for number in range(options.rounds + 1):
        ways = []
        for way, given in ((plain, tensors), (ours, (data,))):
            network = copy.deepcopy(start)
            place(network, compute)
            ways.append(seconds(way, network, *given, options.epochs))
        if number:  # the first round warms up
            found.append(ways)
    return found


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["CAE", "VAE"], choices=[
        row.name for row in MODELS.values() if row.architecture in AUTOENCODERS])  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="in each round")
    parser.add_argument("--images", type=int, default=64, help="to train on")
    parser.add_argument("--side", type=int, default=256, help="of the images, in pixels")
    options = parser.parse_args()
    prepare_process(0)
    print(machine.text(machine.facts(with_gpu=False)), flush=True)
    print(f"\n{'':<12}{'plain s':>10}{'ours s':>10}{'ratio':>8}{'  of each round'}")
    missed = []
    for model in options.models:
        found = measure(model, options)
        ratios = [own / other for other, own in found]
        middle = statistics.median(ratios)
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        first, second = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{model:<12}{first:>10.2f}{second:>10.2f}{middle:>8.2f}  {each}", flush=True)
        missed += [model] if middle > GOAL else []
    goal = f"at most {GOAL} times the plain loop"
    print(f"\n{goal}: {'not met by ' + ', '.join(missed) if missed else 'met'}")


if __name__ == "__main__":
    main()
