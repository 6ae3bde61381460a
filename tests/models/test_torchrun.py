"""main.py started by torchrun itself: a process that is killed ends all, and one continues."""

import os
import signal
import subprocess
import sys
import time

import pytest

from models.training.stage import train
from pipeline.runs import list_runs, list_unfinished
from pipeline.stages.training import Train
from tests.conftest import OFFLINE, ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "main.py"]


def torchrun(folder, *command):
    """Start two processes; what they print goes to a file."""
    with (folder / "printed.txt").open("w") as file:
        return subprocess.Popen(
            [*TORCHRUN, *map(str, command)], cwd=ROOT, env=OFFLINE | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def ranks_of(process):
    """Return the process ids of both ranks, rank zero's first."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    return [int(pid) for pid in children.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks ps for child processes")
def test_a_killed_process_ends_all_in_one_line_and_one_continues(tiny_data, tmp_path, listener):
    runs, printed = tmp_path / "runs", tmp_path / "printed.txt"
    training = torchrun(
        tmp_path, "train", "--data", tiny_data, "--runs", runs, "--model", "MammoCNN",
        "--weights", "none", "--size", "32", "--batch-size", "6", "--epochs", "12", "--batch",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(runs.glob("*/*/checkpoint.pt")):
            assert training.poll() is None, printed.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(ranks_of(training)[1], signal.SIGKILL)
        assert training.wait(60) == 1
    finally:
        training.kill()
    lines = [line for line in printed.read_text().splitlines() if line.startswith("main.py: ")]
    assert lines == ["main.py: another process of this training was lost; continue with --resume"]
    assert list_unfinished(runs)

    # One process goes on with what two began; test_distributed has it the other way round.
    result = train(Train(resume="latest", runs=runs, workers=1), listener)
    assert any(text.startswith("Continues from the checkpoint") for text in listener.lines)
    (run,) = list_runs(runs)
    assert run.folder == result.folder
    assert run.record()["counts"]["epochs"] > 1
    assert list_unfinished(runs) == []
