"""Two processes train as one does: shards, gradients, mistakes, and what is printed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.data.loading import load_split
from models.evaluation.calibration import logistic
from models.inference import choose_compute, image_logits, load_run
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.processes import World, world_here
from pipeline.progress import Silent
from pipeline.runs import list_runs, list_unfinished
from pipeline.work import worker_count
from tests.conftest import OFFLINE, ROOT
from tests.models.sgd import fit_linear
from tests.models.training.test_resume import Stopping

# --- shards


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 20])
def test_shards_are_all_of_it_in_order_and_differ_by_at_most_one(size, count):
    worlds = [World(rank, size, rank, size) for rank in range(size)]
    shards = [world.shard(range(count)) for world in worlds]
    assert [index for shard in shards for index in shard] == list(range(count))
    lengths = [len(shard) for shard in shards]
    assert max(lengths) - min(lengths) <= 1


def test_the_world_is_what_torchrun_says():
    assert world_here({"PATH": "/bin"}) == World()
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    world = world_here(told)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert world.distributed
    assert not world.is_rank_zero
    for wrong in ({"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "4"}):
        with pytest.raises(UserError, match=r"RANK=.*contradict each other; start it with torchru"):
            world_here(told | wrong)


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    cores = worker_count(0)
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert worker_count(0) == max(1, cores // 2)
    assert worker_count(3) == 3


# --- two processes, started once for all there is to see: that takes seconds


def begin(options_for, folder):
    """Return a run that ended, and the folder of a run of the same that stopped after an epoch."""
    given = {"model": "MammoCNN", "epochs": 2, "batch_size": 7, "size": 48, "ema": 0.8}
    given |= {"augment": "flip", "learning_rate": 3e-4, "mixup": 0.2}
    whole = train(options_for(folder / "whole", **given), Silent())
    with pytest.raises(KeyboardInterrupt):
        train(options_for(folder / "begun", **given), Stopping(5))
    return whole.folder, folder / "begun"


def start(folder, *arguments):
    """Return what each of two processes found; see tests.models.ranks."""
    command = [sys.executable, "-m", "tests.models.ranks", "found.json", *map(str, arguments)]
    environment = OFFLINE | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run(command, cwd=folder, env=environment, **quiet)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def val_probabilities(folder):
    model, compute = load_run(folder), choose_compute("cpu", "fp32")
    data = Path(model.facts["data"])
    val = load_split(data, read_manifest(data), "val", model.size, 1, Silent())
    scores = image_logits(model.network, val.images, model.transform(compute), compute)
    assert len(scores) == 12
    return logistic(scores)


@pytest.mark.slow
def test_two_processes_train_and_report_as_one_does(options_for, tiny_data, tmp_path):
    whole, runs = begin(options_for, tmp_path)
    alone = fit_linear(tiny_data, tmp_path / "alone")
    ranks = start(tmp_path, runs, tiny_data)
    check_collectives(ranks)
    check_output(ranks)
    # Gradients of shards, parts and mixed images are those of the whole batch.
    assert ranks[0]["weights"] == pytest.approx(alone, abs=1e-6)
    # A training that one process began, two have ended. Batch norm saw shards in the second epoch.
    (first, out, err), second = (rank["resumed"] for rank in ranks)
    assert first == 0, err
    assert second == [0, "", ""]
    assert out.count("Continues from the checkpoint after epoch 1 of 2") == 1
    (run,) = list_runs(runs)
    assert list_unfinished(runs) == []
    assert np.abs(val_probabilities(whole) - val_probabilities(run.folder)).max() < 0.1


def check_collectives(ranks):
    for found in ranks:
        assert found["shards"] is True
        assert found["broadcast"] == "run-0"
        assert found["on rank zero"] == "by 0"
        assert found["mistakes"] == ["rank 1: made by 1; do better", "made by 0; do better"]
        assert found["mistake of rank zero"] == "the disk is full; make room"
        assert found["difference"].startswith("the processes do not see the same checkpoint; put")


def check_output(ranks):
    """A mistake is printed once, with the rank where rank zero did not make it; help too."""
    expected = {
        "another stage": (1, "evaluate: runs in one process, and torchrun started 2; run it with"),
        "no stage": (1, "the menu and replays of several stages run in one process"),
        "questions": (1, "train: under torchrun no questions can be asked; give its flags and"),
        "a wrong flag": (2, "--epochs: 0: must be between"),
        "a wrong value": (1, "main.py: --data: gone: no such folder; run: python main.py"),
        "a wrong value on rank 1": (1, "main.py: rank 1: --data: gone: no such folder"),
    }
    for case, (status, text) in expected.items():
        first, second = (rank[case] for rank in ranks)
        printed = first[2] + second[2]  # by whichever rank was there first
        assert (first[:2], second[:2]) == ([status, ""], [status, ""]), case
        assert printed.count("\n") == 1, case
        assert text in printed
    first, second = (rank["help"] for rank in ranks)
    assert first[0] == second[0] == 0
    assert "usage: main.py train" in first[1]
    assert second[1] == ""
