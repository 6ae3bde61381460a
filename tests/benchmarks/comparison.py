"""What `compare` costs with many runs: seconds and peak memory for 10, 60 and 300 of them.

    python -m tests.benchmarks.comparison --runs 10 60 300

Runs of 361 test images of 201 patients (CBIS-DDSM's masses). The first is evaluated from
predictions; the others are copies of its folder with more and more noise on the scores, so that
some cannot be told from it and some can. Each comparison is a process of its own, as a person
starts it; `--all-pairs` compares every two runs.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
MAIN = [sys.executable, str(ROOT / "main.py")]
IMAGES = np.repeat([1, 2, 3, 4], [55, 137, 4, 5])  # how many each of 201 test patients has
MALIGNANT = 0.42
COLUMNS = ("image_id", "patient_id", "label", "probability", "split")


def sigmoid(logits):
    """Return probabilities of logits."""
    return 1 / (1 + np.exp(-logits))


def write(path, lines):
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def first_run(folder):
    """Evaluate predictions of validation and test; return the run's folder."""
    generator = np.random.default_rng(1)
    lines = [COLUMNS]
    for split in ("val", "test"):
        for patient, count in enumerate(IMAGES):
            malignant = generator.random() < MALIGNANT
            shared = generator.normal() + 1.2 * malignant
            for image in range(count):
                score = sigmoid(shared + generator.normal(0, 0.5))
                name = f"{split}_P{patient:05d}"
                label = "malignant" if malignant else "benign"
                lines.append((f"{name}_{image}", name, label, f"{score:.6f}", split))
    write(folder / "p.csv", lines)
    command = [*MAIN, "evaluate", "--predictions", "p.csv", "--replicates", "100", "--batch"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (run,) = (folder / "runs" / "p").iterdir()
    return run


def copies(folder, run, count):
    """Make further runs of it, so that there are `count` in all."""
    generator = np.random.default_rng(2)
    with (run / "predictions_test.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = list(csv.reader(file))
    place = head.index("probability")
    scores = np.array([float(line[place]) for line in lines])
    logits = np.log(scores) - np.log1p(-scores)
    shutil.rmtree(folder / "runs" / "ResNet18_CFT", ignore_errors=True)
    for number in range(count - 1):
        copy = folder / "runs" / "ResNet18_CFT" / f"20260101-{number:06d}-{number}"
        shutil.copytree(run, copy)
        noise = generator.normal(0, 0.2 + number / count, len(lines))
        for line, score in zip(lines, sigmoid(logits + noise).tolist(), strict=True):
            line[place] = repr(score)
        write(copy / "predictions_test.csv", [head, *lines])


def compare(folder, words):
    """Return seconds, those of the processor, and peak memory in MB of one comparison."""
    with (folder / "compare.txt").open("w", encoding="utf-8") as file:
        started = time.perf_counter()
        process = subprocess.Popen([*MAIN, "compare", "--batch", *words], cwd=folder, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"compare ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    """Make the runs, compare them and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=(10, 60, 300))
    parser.add_argument("--all-pairs", action="store_true")
    options = parser.parse_args()
    words = ["--all-pairs"] if options.all_pairs else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = first_run(folder)
        print(f"{'runs':>6}{'pairs':>8}{'seconds':>10}{'of processor':>14}{'peak MB':>10}")
        for count in options.runs:
            copies(folder, run, count)
            seconds, busy, peak = compare(folder, words)
            with (folder / "reports" / "comparison" / "pairs.csv").open(encoding="utf-8") as file:
                pairs = sum(1 for _ in file) - 1
            print(f"{count:>6}{pairs:>8}{seconds:>10.1f}{busy:>14.1f}{peak:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
