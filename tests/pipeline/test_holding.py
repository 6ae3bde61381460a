"""Two runs in one output folder: the second says that another one is at work there, and which."""

import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import UserError
from pipeline.holding import hold, release
from tests.conftest import ROOT

HOLDING = """
import sys, time
from pathlib import Path
from pipeline.holding import hold
hold(Path(sys.argv[1]), "organize")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds a folder."""
    command = [sys.executable, "-c", HOLDING, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_folder_is_refused_and_the_holder_named(tmp_path, other):
    with pytest.raises(
        UserError, match=rf"organize since .*, process {other.pid} on .* is at work"
    ):
        hold(tmp_path, "preprocess")


def test_a_killed_run_holds_nobody_up(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    hold(tmp_path, "organize")
    hold(tmp_path, "organize")  # once more in the same process
    release(tmp_path)


def test_a_stage_is_refused_while_another_run_is_at_work(prepared, other, tmp_path, run_here):
    started = time.monotonic()
    done = run_here("preprocess", "--data", prepared / "dataset", "--out", tmp_path, "--batch")
    assert done.returncode == 1
    assert "is at work there; wait for its end, or choose another folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - started < 30
    assert other.poll() is None
