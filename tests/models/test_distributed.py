"""Two processes do what one does: shares, layers, gradients, and one voice at the terminal."""

import json
import subprocess
import sys

import pytest

from pipeline.errors import UserError
from pipeline.processes import World, world_here
from pipeline.work import worker_count
from tests.conftest import OFFLINE, ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found; see tests.models.ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [*TORCHRUN, "-m", "tests.models.ranks", "found.json"]
    environment = OFFLINE | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run(command, cwd=folder, env=environment, **quiet)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def both(ranks, name):
    """Return what both processes found, which is the same."""
    first, second = (rank[name] for rank in ranks)
    assert first == second
    return first


# --- shares


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 20])
def test_shares_are_all_of_it_in_order_and_differ_by_at_most_one(size, count):
    worlds = [World(rank, size, rank, size) for rank in range(size)]
    shares = [world.share(range(count)) for world in worlds]
    assert [index for share in shares for index in share] == list(range(count))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    if count:
        assert sum(world.weight(count) for world in worlds) == pytest.approx(size)


def test_the_world_is_what_torchrun_says():
    assert world_here({"PATH": "/bin"}) == World()
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    world = world_here(told)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert world.several
    assert not world.first
    for wrong in ({"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "4"}):
        with pytest.raises(UserError, match=r"RANK=.*contradict each other; start it with torchru"):
            world_here(told | wrong)


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    cores = worker_count(0)
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert worker_count(0) == max(1, cores // 2)
    assert worker_count(3) == 3


def test_shares_agreement_and_mistakes_pass_between_processes(ranks):
    assert both(ranks, "shares") is True
    assert both(ranks, "agreement") is True
    assert both(ranks, "mistakes") == ["rank 1: made by 1; do better", "made by 0; do better"]


# --- layers


@pytest.mark.parametrize("kind", ["BatchNorm2d", "BatchNormAct2d"])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_batch_norm_of_shares_is_that_of_the_whole_batch(ranks, kind, count):
    assert both(ranks, f"{kind} of {count}") < 3e-6


def test_batch_norm_settles_as_in_one_process(ranks):
    assert both(ranks, "BatchNorm2d settling") < 3e-6


def test_frozen_batch_norm_needs_no_other_process(ranks):
    assert both(ranks, "frozen") is True


@pytest.mark.parametrize("kind", ["Dropout", "Dropout2d"])
def test_dropout_drops_what_one_process_drops(ranks, kind):
    assert both(ranks, f"{kind} of 5") == 0


@pytest.mark.parametrize(
    "case", ["ResNet18_CFT of 5", "DenseNet121_PFT of 5", "MammoCNN of 5", "MammoCNN of 1"]
)
def test_gradients_and_statistics_are_those_of_the_whole_batch(ranks, case):
    assert both(ranks, case) < 2e-5


# --- one voice


@pytest.mark.parametrize(
    ("case", "status", "text"),
    [
        ("another stage", 1, "evaluate: runs in one process, and torchrun started 2; run it with"),
        ("no stage", 1, "the menu and replays of several stages run in one process"),
        ("questions", 1, "train: under torchrun no questions can be asked; give its flags and --b"),
        ("a wrong flag", 2, "--epochs: 0: must be between"),
        ("a wrong value", 1, "gone: no such folder; run: python main.py preprocess"),
    ],
)
def test_a_mistake_of_all_is_told_once(ranks, case, status, text):
    (first, out, told), second = (rank[case] for rank in ranks)
    assert first == status
    assert out == ""
    assert told.count("\n") == 1
    assert text in told
    assert second == [status, "", ""]


def test_a_mistake_of_another_process_is_told_with_its_rank(ranks):
    first, second = (rank["a wrong value each"] for rank in ranks)
    assert first[2].startswith("main.py: --data: gone0: no such folder")
    assert second[0] == 1
    assert second[2].startswith("main.py: rank 1: --data: gone1: no such folder")


def test_help_is_printed_once(ranks):
    first, second = (rank["help"] for rank in ranks)
    assert first[0] == second[0] == 0
    assert "usage: main.py train" in first[1]
    assert second[1] == ""
