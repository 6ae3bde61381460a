"""A search over hyper-parameters: what is tried, that it goes on, what training takes from it."""

import csv
import dataclasses
import os
import shutil
import socket
import sqlite3
import sys
import time
from contextlib import closing

import optuna
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from main import main
from models.registry import MODELS
from models.training.best_trial import settings_of
from models.training.queue import train_each
from models.training.stage import train
from models.tuning.stage import tune
from models.tuning.study import shown, storage_at
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, write_manifest
from pipeline.options import applies
from pipeline.progress import Silent
from pipeline.records import RECORD, read_json, write_json
from pipeline.runs import list_runs, list_unfinished
from pipeline.stages.training import Train
from tests.models.conftest import Listener
from tests.models.datasets import divide, make_dataset, tune_options

POSTGRES = os.environ.get("MAMMOLAB_TEST_POSTGRES", "")
COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))


def command(options):
    words = [
        word
        for item in dataclasses.fields(options)
        if (value := getattr(options, item.name)) not in ("", None)
        for word in ("--" + item.name.replace("_", "-"), str(value))
    ]
    return ["tune", *words, "--batch"]


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
    assert any("optuna-dashboard sqlite:///" in note for note in result.notes)
    assert read_json(result.folder / RECORD)["counts"]["trials"] == 3
    assert not (result.folder / "trials").exists()
    assert list_runs(options.runs) == list_unfinished(options.runs) == []


@pytest.mark.slow
@pytest.mark.drawn
def test_a_search_is_drawn(searched, tmp_path):
    options, _, _ = searched
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    folder = tune(
        dataclasses.replace(options, runs=runs, trials=options.trials + 1), Silent()
    ).folder
    for name in ("history", "slices", "parallel"):
        for suffix in ("svg", "png"):
            assert (folder / "figures" / f"tuning-{name}.{suffix}").is_file()


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    # The run's own answers give the same again, whatever is searched later.
    assert read_json(found.folder / RECORD)["options"]["hyperparameters"] == best["study"]
    assert any(f"trial {best['best_trial']} of {best['study']}" in line for line in told.lines)
    again = train_each(dataclasses.replace(given, model="MammoCNN,ResNet18_OPW"), Silent())
    assert [one["state"] for one in again.facts["trainings"]] == ["done before", "done"]
    (file,) = (runs / "studies").glob("*/best.json")
    file.unlink()  # without it the values are others, and the run is of no use
    again = train_each(
        dataclasses.replace(given, model="MammoCNN,ResNet18_OPW", epochs=1), Silent()
    )
    assert [one["state"] for one in again.facts["trainings"]] == ["done", "done"]


def test_whose_hyper_parameters_are_taken_can_be_chosen(searched, tiny_data, tmp_path):
    options, result, _ = searched
    runs, study = options.runs, result.facts["study"]
    given = Train(data=tiny_data, runs=runs, model="MammoCNN")
    (asked,) = (item for item in dataclasses.fields(Train) if item.name == "hyperparameters")
    assert applies(asked, vars(given))
    assert not applies(asked, vars(given) | {"model": "ResNet18_PFT"})
    assert not applies(asked, vars(given) | {"runs": tmp_path})
    found, named, own = (
        settings_of(dataclasses.replace(given, hyperparameters=source), None)
        for source in ("searched", study, "recorded")
    )
    assert found.source == named.source == study
    assert found.tuned == named.tuned
    assert found.options.epochs == 2
    assert (own.tuned, own.source, own.options.epochs) == (None, "recorded", None)
    for model, source, reason in (
        ("MammoCNN", "nothing", "no such study"),
        ("ResNet18_PFT", study, "is for another model, dataset or weights"),
    ):
        wrong = dataclasses.replace(given, model=model, hyperparameters=source)
        with pytest.raises(UserError, match=f"--hyperparameters {source}: {reason}; give one of"):
            settings_of(wrong, None)


@pytest.mark.slow
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


def test_a_tuned_model_without_a_study_says_so(few_data, tmp_path):
    options = Train(data=few_data, runs=tmp_path, model="EfficientNetB3_Optuna", weights="none",
                    epochs=1, size=32, workers=1, device="cpu", augment="none")  # fmt: skip
    result = train(options, Silent())
    assert any("not tuned on this dataset" in note for note in result.notes)
    assert read_json(result.folder / RECORD)["options"]["hyperparameters"] == "recorded"
    assert read_json(result.folder / "model.json")["recipe"]["learning_rate"] > 0
    assert read_json(result.folder / "model.json")["tuning"] is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_search_goes_on_and_ends_as_one_that_was_not(searched, tiny_data, begin, tmp_path):
    _, whole, _ = searched
    options = tune_options(tiny_data, tmp_path / "runs")
    process = begin(*command(options))
    work = tmp_path / "runs" / "studies" / whole.facts["study"]
    deadline = time.monotonic() + 100
    while not (work / "trials" / "1" / "0" / "checkpoint.pt").is_file():
        assert process.lives(), process.told()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    ["", pytest.param(POSTGRES, marks=pytest.mark.skipif(not POSTGRES, reason="no server"))],
    ids=["sqlite", "postgresql"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_two_processes_share_a_study(address, tiny_data, begin, tmp_path):
    name = f"shared-{os.getpid()}-{time.time_ns()}"  # a server may keep those of earlier tests
    options = tune_options(tiny_data, tmp_path / "runs", study=name, storage=address,
                           model="ResNet18_OPW", trials=12)  # fmt: skip
    other = begin(*command(options))
    study = tmp_path / "runs" / "studies" / name
    deadline = time.monotonic() + 100
    while not (study / "unfinished.json").is_file():
        assert other.lives(), other.told()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    result = tune(options, Silent())
    assert other.wait() == 0, other.told()
    trials = all_trials(result, address)
    done = [trial for trial in trials if "surplus" not in trial.user_attrs]
    assert [trial.state for trial in done] == [COMPLETE] * 12
    assert len({trial.number for trial in done}) == 12
    assert len({trial.user_attrs["worker"]["pid"] for trial in done}) == 2
    assert len(listed(result.folder)) == 12


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


def test_a_password_is_neither_shown_nor_kept(tiny_data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["tune", "--data", str(tiny_data), "--model", "MammoCNN", "--weights", "none"]
    assert main([*words, "--storage", "postgresql://me:secret@127.0.0.1:1/x", "--batch"]) == 1
    assert "me:***@127.0.0.1:1/x" in capfd.readouterr().err
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and "secret" in path.read_text()
    ]


def test_weights_that_cannot_be_had_are_refused_before_the_first_trial(
    tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match=r"^ImageNet weights of resnet18\.a1_in1k: not on"):
        tune(tune_options(tiny_data, runs, model="ResNet18_PFT", weights="imagenet"), Silent())
    assert not runs.exists()


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
