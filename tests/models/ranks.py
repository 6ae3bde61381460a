"""What each of two processes does for test_distributed.py, with a file to write.

They are started by what torchrun starts its processes with, but forked, so that torch is loaded
once.
"""

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import albumentations  # noqa: F401  # here, so that it is loaded once
import numpy as np
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import main
from interface import torchrun as terminal
from models.distributed import (
    all_gather,
    barrier,
    broadcast,
    gather_shards,
    on_rank_zero,
    process_group,
    raise_on_all_ranks,
    require_equal,
)
from pipeline.errors import UserError
from tests.models.sgd import fit_linear


def shards(world):
    """Shards of any length, and empty ones, come back in order, bit for bit, each once."""
    for count in (0, 1, 2, 5, 8):
        values = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        if not np.array_equal(gather_shards(world.shard(values)), values):
            return False
    return True


def mistakes(world):
    """Return what is raised here where one rank, both or none make a mistake."""
    texts = []
    for culprits in ((1,), (0, 1), ()):
        try:
            with raise_on_all_ranks():
                if world.rank in culprits:
                    raise UserError(f"made by {world.rank}", "do better")
        except UserError as error:
            texts.append(str(error))
    return texts


def mistake_of_rank_zero():
    def fail():
        raise UserError("the disk is full", "make room")

    try:
        on_rank_zero(fail)
    except UserError as error:
        return str(error)


def difference_refused(world):
    require_equal("same", "checkpoint")
    try:
        require_equal(world.rank, "checkpoint")
    except UserError as error:
        return str(error)


def checks(world, data):
    yield "shards", shards(world)
    yield "broadcast", broadcast(f"run-{world.rank}")
    yield "on rank zero", on_rank_zero(lambda: f"by {world.rank}")
    yield "mistakes", mistakes(world)
    yield "mistake of rank zero", mistake_of_rank_zero()
    yield "difference", difference_refused(world)
    yield "weights", fit_linear(data, Path("linear"))


def main_here(world, runs, data):
    """Return exit status, stdout and stderr of main.py, started in both processes."""
    commands = {
        "resumed": ["train", "--resume", "latest", "--runs", runs, "--workers", "1", "--batch"],
        "another stage": ["evaluate", "--batch"],
        "no stage": [],
        "questions": ["train"],
        "a wrong flag": ["train", "--epochs", "0"],
        "a wrong value": ["train", "--data", "gone", "--batch"],
        "a wrong value on rank 1": [
            "train", "--data", "gone" if world.rank else str(data), "--batch"
        ],
        "help": ["train", "--help"],
    }  # fmt: skip
    for name, command in commands.items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main.main(command)
            except SystemExit as leave:
                status = leave.code
        yield name, [status, out.getvalue(), err.getvalue()]


def run(path, runs, data):
    warnings.simplefilter("error")
    terminal.GRACE = 0.1  # nobody kills the other rank here
    torch.set_num_threads(1)
    with process_group() as world:
        found = dict(main_here(world, runs, data)) | dict(checks(world, data))
        every = all_gather(found)
        if world.is_rank_zero:
            path.write_text(json.dumps(every))
        barrier()


if __name__ == "__main__":
    torchrun = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=0, start_method="fork",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0",
    )  # fmt: skip
    elastic_launch(torchrun, run)(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
