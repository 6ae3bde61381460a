"""torchrun with one process, and with two that share the GPU: a finished run of each."""

import json
import sys

import torch

from pipeline.runs import list_runs
from tests.benchmarks.gpu.data import MEDIUM
from tests.benchmarks.gpu.record import NO_GPU, NO_TIME, last_lines, run_program

MODEL = "ResNet18_CFT"
LEAST = 15  # seconds that a start of torchrun takes


def torchrun(record, settings, count):
    """Train with some processes of torchrun; note the result of the run that it leaves."""
    runs = settings.folder / f"runs-torchrun-{count}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", count, "main.py"]
    command += ["train", "--data", settings.folder / MEDIUM, "--runs", runs, "--model", MODEL]
    command += ["--weights", "none", "--epochs", 2, "--batch", "--json"]
    command += ["--size", 32] if settings.dry else []
    done = run_program(command, record.left)
    if done.returncode:
        raise RuntimeError(f"status {done.returncode}\n{last_lines(done.stderr)}")
    facts, (run,) = json.loads(done.stdout)["facts"], list_runs(runs)
    row = f"{count} process" + "es" * (count > 1)
    record.figure(row, "finished", run.record()["counts"]["epochs"], "epochs")
    record.figure(row, "validation AUC", facts["best_val_auc"])
    record.figure(row, "training", facts["seconds"], "s")


def measure(record, settings):
    """Start torchrun with one process, then with two."""
    with record.attempt("1 process"):
        torchrun(record, settings, 1)
    # Alone it needs no other process: only two exchange gradients and batch norm's statistics.
    if not torch.cuda.is_available():
        record.unmeasured("2 processes on one GPU", NO_GPU)
    elif record.left < LEAST:
        record.unmeasured("2 processes on one GPU", NO_TIME)
    else:
        with record.attempt("2 processes on one GPU"):
            torchrun(record, settings, 2)
