"""Parallel work: results, one bad job among many, and continuing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import UserError
from pipeline.work import Ledger, run_all, worker_count
from tests.conftest import ROOT


def halve(number):
    if number % 2:
        raise UserError(f"{number}: is odd", "give an even one")
    return number // 2


def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_job_never_stops_the_rest(workers):
    results = dict(run_all(halve, range(20), workers))
    assert {job: value for job, value in results.items() if not job % 2} == {
        number: number // 2 for number in range(0, 20, 2)
    }
    assert {str(value) for job, value in results.items() if job % 2} == {
        f"{number}: is odd; give an even one" for number in range(1, 20, 2)
    }


def test_a_killed_worker_is_a_clear_line():
    with pytest.raises(UserError, match=r"a worker process was killed.*--workers 1"):
        list(run_all(die, range(8), 2))


def test_a_programming_error_ends_the_work():
    with pytest.raises(TypeError):
        list(run_all(halve, ["text"], 1))


def test_jobs_are_drawn_only_as_they_are_needed():
    drawn = []

    def jobs():
        for number in range(0, 1000, 2):
            drawn.append(number)
            yield number

    results = run_all(halve, jobs(), 2)
    next(results)
    assert len(drawn) < 20
    results.close()


def test_zero_workers_means_the_usable_cores():
    assert worker_count(3) == 3
    assert worker_count(0) >= 1


def test_the_ledger_survives_a_line_cut_off_by_a_kill(tmp_path):
    Ledger(tmp_path).add("a.png", "key-a", {"height": 3})
    Ledger(tmp_path).add("b.png", "key-b", {"height": 4})
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text()[:-9])
    ledger = Ledger(tmp_path)
    assert ledger.facts("a.png", "key-a") == {"height": 3}
    assert ledger.facts("b.png", "key-b") is None
    ledger.add("b.png", "key-b", {"height": 4})
    assert Ledger(tmp_path).facts("b.png", "key-b") == {"height": 4}


def test_other_options_make_it_again(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("a.png", "old", 1)
    assert ledger.facts("a.png", "new") is None


def test_keep_only_names_what_is_stale(tmp_path):
    ledger = Ledger(tmp_path)
    for name in "abc":
        ledger.add(name, "key", 1)
    assert ledger.keep_only(["b"]) == ["a", "c"]
    assert ledger.facts("a", "key") is None


def test_a_ledger_that_is_written_anew_keeps_the_last_word_on_each_name(tmp_path):
    ledger = Ledger(tmp_path)
    for name, facts in (("a", None), ("a", 1), ("b", 2), ("c", 3)):
        ledger.add(name, "key", facts)
    ledger.keep_only(["a", "b"])
    ledger.rewrite()
    assert (tmp_path / "ledger.jsonl").read_text().count('"name"') == 2
    again = Ledger(tmp_path)
    assert [again.facts(name, "key") for name in "abc"] == [1, 2, None]


@pytest.mark.slow
def test_workers_leave_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from pipeline.work import run_all\n"
        "if __name__ == '__main__':\n"
        "    print('begun', flush=True)\n"
        "    list(run_all(time.sleep, [0.2] * 200, 2))\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process.stdout.readline()
    time.sleep(1.5)
    process.kill()
    process.wait()
    process.stdout.close()
    limit = time.monotonic() + 30
    while is_alive(process.pid):
        assert time.monotonic() < limit, "workers wait for ever"
        time.sleep(0.05)


def is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
