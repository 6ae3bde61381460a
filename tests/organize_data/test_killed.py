"""SIGKILL at any moment: what was written stays, nothing is written twice, the end is the same."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from sources.synthetic.stage import synthesize
from tests.conftest import OFFLINE, ROOT
from tests.organize_data.reading import contents, pictures, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A collection that takes a few seconds to organise."""
    folder = tmp_path_factory.mktemp("larger") / "raw"
    synthesize(Synthesize(out=folder, patients=10, seed=5, size="800", workers=1), Silent())
    return folder


def start(source, out):
    flags = ["--source", str(source), "--out", str(out), "--finding", "both", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "organize", *flags, "--batch"],
        env=OFFLINE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_run_that_is_killed_many_times_ends_like_an_undisturbed_one(larger, tmp_path):
    whole = run(larger, tmp_path / "whole", finding="both").folder
    out, dice = tmp_path / "dataset", random.Random(11)
    written, finished = {}, 0
    for _ in range(5):
        process = start(larger, out)
        # Some die in the work: once an image more is there; some before, at any moment.
        if dice.random() < 0.7:
            before, limit = len(pictures(out)), time.monotonic() + 60
            while len(pictures(out)) <= before + 2 and process.poll() is None:
                assert time.monotonic() < limit
                time.sleep(0.002)
        else:
            time.sleep(dice.uniform(0.1, 2))
        finished += process.poll() is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = pictures(out)
        again = [path for path, stamp in written.items() if now.get(path, stamp) != stamp]
        assert len(again) <= 2 + 2  # at most what each worker and the parent had in work
        written = now
        if finished:
            break
    assert len(written) > 10
    assert start(larger, out).wait() == 0
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_the_workers_of_a_killed_parent_leave_with_it(larger, tmp_path):
    process = start(larger, tmp_path / "dataset")
    limit = time.monotonic() + 60
    while len(pictures(tmp_path / "dataset")) < 3:
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < limit, "workers wait for ever"
        time.sleep(0.05)
