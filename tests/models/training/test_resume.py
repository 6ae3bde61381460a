"""A training that is stopped or killed goes on and ends as if nothing had happened."""

import contextlib
import csv
import errno
import random
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from models.training import checkpoints
from models.training import loop as fitting
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.runs import find_unfinished, list_runs, list_unfinished
from tests.models.datasets import make_dataset

QUICK = {"model": "MammoCNN", "size": 32, "batch_size": 6}


class Stopping(Silent):
    """Presses Ctrl-C after some batches."""

    def __init__(self, batches):
        self.left = batches

    @contextlib.contextmanager
    def track(self, text, total, unit, done=0):  # noqa: ARG002
        def advance(_steps):
            self.left -= unit == "batches"
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


def history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(folder, other):
    first, second = (load_file(x / "weights.safetensors") for x in (folder, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert history(folder) == history(other)


@pytest.fixture(scope="module")
def undisturbed(request, options_for, tmp_path_factory):
    """A training that nobody stopped, and its options; with frozen layers and without."""
    given = QUICK | {"model": request.param, "epochs": 2, "augment": "flip-rotate"}
    return given, train(options_for(tmp_path_factory.mktemp("whole"), **given), Silent())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("undisturbed", "batches"),
    [("DenseNet121_PFT", 5), ("MammoCNN", 1), ("MammoCNN", 5)],
    indirect=["undisturbed"],
    scope="module",
)
def test_a_stopped_training_goes_on_to_the_same_weights(
    undisturbed, batches, options_for, tmp_path
):
    given, whole = undisturbed
    name, runs = given["model"], tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt, match=rf"train --resume \S+/{name}/\d+-\d+-42 --batch"):
        train(options_for(runs, **given), Stopping(batches))
    (run,) = list_unfinished(runs)
    assert list_runs(runs) == []
    result = train(options_for(runs, resume=run.name), Silent())
    assert result.folder == run.folder
    assert_same(result.folder, whole.folder)
    assert result.facts["best_epoch"] == whole.facts["best_epoch"]
    assert list_unfinished(runs) == []
    assert not (result.folder / "checkpoint.pt").exists()


def test_a_checkpoint_within_an_epoch_is_enough_to_go_on(options_for, tmp_path, monkeypatch):
    given = QUICK | {"epochs": 1}
    whole = train(options_for(tmp_path / "whole", **given), Silent())
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1)
    with pytest.raises(KeyboardInterrupt):
        train(options_for(tmp_path / "runs", **given), Stopping(2))
    (run,) = list_unfinished(tmp_path / "runs")
    saved = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    assert saved["course"]["history"] == []
    assert saved["course"]["batches"] > 0
    assert_same(
        train(options_for(tmp_path / "runs", resume="latest"), Silent()).folder, whole.folder
    )


@pytest.mark.slow
def test_early_stopping_is_remembered(options_for, tmp_path):
    given = QUICK | {"epochs": 8, "patience": 2, "learning_rate": 1e-9, "batch_size": 12}
    whole = train(options_for(tmp_path / "whole", **given), Silent())
    assert whole.facts["epochs"] < 8
    with pytest.raises(KeyboardInterrupt):
        train(options_for(tmp_path / "runs", **given), Stopping(5))
    resumed = train(options_for(tmp_path / "runs", resume="MammoCNN"), Silent())
    assert_same(resumed.folder, whole.folder)


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoint(options_for, tmp_path, monkeypatch):
    given = QUICK | {"epochs": 2}
    whole = train(options_for(tmp_path / "whole", **given), Silent())
    write, written = checkpoints.Path.write_bytes, []

    def filling(path, data):
        if "checkpoint" in path.name:
            written.append(path)
            if len(written) == 2:
                write(path, bytes(data)[:1000])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(checkpoints.Path, "write_bytes", filling)
    with pytest.raises(UserError, match=r"/checkpoint\.pt: No space left.*make room, .*resume"):
        train(options_for(tmp_path / "runs", **given), Silent())
    (run,) = list_unfinished(tmp_path / "runs")
    assert {path.name for path in run.folder.glob("*checkpoint*")} == {"checkpoint.pt"}
    assert_same(
        train(options_for(tmp_path / "runs", resume=run.name), Silent()).folder, whole.folder
    )


# --- refusals


@pytest.fixture
def stopped(options_for, tmp_path):
    data = make_dataset(tmp_path / "data" / "preprocessed")
    options = options_for(tmp_path / "runs", data=data, epochs=2, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(options, Stopping(6))
    (run,) = list_unfinished(tmp_path / "runs")
    return data, run


def test_a_dataset_that_changed_is_refused(stopped, options_for, tmp_path):
    data, _ = stopped
    write_manifest(data, read_manifest(data)[1:])
    changed = r"has changed since MammoCNN/.*\(images, labels or splits\)"
    with pytest.raises(UserError, match=changed):
        train(options_for(tmp_path / "runs", resume="latest"), Silent())


def test_a_damaged_checkpoint_is_refused(stopped, options_for, tmp_path):
    _, run = stopped
    path = run.folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"checkpoint\.pt: cannot be continued from"):
        train(options_for(tmp_path / "runs", resume=run.name), Silent())


def test_what_is_no_stopped_run_is_refused(trained, options_for, tmp_path):
    with pytest.raises(UserError, match=r"no such stopped run in .*those that there are: none"):
        find_unfinished(tmp_path / "runs", "latest")
    with pytest.raises(UserError, match="is finished"):
        train(options_for(trained.folder.parents[1], resume=str(trained.folder)), Silent())


# --- kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_kills_at_random_moments_change_nothing(tiny_data, options_for, begin, tmp_path):
    given = QUICK | {"epochs": 6, "augment": "none"}
    whole = train(options_for(tmp_path / "whole", **given), Silent())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    fixed = ["--weights=none", "--precision=fp32", "--device=cpu", f"--data={tiny_data}"]
    common = [f"--runs={tmp_path / 'runs'}", "--workers=1", "--batch"]
    dice, runs = random.Random(6), tmp_path / "runs"

    def epochs():
        (run,) = list_unfinished(runs) or [None]
        path = run.folder / "history.csv" if run else None
        return len(path.read_text().splitlines()) if path and path.is_file() else 0

    words = [*flags, *fixed]
    for _ in range(2):
        enough = epochs() + 1
        process, limit = begin("train", *words, *common), time.monotonic() + 100
        while process.lives() and epochs() < enough + 1:
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.2))
        process.kill()
        if not list_unfinished(runs):
            break
        words = ["--resume=latest"]
    if list_unfinished(runs):
        train(options_for(runs, resume="latest"), Silent())
    (run,) = list_runs(runs)
    assert_same(run.folder, whole.folder)
