"""How quickly models are trained: this tool against a plain loop over the same images.

    python -m tests.benchmarks.training --what cft opw pft loading full-size spread

The plain loop is `tests.benchmarks.plain_training`: float32, ImageFolder on the preprocessed PNGs
with Resize, AdamW, a DataLoader of two workers. Each run is a process of its own, in turns, on a
synthetic collection; seconds are medians over the rounds.

- cft: one epoch of complete fine tuning, scoring of the validation images included, both sides
  with flips and rotations.
- opw, pft: 20 epochs, without augmentation, this tool's decoding and frozen layers' caches built
  from nothing; of the plain loop two epochs are run for each round and counted ten times.
- loading: one epoch of training images as tensors and nothing else.
- full-size: an epoch of ResNet18_CFT, the plain loop on full-size PNGs.
- spread: validation AUC of both loops over seeds, and of the plain loop with batch norm's
  statistics taken afresh from the training images before each validation, as this tool does.

bfloat16 is measured where the processor has instructions for it. It says what the processor is,
and in the end what could not be measured on it.
"""

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models.devices import has_fast_bf16
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.resources.places import CACHE
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from tests.benchmarks import machine
from tests.benchmarks.copies import replicate

FAMILIES = "ResNet18", "DenseNet121", "EfficientNetB3"
SIZE, BATCH = 224, 32
MAMMO_SIZE, MAMMO_BATCH = 512, 8
EPOCHS = 20  # of the frozen strategies
FULL = (4700, 3150)  # height and width of a full-size film
WHATS = "cft", "opw", "pft", "loading", "full-size", "spread"


def prepare(folder, patients, size="small"):
    """Make, organise and preprocess a synthetic collection; return the last folder.

    Args:
        folder: For all three.
        patients: How many.
        size: Of the films, as `synthesize --size` has it.
    """
    from organize_data import organize
    from preprocess_data import preprocess
    from sources.synthetic.stage import synthesize

    data = folder / "preprocessed"
    synthesize(Synthesize(out=folder / "raw", patients=patients, size=size), Silent())
    organize(Organize(source=folder / "raw", out=folder / "dataset"), Silent())
    preprocess(Preprocess(data=folder / "dataset", out=data), Silent())
    return data


def child(module, *words):
    """Run a module in a process of its own and return the JSON of its last line."""
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def plain(data, model, epochs, *flags):
    """Run the plain loop."""
    size, batch = shape_of(model)
    words = ["--data", data, "--model", model, "--size", size, "--batch-size", batch]
    return child("tests.benchmarks.plain_training", *words, "--epochs", epochs, *flags)


def ours(data, model, epochs, precision, *flags):
    """Train with this tool."""
    size, batch = shape_of(model)
    words = ["--data", data, "--model", model, "--size", size, "--batch-size", batch]
    words += ["--epochs", epochs, "--precision", precision]
    return child("tests.benchmarks.own_training", *words, *flags)


def shape_of(model):
    """Return the side of the input and the batch size that a model is measured with."""
    return (MAMMO_SIZE, MAMMO_BATCH) if model == "MammoCNN" else (SIZE, BATCH)


def in_turns(rounds, *ways):
    """Call each way in turn, round by round; return its results for each."""
    found = [[] for _ in ways]
    for _ in range(rounds):
        for results, way in zip(found, ways, strict=True):
            results.append(way())
    return found


def precisions():
    """Return the arithmetic to measure; fp32 by name sums as several processes do."""
    return ("fp32", "bf16") if has_fast_bf16() else ("auto",)


def show(text, plain_seconds, own_seconds, plain_mb, own_mb):
    """Print a row of the table."""
    ratio = plain_seconds / own_seconds
    print(
        f"{text:<34}{plain_seconds:>10.2f}{own_seconds:>10.3f}{ratio:>8.1f}"
        f"{plain_mb:>9.0f}{own_mb:>8.0f}",
        flush=True,
    )


def peak(results):
    """Return the largest peak memory in MB."""
    return max(result["peak_mb"] for result in results)


def compare(text, rounds, plain_way, own_way, plain_cost, own_cost):
    """Measure the plain loop and this tool in turns and print a row for each precision.

    Args:
        text: What is measured.
        rounds: How often.
        plain_way: Runs the plain loop.
        own_way: Runs this tool in a precision.
        plain_cost: Seconds of all results of the plain loop.
        own_cost: Likewise of this tool.
    """
    ways = [functools.partial(own_way, precision) for precision in precisions()]
    first, *rest = in_turns(rounds, plain_way, *ways)
    for precision, results in zip(precisions(), rest, strict=True):
        slow, quick = plain_cost(first), own_cost(results)
        show(f"{text}, {precision}", slow, quick, peak(first), peak(results))


def epoch_seconds(results, skipped=0):
    """Return the median seconds of an epoch, the first of each run skipped if asked for."""
    return statistics.median(one for result in results for one in result["seconds"][skipped:])


