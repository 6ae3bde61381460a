"""Several models, folds and seeds in one command: all are tried, nothing is done twice."""

import csv
import dataclasses
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from interface.flags import command
from main import main
from models.registry import MODELS
from models.training.queue import jobs_of, train_each
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.folds import write_folds
from pipeline.manifest import read_manifest, write_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import Run, list_runs, list_unfinished
from pipeline.stages.training import Train
from tests.conftest import ROOT
from tests.interrupts import interrupted_when, interrupts_itself
from tests.models.conftest import Listener
from tests.models.datasets import divide, make_dataset

QUICK = "ResNet18_OPW,MammoCNN"


class Told(Listener):
    """Keeps headings too, and calls `at_row` with every row that is told."""

    def __init__(self, at_row=lambda _cells: None):
        super().__init__()
        self.headings, self._at_row = [], at_row

    def heading(self, text):
        self.headings.append(text)

    def row(self, cells, best=False):
        super().row(cells, best)
        self._at_row(cells)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset of eight patients in two folds; not to be written to."""
    folder = make_dataset(tmp_path_factory.mktemp("queue") / "data", {"train": 6, "val": 2})
    divide(folder, 2)
    return folder


@pytest.fixture
def queue_of(data, options_for, tmp_path):
    """Options of a quick queue."""

    def make(**given):
        quick = {"data": data, "model": QUICK, "size": 32, "batch_size": 6}
        return options_for(tmp_path / "runs", **quick | given)

    return make


@pytest.fixture(scope="module")
def finished(data, options_for, tmp_path_factory):
    """A queue that came to its end, and its options; its runs are not to be written to."""
    runs = tmp_path_factory.mktemp("queue") / "runs"
    options = options_for(runs, data=data, model=QUICK, size=32, fold="all", batch_size=6)
    told = Told()
    return options, train_each(options, told), told


def again(options, **given):
    told = Told()
    return train_each(dataclasses.replace(options, **given), told), told.headings


def weights_of(run):
    return load_file(run.folder / "weights.safetensors")


def assert_same(run, other):
    first, second = weights_of(run), weights_of(other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def listed(folder):
    with (folder / "queue.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_model_and_fold_is_trained_in_order(finished):
    options, result, told = finished
    assert told.headings == [
        "1/4  ResNet18_OPW, fold 1",
        "2/4  ResNet18_OPW, fold 2",
        "3/4  MammoCNN, fold 1",
        "4/4  MammoCNN, fold 2",
    ]
    facts = result.facts
    assert (facts["done"], facts["done_before"], facts["failed"]) == (4, 0, 0)
    assert len(list_runs(options.runs)) == 4
    for entry in facts["trainings"]:
        recorded = Run(options.runs.parent / entry["run"]).record()
        assert [recorded["options"][name] for name in ("model", "fold", "seed", "seeds")] == [
            entry["model"], entry["fold"], entry["seed"], 1,
        ]  # fmt: skip
    assert [line["run"] for line in listed(options.runs)] == [
        entry["run"] for entry in facts["trainings"]
    ]
    assert (result.next_stage, result.set_aside) == ("evaluate", 0)


def test_seeds_are_added_and_the_table_shows_what_varies_and_how_much(finished, tmp_path):
    options, first, _ = finished
    assert first.tables[0].columns == ("Model", "Fold", "State", "Val AUC", "Epochs", "Time")
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    result, headings = again(options, model="MammoCNN", seeds=2, runs=runs)
    assert headings == ["2/4  MammoCNN, fold 1, seed 43", "4/4  MammoCNN, fold 2, seed 43"]
    trainings, means = result.tables
    assert trainings.columns == ("Model", "Fold", "Seed", "State", "Val AUC", "Epochs", "Time")
    assert [row[1:4] for row in trainings.rows] == [
        (fold, seed, state)
        for fold in "12"
        for seed, state in (("42", "done before"), ("43", "done"))
    ]
    areas = [entry["best_val_auc"] for entry in result.facts["trainings"]]
    ((*name, mean, sd, low, high),) = means.rows
    assert name == ["MammoCNN", "4 of 4"]
    assert (mean, low, high) == (pytest.approx(sum(areas) / 4), min(areas), max(areas))
    assert sd == pytest.approx((sum((area - mean) ** 2 for area in areas) / 3) ** 0.5)
    assert result.facts["models"]["MammoCNN"]["sd_val_auc"] == sd


def test_a_training_in_a_queue_is_the_same_as_alone(finished, tmp_path):
    options, result, _ = finished
    given = {"model": "MammoCNN", "fold": 2, "runs": tmp_path / "runs"}
    alone = train(dataclasses.replace(options, **given), Silent())
    assert_same(Run(options.runs.parent / result.facts["trainings"][-1]["run"]), Run(alone.folder))


def test_the_same_command_again_does_nothing_and_says_so(finished, data):
    options, first, _ = finished
    result, headings = again(options, workers=2, data=data / ".." / data.name)
    assert headings == []
    assert result.headline.startswith("All 4 trainings were done before; nothing was left")
    assert [entry["run"] for entry in result.facts["trainings"]] == [
        entry["run"] for entry in first.facts["trainings"]
    ]
    code = (
        "import sys; from pathlib import Path, PosixPath, WindowsPath\n"
        "from models.training.queue import train_each; from pipeline.stages.training import Train\n"
        "from pipeline.progress import Silent\n"
        f"assert train_each({options!r}, Silent()).facts['done_before'] == 4\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_other_options_are_other_trainings(finished, tmp_path):
    options, _, _ = finished
    runs = shutil.copytree(options.runs, tmp_path / "runs")
    given = {"runs": runs, "model": "MammoCNN", "learning_rate": 0.01}
    for state in ("done", "done_before"):
        assert again(options, **given)[0].facts[state] == 2


@pytest.mark.slow
def test_other_data_under_the_same_name_are_other_trainings(queue_of, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    options = queue_of(data=folder, model="MammoCNN", fold=1, seeds=2)
    again(options)
    folds = [line.split(",") for line in (folder / "folds.csv").read_text().split()[1:]]
    write_folds(folder, {patient: 3 - int(fold) for patient, fold in folds})
    assert again(options)[0].facts["done"] == 2
    write_manifest(folder, read_manifest(folder)[1:])
    assert again(options)[0].facts["done"] == 2
    assert again(options)[0].facts["done_before"] == 2


def test_a_stopped_queue_goes_on_where_it_was(queue_of, tmp_path):
    options = queue_of(epochs=2, model="MammoCNN", seeds=2)
    alone = dataclasses.replace(options, seed=43, seeds=1, runs=tmp_path / "whole")
    whole = train(alone, Silent())

    def stop(_cells):
        if len(told.headings) == 2:
            raise KeyboardInterrupt

    told = Told(stop)
    with pytest.raises(KeyboardInterrupt):
        train_each(options, told)
    assert told.lines[-1] == "Stopped in training 2 of 2; what is done is kept."
    (begun,) = list_unfinished(options.runs)
    result, headings = again(options)
    assert headings == ["2/2  MammoCNN, seed 43"]
    assert [entry["state"] for entry in result.facts["trainings"]] == ["done before", "done"]
    assert result.facts["trainings"][1]["run"] == str(begun.folder)
    assert_same(begun, Run(whole.folder))


def test_one_failure_does_not_stop_the_rest(queue_of, finished):
    runs = finished[0].runs
    weights = next(runs.glob("MammoCNN/*/weights.safetensors"))
    options = queue_of(weights=str(weights))
    result, headings = again(options)
    assert headings == ["1/2  ResNet18_OPW", "2/2  MammoCNN"]
    assert [entry["state"] for entry in result.facts["trainings"]] == ["failed", "done"]
    (run,) = list_runs(options.runs)
    assert read_json(run.folder / "model.json")["weights"] == "none", "MammoCNN takes none"
    assert (result.set_aside, result.listed_in) == (1, "queue.csv")
    (reason, *_) = [line["reason"] for line in listed(options.runs)]
    assert "is for another network" in reason
    assert result.notes[0] == f"ResNet18_OPW: failed: {reason}"
    assert "1 done, 1 failed. Best validation AUC" in result.headline
    assert again(options)[1] == ["1/2  ResNet18_OPW"], "only the failed one is tried again"


@pytest.mark.parametrize("model", ["ResNet18_CFT", "MammoCNN,ResNet18_OPW,DenseNet121_CFT"])
def test_weights_that_cannot_be_had_are_refused_once_before_anything(
    queue_of, model, tmp_path, run_main
):
    options = queue_of(model=model, weights="imagenet")
    done = run_main(*shlex.split(command("train", options))[2:], env={"HF_HOME": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    named = ["resnet18.a1_in1k", *(["densenet121.ra_in1k"] if "DenseNet" in model else [])]
    assert f"ImageNet weights of {', '.join(sorted(named))}: not on this machine" in done.stderr
    for way in (str(tmp_path / "hub"), "--weights none", "--weights FILE", "HF_ENDPOINT"):
        assert way in done.stderr
    assert "1/" not in done.stdout, "nothing was begun"
    assert not list_runs(options.runs)


def test_a_queue_in_which_all_fail_says_so(queue_of):
    options = queue_of(weights="gone.pth", model="ResNet18_OPW,ResNet18_PFT")
    with pytest.raises(UserError, match=r"every one of the 2 trainings failed: .*gone\.pth: no"):
        again(options)
    assert [line["state"] for line in listed(options.runs)] == ["failed", "failed"]


def test_what_torch_cannot_do_in_one_training_is_a_reason_too(queue_of):
    def full(cells):
        if "C" in cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    options = queue_of()
    result = train_each(options, Told(full))
    assert [entry["state"] for entry in result.facts["trainings"]] == ["failed", "done"]
    (line, _) = listed(options.runs)
    assert line["reason"].startswith("not enough memory (CUDA out of memory.")
    assert "in full" in line["traceback"]


@pytest.mark.parametrize("kind", [TypeError, NotImplementedError])
def test_a_programming_error_keeps_its_traceback(queue_of, kind):
    def wrong(_cells):
        raise kind("ours")

    with pytest.raises(kind, match="ours"):
        train_each(queue_of(), Told(wrong))


def test_one_training_is_as_it_was(queue_of):
    options = queue_of(model="ResNet18_OPW")
    told = Told()
    results = [train_each(options, told) for _ in range(2)]
    assert told.headings == []
    assert results[0].folder != results[1].folder, "a new run each time"
    assert results[0].facts["model"] == "ResNet18_OPW"
    assert not (options.runs / "queue.csv").exists()


def test_options_of_training_are_checked_where_any_of_the_models_is_trained(data):
    given = {"data": data, "mixup": 99, "model": "MammoCNN,ResNet18_OPW"}
    with pytest.raises(UserError, match=r"--mixup: 99\.0: must be"):
        checked(Train, given)
    assert checked(Train, given | {"model": "DenseNet121_OPW,ResNet18_OPW"}).mixup == 99


def test_all_means_every_classifier_and_anomaly_every_detector(queue_of):
    named = {group: [job.name for job in jobs_of(queue_of(model=group))]
             for group in ("all", "anomaly", "all,anomaly")}  # fmt: skip
    assert named["all"] + named["anomaly"] == named["all,anomaly"] == list(MODELS)
    assert named["anomaly"] == ["CAE", "CAE_Wide", "VAE", "VAE_Wide", "PatchCore"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": "MammoCNN,VGG"}, "VGG: no such model; there are: ResNet18_OPW"),
        ({"fold": 3}, "has 2 folds, so there is no fold 3"),
        ({"data": "gone"}, "gone: no such folder; run: python main.py preprocess"),
    ],
)
def test_what_no_training_can_use_is_refused_at_once(queue_of, given, problem, tmp_path):
    given = {name: tmp_path / value if name == "data" else value for name, value in given.items()}
    with pytest.raises(UserError, match=problem):
        again(queue_of(**given))
    assert not (tmp_path / "runs").exists()


def test_all_folds_of_data_without_folds_are_refused(queue_of, tiny_data):
    with pytest.raises(UserError, match=r"folds\.csv: no such file.* organize --folds 5"):
        again(queue_of(data=tiny_data, fold="all"))


@interrupts_itself
def test_ctrl_c_names_the_command_that_goes_on(queue_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = queue_of(model="MammoCNN", seeds=2, epochs=5000, patience=5000)
    words = shlex.split(command("train", options))

    with interrupted_when(lambda: list(tmp_path.glob("runs/*/*/history.csv"))):
        assert main(words[2:]) == 130
    shown = capsys.readouterr()
    assert "Stopped in training 1 of 2; what is done is kept." in shown.out
    assert f"continue with: {shlex.join(words)}" in shown.err
    assert len(list_unfinished(tmp_path / "runs")) == 1
