"""What a search costs: 20 trials of this tool against 20 plain trainings of the same model.

    python -m tests.benchmarks.tuning --models EfficientNetB3_Optuna EfficientNetB3_OPW

The plain way is what is done without a tool: `tests.benchmarks.plain_training` once for each of 20
points, float32, all epochs. Two of its epochs are measured and counted up; the search is run whole,
its decoding and frozen layers' caches built from nothing. `--test` also trains the model twice,
with its recorded values and with those that were found, and evaluates both on test.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models.registry import MODELS
from pipeline.resources.places import CACHE
from tests.benchmarks.training import child, epoch_seconds, prepare

ROOT = Path(__file__).parents[2]


def stage(folder, name, *words):
    """Run a stage in a process of its own; return its result and its seconds."""
    command = [sys.executable, str(ROOT / "main.py"), name, *map(str, words), "--batch", "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - started


def plain_seconds(data, model, options):
    """Return the seconds of one plain training of all epochs."""
    words = ["--data", data, "--model", model, "--size", options.size, "--epochs", 2]
    words += ["--batch-size", MODELS[model].scratch_batch_size]
    result = child("tests.benchmarks.plain_training", *words, "--augment")
    return options.epochs * epoch_seconds([result])


def search(folder, data, model, options):
    """Search from nothing; return the result and its seconds."""
    shutil.rmtree(data / CACHE, ignore_errors=True)
    words = ["--data", data, "--model", model, "--weights", options.weights]
    words += ["--size", options.size, "--trials", options.trials]
    if MODELS[model].strategy != "opw":
        words += ["--epochs", options.epochs]
    return stage(folder, "tune", *words)


def on_test(folder, data, model, options):
    """Print the test AUC with its interval: recorded values, and those that were found."""
    for text, source in (("recorded values", "recorded"), ("found", "searched")):
        words = ["--data", data, "--model", model, "--weights", options.weights]
        words += ["--size", options.size, "--epochs", options.epochs]
        trained, _ = stage(folder, "train", *words, "--hyperparameters", source)
        scored, _ = stage(folder, "evaluate", "--run", trained["facts"]["run"])
        area = scored["facts"]["test"]["metrics"]["auc"]
        interval = f"[{area['low']:.3f}, {area['high']:.3f}]"
        val = trained["facts"]["best_val_auc"]
        print(f"  {text:<16} validation {val:.3f}, test {area['value']:.3f} {interval}", flush=True)


def main():
    """Make the images, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=MODELS,
        default=("EfficientNetB3_Optuna", "EfficientNetB3_OPW"),
    )  # fmt: skip
    parser.add_argument("--patients", type=int, default=100, help="of the synthetic collection")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--test", action="store_true", help="train and evaluate as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare(folder, options.patients)
        print(f"{'':<24}{'plain s':>12}{'search s':>10}{'share':>8}{'own':>8}{'found':>8}")
        for model in options.models:
            plain = options.trials * plain_seconds(data, model, options)
            result, seconds = search(folder, data, model, options)
            facts = result["facts"]
            found = f"{facts['defaults_val_auc']:>8.3f}{facts['best_val_auc']:>8.3f}"
            cost = f"{plain:>12.0f}{seconds:>10.0f}{seconds / plain:>8.3f}"
            print(f"{model:<24}{cost}{found}", flush=True)
            if options.test:
                on_test(folder, data, model, options)


if __name__ == "__main__":
    main()