# The first epoch of this tool has the decoding in it.
later_epoch = functools.partial(epoch_seconds, skipped=1)


def cft(data, model, rounds):
    """Measure an epoch in which all layers are trained."""
    compare(
        f"{model}, epoch",
        rounds,
        lambda: plain(data, model, 2, "--augment"),
        lambda precision: ours(data, model, 3, precision, "--augment", "flip-rotate"),
        epoch_seconds,
        later_epoch,
    )


def frozen(data, model, rounds, *flags):
    """Measure 20 epochs of a strategy that freezes layers, caches included."""

    def fresh(precision):
        shutil.rmtree(data / CACHE, ignore_errors=True)
        return ours(data, model, EPOCHS, precision, "--patience", EPOCHS, *flags)

    compare(
        f"{model}, {EPOCHS} epochs",
        rounds,
        lambda: plain(data, model, 2),
        fresh,
        lambda results: EPOCHS * epoch_seconds(results),
        lambda results: statistics.median(result["total"] for result in results),
    )


def loading(data, rounds):
    """Measure the loading of training images alone."""
    ways = (
        lambda: plain(data, "ResNet18_CFT", 3, "--only-load"),
        lambda: ours(data, "ResNet18_CFT", 20, "fp32", "--only-load", "yes", "--augment", "none"),
    )
    first, second = in_turns(rounds, *ways)
    slow, quick = epoch_seconds(first), epoch_seconds(second)
    show("loading an epoch of images", slow, quick, peak(first), peak(second))


def full_size(data, folder, rounds):
    """Measure an epoch of ResNet18_CFT against the plain loop on full-size PNGs."""
    large = replicate(data, folder / "full", {"train": 48, "val": 12}, FULL)
    model = "ResNet18_CFT"
    compare(
        f"{model}, full size",
        rounds,
        lambda: plain(large, model, 1, "--augment"),
        lambda precision: ours(large, model, 3, precision, "--augment", "flip-rotate"),
        epoch_seconds,
        later_epoch,
    )


def spread(data, seeds, epochs):
    """Print the validation AUC of both loops over seeds."""
    found = {"plain loop": [], "settled": [], "this tool": []}
    for seed in range(1, seeds + 1):
        flags = "--seed", seed, "--learning-rate", 1e-3
        for name, more in (("plain loop", ()), ("settled", ("--settle",))):
            run = plain(data, "ResNet18_CFT", epochs, "--augment", *more, *flags)
            found[name].append(run["auc"])
        run = ours(
            data, "ResNet18_CFT", epochs, precisions()[-1], "--augment", "flip-rotate", *flags
        )
        found["this tool"].append(run["auc"])
    print(f"\nvalidation AUC of ResNet18_CFT after {epochs} epochs, {seeds} seeds")
    for name, values in found.items():
        each = " ".join(f"{value:.3f}" for value in values)
        middle, width = statistics.mean(values), statistics.stdev(values)
        print(f"{name:<12}{middle:.3f} +- {width:.3f}   {each}")


def main():
    """Make the images, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", choices=WHATS, default=WHATS)
    parser.add_argument(
        "--models", nargs="+", choices=(*FAMILIES, "MammoCNN"), default=(*FAMILIES, "MammoCNN")
    )
    parser.add_argument("--patients", type=int, default=100, help="of the synthetic collection")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4, help="of the spread")
    parser.add_argument("--epochs", type=int, default=10, help="of the spread")
    options = parser.parse_args()
    print(machine.text(machine.facts(with_gpu=False)), flush=True)
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        data = prepare(Path(name), options.patients)
        rows = read_manifest(data)
        counts = [sum(row.split == split for row in rows) for split in ("train", "val")]
        print(f"{counts[0]} training and {counts[1]} validation images, made in "
              f"{time.perf_counter() - started:.0f} s; {', '.join(precisions())}")  # fmt: skip
        print(f"\n{'':<34}{'plain s':>10}{'ours s':>10}{'ratio':>8}{'plain MB':>9}{'MB':>8}")
        families = [name for name in options.models if name != "MammoCNN"]
        if "cft" in options.what:
            for model in options.models:
                cft(data, f"{model}_CFT" if model in families else model, options.rounds)
        if "opw" in options.what:
            for model in families:
                frozen(data, f"{model}_OPW", options.rounds)
        if "pft" in options.what:
            for model in families:
                frozen(data, f"{model}_PFT", options.rounds, "--augment", "none")
        if "loading" in options.what:
            loading(data, options.rounds)
        if "full-size" in options.what:
            full_size(data, Path(name), options.rounds)
        if "spread" in options.what:
            spread(data, options.seeds, options.epochs)
    print("\nnot measured here:", *machine.unmeasured(), sep="\n- ")


if __name__ == "__main__":
    main()
