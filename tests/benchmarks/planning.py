"""How long the rows of the whole RSNA collection take to be planned, and how much memory.

    python -m tests.benchmarks.planning --rounds 3

`organize --dry-run` of a train.csv with the collection's real number of rows, patients and cancers,
as a command of its own; beside it the plain way, which reads the table with pandas and splits its
patients with scikit-learn's StratifiedGroupKFold, where pandas is installed.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import machine
from tests.sources.rsna.files import ROWS, real_rows, write_table

ROOT = Path(__file__).parents[2]
PLAIN = """
import sys
import pandas
from sklearn.model_selection import StratifiedGroupKFold
table = pandas.read_csv(sys.argv[1])
cutter = StratifiedGroupKFold(5, shuffle=True, random_state=42)
rest, test = next(cutter.split(table, table.cancer, table.patient_id))
left = table.iloc[rest]
train, val = next(cutter.split(left, left.cancer, left.patient_id))
print(len(train), len(val), len(test))
"""


def seconds_of(*command):
    """Return how long a command takes, and the most memory of a process so far in megabytes."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.perf_counter() - started, peak / 1024


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine.text(machine.facts(with_gpu=False)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        table = str(write_table(Path(folder) / "train.csv", real_rows()))
        ours = (sys.executable, str(ROOT / "main.py"), "organize", "--dry-run", "--csv", table,
                "--batch")  # fmt: skip
        ways = {
            "organize --dry-run": ours,
            "pandas, scikit-learn": (sys.executable, "-c", PLAIN, table),
        }
        found = {name: [] for name in ways}
        peak = 0
        for _ in range(options.rounds):
            for name, command in ways.items():
                seconds, most = seconds_of(*command)
                found[name].append(seconds)
                peak = max(peak, most)
    for name, all_seconds in found.items():
        known = [one for one in all_seconds if one is not None]
        text = f"{statistics.median(known):.1f} s" if known else "not installed"
        print(f"{name}: {text} for {ROWS:,} rows", flush=True)
    print(f"most memory: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
