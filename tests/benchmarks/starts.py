"""How long each stage takes from the command to its first progress bar.

    python main.py demo && python -m tests.benchmarks.starts demo

Each stage runs in a process of its own, which is ended when the first bar begins: seconds on the
clock and of the processor, Python's start included, and which large libraries were loaded by then.
A first round, which is not counted, compiles modules and reads files into the page cache.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import machine

ROOT = Path(__file__).parents[2]
LARGE = "torch", "timm", "torch._dynamo", "sklearn", "matplotlib", "albumentations", "optuna"
CHILD = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
import psutil
from interface.screen import Screen

def first_bar(self, text, *_more):
    taken = time.time() - psutil.Process().create_time()
    loaded = [name for name in {LARGE} if name in sys.modules]
    print(f"{{taken:.2f}} {{time.process_time():.2f}}", text.replace(" ", "_"), *loaded, flush=True)
    os._exit(0)

Screen.track = first_bar
import main
main.main(sys.argv[1:])
"""


def commands(demo, scratch):
    """Return the words of each stage, on the folders of a demo; nothing is written to them."""
    data, runs = ("--data", demo / "preprocessed"), ("--runs", demo / "runs")
    fresh = ("--runs", scratch / "runs", "--weights", "none")
    return {
        "synthesize": ("--out", scratch / "raw"),
        "organize": ("--source", demo / "raw", "--out", scratch / "dataset"),
        "preprocess": ("--data", demo / "dataset", "--out", scratch / "preprocessed"),
        "probe": data,
        "tune": (*data, *fresh),
        "train": (*data, *fresh),
        "evaluate": ("--run", "latest", *runs),
        "compare": (*runs, "--out", scratch / "comparison"),
        "report": (*runs, "--out", scratch / "reports"),
    }


def main():
    """Start every stage, in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="folder that the demo has made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        environment = machine.compiled_in(Path(name) / "compiled")
        for turn in range(options.rounds + 1):
            for stage, words in commands(options.demo.resolve(), Path(name)).items():
                command = [sys.executable, "-c", CHILD, stage, *map(str, words), "--batch"]
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, env=environment
                )
                if done.returncode or not done.stdout.strip():
                    raise SystemExit(f"{stage}: no bar\n{done.stderr}")
                if turn:
                    found.setdefault(stage, []).append(done.stdout.splitlines()[-1].split())
    print(f"{'stage':<12}{'seconds':>8}{'processor':>11}  first bar, loaded by then")
    for stage, rows in found.items():
        clock, processor = (statistics.median(float(row[at]) for row in rows) for at in (0, 1))
        bar, *loaded = rows[-1][2:]
        print(f"{stage:<12}{clock:>8.1f}{processor:>11.1f}  {bar.replace('_', ' ')}: "
              f"{', '.join(loaded) or 'none of them'}")  # fmt: skip


if __name__ == "__main__":
    main()
