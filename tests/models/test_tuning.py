"""A search over hyper-parameters: what is tried, that it goes on, what training takes from it."""

import contextlib
import csv
import dataclasses
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import optuna
import pytest
import torch
from safetensors.torch import load_file

from models.queue import train_each
from models.registry import MODELS
from models.search_space import apply_point, space_of, start_points
from models.study import open_study, shown, storage_at
from models.training import make_network, recipe_of, train
from models.tuning import tune
from models.tuning_worker import Worker
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, write_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.records import RECORD, read_json, write_json
from pipeline.runs import list_runs, list_unfinished
from pipeline.stages import Train, Tune
from tests.conftest import OFFLINE, ROOT
from tests.models.conftest import Listener
from tests.models.datasets import divide, make_dataset

POSTGRES = os.environ.get("MAMMOLAB_TEST_POSTGRES", "")
COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))


def tune_options(data, runs, **given):
    quick = {
        "data": data, "runs": runs, "model": "MammoCNN", "weights": "none", "trials": 3,
        "epochs": 2, "size": 32, "workers": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return checked(Tune, quick | given)


def command(options):
    words = [
        word
        for item in dataclasses.fields(options)
        if (value := getattr(options, item.name)) not in ("", None)
        for word in ("--" + item.name.replace("_", "-"), str(value))
    ]
    return [sys.executable, str(ROOT / "main.py"), "tune", *words, "--batch"]


def start(options, cwd):
    return subprocess.Popen(
        command(options), cwd=cwd, env=OFFLINE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def listed(folder):
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def all_trials(result, address=""):
    name = result.facts["study"]
    with storage_at(address or f"sqlite:///{result.folder / 'study.db'}") as storage:
        return optuna.load_study(study_name=name, storage=storage).get_trials()


@pytest.fixture(scope="module")
def searched(tiny_data, tmp_path_factory):
    """A search that came to its end, and its options; not to be written to."""
    options = tune_options(tiny_data, tmp_path_factory.mktemp("searched") / "runs")
    told = Listener()
    return options, tune(options, told), told


@pytest.fixture
def worker_of(tiny_data, tmp_path):
    """A worker of a study, whose trials are scored by a function of their place and the trial."""
    opened = contextlib.ExitStack()

    def make(score, trials=8, model="MammoCNN", **given):
        class Scored:
            def score(self, _params, folder, trial):
                return score(int(folder.name), trial)

        options = tune_options(tiny_data, tmp_path, trials=trials, model=model, epochs=9, **given)
        storage = opened.enter_context(storage_at(f"sqlite:///{tmp_path / 'study.db'}"))
        study = open_study(storage, "s", {"a": 1})
        base = Train(model=model, weights="none")
        return Worker(
            study, Scored(), MODELS[model], base, tmp_path / "study", options, Listener(), True
        )

    with opened:
        yield make


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_records_lies_in_its_search_space(name):
    row = MODELS[name]
    space = {one.name: one for one in space_of(row)}
    for scratch in (True, False):
        points = start_points(row, scratch)
        assert points[0][1]
        for point, _ in points:
            for key, value in point.items():
                one = space[key]
                if one.choices:
                    assert value in one.choices
                else:
                    assert one.low <= value <= one.high
    if row.strategy != "opw":
        options = Train(model=name, weights="none")
        point = start_points(row, scratch=True)[0][0]
        given, same = apply_point(point, options, row)
        assert (given, same) == (dataclasses.replace(options, **_named(point, given)), row)
        ignored = {} if row.trained_from else {"variants": 0}
        assert dataclasses.replace(recipe_of(given, same), **ignored) == recipe_of(options, row)


def _named(point, given):
    return {name: getattr(given, name) for name in point if hasattr(given, name)}


def test_what_was_given_wins_over_what_was_found():
    row = MODELS["EfficientNetB3_Optuna"]
    found = {
        "trained_from": "blocks.6", "head_depth": 2, "head_width": 128, "dropout": 0.1,
        "optimizer": "sgd", "sgd_learning_rate": 0.05, "batch_size": 32, "epochs": 12,
    }  # fmt: skip
    options, changed = apply_point(found, Train(batch_size=8, epochs=5), row)
    assert (options.batch_size, options.epochs) == (8, 5)
    assert (options.optimizer, options.learning_rate) == ("sgd", 0.05)
    assert (changed.trained_from, changed.head.widths) == ("blocks.6", (128, 64))
    network, _, _ = make_network(dataclasses.replace(options, weights="none"), changed)
    assert isinstance(network.classifier[-1], torch.nn.Linear)


def test_a_search_begins_with_the_models_own_values_and_leaves_its_files(searched):
    options, result, told = searched
    rows = listed(result.folder)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert [row["own_values"] for row in rows] == ["yes", "no", "no"]
    assert float(rows[0]["learning_rate"]) == MODELS["MammoCNN"].scratch_learning_rate
    best = read_json(result.folder / "best.json")
    areas = [float(row["val_auc"]) for row in rows if row["state"] == "complete"]
    assert best["val_auc"] == max(areas)
    assert best["defaults_val_auc"] == float(rows[0]["val_auc"])
    assert (best["params"]["epochs"], best["trials"]) == (2, 3)
    assert [cells["trial"] for cells, _ in told.rows] == [0, 1, 2]
    assert list(told.rows[0][0]) == ["trial", "val_auc", "best", "ended", "values"]
    for name in ("history", "slices", "parallel"):
        for suffix in ("svg", "png"):
            assert (result.folder / "figures" / f"tuning-{name}.{suffix}").is_file()
    assert any("optuna-dashboard sqlite:///" in note for note in result.notes)
    assert read_json(result.folder / RECORD)["counts"]["trials"] == 3
    assert not (result.folder / "trials").exists()
    assert list_runs(options.runs) == list_unfinished(options.runs) == []


def test_finished_trials_are_not_run_again_and_more_can_be_added(searched, tmp_path):
    options, result, _ = searched
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    before = listed(result.folder)
    told = Listener()
    same = tune(dataclasses.replace(options, runs=runs), told)
    assert (told.rows, listed(same.folder)) == ([], before)
    more = tune(dataclasses.replace(options, runs=runs, trials=4), told)
    assert [cells["trial"] for cells, _ in told.rows] == [3]
    assert listed(more.folder)[:3] == before


def test_trials_share_the_frozen_layers_and_need_no_test_images(tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    shutil.rmtree(data / ".cache", ignore_errors=True)
    shutil.rmtree(data / "test")
    options = tune_options(data, tmp_path / "runs", model="ResNet18_PFT", epochs=1)
    rows = listed(tune(options, Silent()).folder)
    assert [row["trained_from"] for row in rows] == ["layer4"] * 3
    assert [row["augment"] for row in rows] == ["flip-rotate", "wide", "flip"]
    # Training images in three ways; only once the images of validation and those that batch norm
    # takes its statistics from.
    assert len(list((data / ".cache" / "frozen").glob("*.npy"))) == 3 + 2


def test_folds_are_searched_by_their_mean(tiny_data, options_for, tmp_path):
    data, model = shutil.copytree(tiny_data, tmp_path / "data"), "ResNet18_OPW"
    divide(data, 2)
    options = tune_options(data, tmp_path / "runs", fold="all", model=model, trials=2)
    areas = [float(row["val_auc"]) for row in listed(tune(options, Silent()).folder)]
    each = options_for(tmp_path / "apart", data=data, fold="all", model=model, size=32)
    for fold in (1, 2):
        folder = train(dataclasses.replace(each, fold=fold), Silent()).folder
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            for place, row in zip((0, 1), csv.DictReader(file), strict=False):
                areas[place] -= float(row["val_auc"]) / 2
    assert areas == pytest.approx([0, 0], abs=1e-9)


def test_training_takes_over_what_was_found(searched, tiny_data, tmp_path):
    options, result, _ = searched
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    told = Listener()
    given = Train(
        data=tiny_data, runs=runs, model="MammoCNN", weights="none", size=32, workers=1,
        device="cpu", precision="fp32", epochs=2,
    )  # fmt: skip
    found = train(given, told)
    best = result.facts
    assert found.facts["best_val_auc"] == pytest.approx(best["best_val_auc"])
    tuning = read_json(found.folder / "model.json")["tuning"]
    assert (tuning["study"], tuning["trial"]) == (best["study"], best["best_trial"])
    assert any(f"trial {best['best_trial']} of {best['study']}" in line for line in told.lines)
    again = train_each(dataclasses.replace(given, model="MammoCNN,ResNet18_OPW"), Silent())
    assert [one["state"] for one in again.facts["trainings"]] == ["done before", "done"]
    (file,) = (runs / "studies").glob("*/best.json")
    file.unlink()  # without it the values are others, and the run is of no use
    again = train_each(
        dataclasses.replace(given, model="MammoCNN,ResNet18_OPW", epochs=1), Silent()
    )
    assert [one["state"] for one in again.facts["trainings"]] == ["done", "done"]


def test_a_run_goes_on_with_the_values_it_was_started_with(searched, tiny_data, tmp_path):
    class Stopping(Silent):
        def row(self, _cells, best=False):  # noqa: ARG002
            raise KeyboardInterrupt

    options, _, _ = searched
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    given = Train(data=tiny_data, runs=runs, model="MammoCNN", weights="none", size=32, workers=1,
                  device="cpu", precision="fp32")  # fmt: skip
    whole = train(given, Silent())
    with pytest.raises(KeyboardInterrupt):
        train(given, Stopping())
    (path,) = (runs / "studies").glob("*/best.json")
    best = read_json(path)
    write_json(path, best | {"params": best["params"] | {"batch_size": 8, "augment": "none"}})
    result = train(dataclasses.replace(given, resume="latest"), Silent())
    first, second = (load_file(one.folder / "weights.safetensors") for one in (whole, result))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_tuned_model_without_a_study_says_so(tiny_data, tmp_path):
    options = Train(data=tiny_data, runs=tmp_path, model="EfficientNetB3_Optuna", weights="none",
                    epochs=1, size=32, workers=1, device="cpu", augment="none")  # fmt: skip
    result = train(options, Silent())
    assert any("not tuned on this dataset" in note for note in result.notes)
    assert read_json(result.folder / "model.json")["tuning"] is None


def test_a_failed_trial_is_recorded_and_stops_nothing(worker_of):
    def score(slot, _trial):
        if slot == 1:
            raise UserError("epoch 3: the loss is no longer finite")
        if slot == 2:
            raise RuntimeError("shapes do not fit\nmore")
        return slot / 10

    worker = worker_of(score, trials=4)
    worker.work()
    states = [trial.state for trial in worker.study.get_trials()]
    assert states == [COMPLETE, FAIL, FAIL, COMPLETE]
    search = worker.search({"epochs": 9, "patience": 6})
    assert [one.reason for one in search.entries][1:3] == [
        "epoch 3: the loss is no longer finite", "shapes do not fit",
    ]  # fmt: skip
    assert search.counts["best_trial"] == 3


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_are_pruned_but_never_the_models_own(worker_of, pruner):
    def score(slot, trial):
        from models.trials import Watched

        watched = Watched(trial, [], 9)
        for epoch in range(1, 6):
            watched.row({"epoch": epoch, "val_auc": 0.9 if slot % 2 else 0.1})
        return 0.9 if slot % 2 else 0.1

    worker = worker_of(score, trials=8, pruner=pruner)
    worker.work()
    trials = worker.study.get_trials()
    assert trials[0].state == COMPLETE
    assert PRUNED in [trial.state for trial in trials]
    assert all(trial.state == COMPLETE for trial in trials if trial.number in (1, 3))


def test_a_stopped_trial_is_tried_again_with_the_same_values(worker_of):
    def stopped(slot, _trial):
        if slot == 4:
            raise KeyboardInterrupt
        return 0.5

    worker = worker_of(stopped, trials=6)
    with pytest.raises(KeyboardInterrupt):
        worker.work()
    worker = worker_of(lambda _slot, _trial: 0.6, trials=6)
    worker.work()
    trials = worker.study.get_trials()
    assert [trial.state for trial in trials] == [COMPLETE] * 4 + [FAIL] + [COMPLETE] * 2
    assert (trials[5].params, trials[5].user_attrs["retry_of"]) == (trials[4].params, 4)
    assert [one.trial for one in worker.search({"epochs": 9, "patience": 6}).entries] == [*range(6)]
    assert len({str(trial.params) for trial in trials}) == 6


def test_a_worker_goes_on_when_another_took_its_trial_for_dead(worker_of):
    def score(place, trial):
        if place == 1 and trial.number == 1:  # silent for too long
            trial.study.tell(trial.number, state=FAIL)
            trial.report(0.5, 1)
        return place / 10

    worker = worker_of(score, trials=3)
    worker.work()
    assert "Another process took this trial for dead; its result is left out." in (
        worker.progress.lines
    )
    entries = worker.search({"epochs": 9, "patience": 6}).entries
    assert [(one.trial, one.area) for one in entries] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert [one.number for one in entries] == [0, 2, 3]


def test_no_trial_begins_when_the_time_is_up(worker_of):
    worker = worker_of(lambda _place, _trial: time.sleep(0.3) or 0.5, trials=50, minutes=0.01)
    worker.work()
    assert 1 <= len(worker.study.get_trials()) < 5


def test_a_trial_that_kills_its_worker_is_given_up(worker_of):
    worker = worker_of(lambda slot, _trial: slot / 10, trials=2)
    for _ in range(3):  # processes that died in their first trial
        with pytest.warns(UserWarning, match="Heartbeat"):
            worker.study.ask().set_user_attr("worker", _dead_worker())
        from models.study import revive

        revive(worker.study, here=True)
    worker.work()
    entries = worker.search({"epochs": 9, "patience": 6}).entries
    assert [(one.trial, one.state) for one in entries] == [(0, "failed"), (1, "complete")]
    assert entries[0].reason == "the process died 3 times in this trial"


def _dead_worker():
    from models.study import worker_here

    done = subprocess.Popen(["true"])
    done.wait()
    return worker_here() | {"pid": done.pid}


def test_a_killed_search_goes_on_and_ends_as_one_that_was_not(searched, tiny_data, tmp_path):
    _, whole, _ = searched
    options = tune_options(tiny_data, tmp_path / "runs")
    process = start(options, tmp_path)
    work = tmp_path / "runs" / "studies" / whole.facts["study"]
    deadline = time.monotonic() + 100
    while not (work / "trials" / "1" / "0" / "checkpoint.pt").is_file():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with closing(sqlite3.connect(work / "study.db")) as database:
        before = database.execute("select number, state from trials").fetchall()
    assert before == [(0, "COMPLETE"), (1, "RUNNING")]
    told = Listener()
    result = tune(options, told)
    assert "Trial 1 was stopped before; it is tried again." in told.lines
    assert [cells["trial"] for cells, _ in told.rows] == [1, 2]
    trials = all_trials(result)
    assert [trial.state for trial in trials[:3]] == [COMPLETE, FAIL, trials[2].state]
    assert (trials[2].params, len(trials)) == (trials[1].params, 4)
    kept = ("trial", "state", "val_auc", "epochs", "learning_rate", "augment", "mixup")
    assert [[row[name] for name in kept] for row in listed(result.folder)] == [
        [row[name] for name in kept] for row in listed(whole.folder)
    ]


@pytest.mark.parametrize(
    "address",
    ["", pytest.param(POSTGRES, marks=pytest.mark.skipif(not POSTGRES, reason="no server"))],
    ids=["sqlite", "postgresql"],
)
def test_two_processes_share_a_study(address, tiny_data, tmp_path):
    name = f"shared-{os.getpid()}-{time.time_ns()}"  # a server may keep those of earlier tests
    options = tune_options(tiny_data, tmp_path / "runs", study=name, storage=address,
                           model="ResNet18_OPW", trials=24)  # fmt: skip
    other = start(options, tmp_path)
    study = tmp_path / "runs" / "studies" / name
    deadline = time.monotonic() + 100
    while not (study / "unfinished.json").is_file():
        assert other.poll() is None, other.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    result = tune(options, Silent())
    shown_there, _ = other.communicate(timeout=100)
    assert other.returncode == 0, shown_there.decode()
    trials = all_trials(result, address)
    done = [trial for trial in trials if "surplus" not in trial.user_attrs]
    assert [trial.state for trial in done] == [COMPLETE] * 24
    assert len({trial.number for trial in done}) == 24
    assert len({trial.user_attrs["worker"]["pid"] for trial in done}) == 2
    assert len(listed(result.folder)) == 24


def test_a_storage_that_cannot_be_used_is_refused_in_one_line(tiny_data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = {
        f"postgresql://me:secret@127.0.0.1:{port}/x": r"me:\*\*\*@\S+: (cannot be used|the driver)",
        "mysql+nothing://me@host/x": "the driver for mysql is not installed",
        f"sqlite:///{tmp_path}/no/such/place.db": "cannot be used .*unable to open",
    }
    for address, message in refused.items():
        with pytest.raises(UserError, match=message) as error:
            tune(tune_options(tiny_data, tmp_path / "runs", storage=address), Silent())
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    with pytest.raises(UserError, match=r"--storage: redis://x: must begin with sqlite://, post"):
        tune_options(tiny_data, tmp_path, storage="redis://x")
    assert shown("sqlite:///a.db") == "sqlite:///a.db"


def test_what_cannot_be_searched_is_refused_in_one_line(searched, tiny_data, tmp_path):
    options, result, _ = searched
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    other = make_dataset(tmp_path / "other", {"train": 4, "val": 4}, seed=9)
    name = result.facts["study"]
    with pytest.raises(UserError, match="this study is of another dataset; give another --study"):
        tune(dataclasses.replace(options, data=other, runs=runs, study=name), Silent())
    assert (runs / "studies" / name / RECORD).is_file()
    with pytest.raises(UserError, match="this study is of epochs 2, not 3"):
        tune(dataclasses.replace(options, runs=runs, study=name, epochs=3), Silent())
    with pytest.raises(UserError, match="choose another --runs"):
        tune(dataclasses.replace(options, runs=tmp_path / "other" / "manifest.csv"), Silent())
    rows = [row for row in read_manifest(other) if row.split == "train" or row.label == "benign"]
    write_manifest(other, rows)
    with pytest.raises(UserError, match="validation shows one class only"):
        tune(dataclasses.replace(options, data=other, runs=runs), Silent())
    with pytest.raises(UserError, match=r"--study: \.\./x: may hold letters"):
        tune_options(tiny_data, runs, study="../x")
