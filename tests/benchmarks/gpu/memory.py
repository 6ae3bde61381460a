"""Trainings on a GPU that is nearly full: this process holds all but a little of its memory."""

import sys

import torch

from tests.benchmarks.gpu.data import FEW
from tests.benchmarks.gpu.record import NO_TIME, ROOT, last_lines, run_program

GIGA = 2**30
LEAST = 12  # seconds that a training takes with its start
MODEL = "MammoCNN"
# What is tried: gigabytes that are left, side and batch size, the exit status, and a part of what
# has to be said. An image of 512 pixels takes about a quarter of a gigabyte in training.
TRIED = {
    "batch too large": (3.0, 512, 24, 0, "batches are now computed in"),
    "two images too large": (3.0, 2048, 2, 1, "not enough memory"),
    "GPU full": (0.1, 512, 8, 1, "memory"),
}


def train(settings, size, batch, name, limit):
    """Train in another process; return its status and what it said on stderr."""
    words = ["--data", settings.folder / FEW, "--runs", settings.folder / f"runs-{name}"]
    words += ["--model", MODEL, "--size", size, "--batch-size", batch, "--epochs", 1]
    command = [sys.executable, ROOT / "main.py", "train", *words, "--batch", "--json"]
    done = run_program(command, limit)
    return done.returncode, done.stderr


def fault(status, told, expected, part):
    """Return what is wrong with how a training ended; empty where nothing is."""
    own = [line for line in told.splitlines() if line.startswith("main.py: ")]
    if "Traceback" in told:
        return "ended in a traceback"
    if status != expected:
        return f"status {status}, not {expected}"
    if part not in (own[-1] if status and own else told):
        return f"does not say {part!r}"
    return f"{len(own)} lines instead of one" if status and len(own) != 1 else ""


def measure(record, settings):
    """Hold the memory, and train beside that."""
    held = None
    for name, (left, size, batch, expected, part) in TRIED.items():
        if record.left < LEAST:
            record.unmeasured(name, NO_TIME)
            continue
        with record.attempt(name):
            held = None
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info()
            held = torch.empty(int(free - left * GIGA), dtype=torch.uint8, device="cuda")
            status, told = train(settings, size, batch, name.replace(" ", "-"), record.left)
            record.figure(name, "status", status)
            if what := fault(status, told, expected, part):
                record.failed(name, f"{what}:\n{last_lines(told)}")
            else:
                record.figure(name, "as it should be", 1)
    del held
