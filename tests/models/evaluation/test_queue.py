"""Several runs in one command: all are tried, nothing is done twice, one failure stops none."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from main import main
from models.evaluation.baselines import baselines
from models.evaluation.queue import evaluate_each
from models.training.queue import train_each
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import Run, evaluation_choices, list_runs
from pipeline.stages.evaluation import Ensemble, Evaluate
from tests.conftest import ROOT
from tests.interrupts import interrupted_when, interrupts_itself
from tests.models.conftest import Listener
from tests.models.datasets import make_dataset

MODELS = ["ResNet18_OPW", "ResNet18_CFT", "MammoCNN"]


class Told(Listener):
    """Keeps headings too, and calls `at_line` with every line that is told."""

    def __init__(self, at_line=lambda _text: None):
        super().__init__()
        self.headings, self._at_line = [], at_line

    def heading(self, text):
        self.headings.append(text)

    def say(self, text):
        super().say(text)
        self._at_line(text)


@pytest.fixture(scope="module")
def trained_three(options_for, tmp_path_factory):
    """Three trained models of one dataset; not to be written to."""
    folder = tmp_path_factory.mktemp("three")
    data = make_dataset(folder / "data", {"train": 6, "val": 4, "test": 8})
    options = options_for(folder / "runs", data=data, model=",".join(MODELS), size=32, batch_size=6)
    baselines(data, read_manifest(data), options.runs, 1, Evaluate().seed, Silent())
    return folder, train_each(options, Silent())


@pytest.fixture
def runs(trained_three, tmp_path):
    """A copy of the three runs, none evaluated; their baselines are made already."""
    return shutil.copytree(trained_three[0] / "runs", tmp_path / "runs")


def options_of(runs, **given):
    return Evaluate(**{"run": "all", "runs": runs, "replicates": 100, "workers": 1} | given)


def evaluated(runs, told=None, **given):
    told = told or Told()
    return evaluate_each(options_of(runs, **given), told), told.headings


def stamps(runs):
    return {run.name: (run.folder / "metrics.json").stat().st_mtime_ns for run in list_runs(runs)}


def listed(runs):
    with (runs / "evaluations.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_queue_of_trainings_offers_to_evaluate_all_of_it(trained_three):
    folder, result = trained_three
    assert (result.next_stage, result.next_options["run"]) == ("evaluate", "all")
    assert result.next_options["runs"] == folder / "runs"


def test_all_runs_are_evaluated_in_order_and_then_none(runs):
    names = [run.name for run in list_runs(runs)]
    choices = evaluation_choices({"runs": runs})
    assert list(choices) == ["all", *reversed(names)]
    assert choices["all"] == "those not evaluated yet: 3 of 3"
    result, headings = evaluated(runs)
    assert headings == [f"{number}/3  {name}" for number, name in enumerate(names, start=1)]
    assert (result.next_stage, result.next_options) == ("compare", {"runs": runs})
    assert (result.facts["done"], result.facts["done_before"], result.set_aside) == (3, 0, 0)
    for facts, run in zip(result.facts["evaluations"], list_runs(runs), strict=True):
        measured = run.metrics()
        assert facts["run"] == str(run.folder)
        assert facts["test"] == measured["splits"]["test"]
        assert measured["cost"]["images_per_second_32"] > 0
    (table,) = result.tables
    assert table.columns == ("Run", "AUC", "95 % interval", "Sens.", "Spec.")
    assert [row[0] for row in table.rows] == MODELS
    assert evaluation_choices({"runs": runs})["all"] == "all are evaluated"

    before = stamps(runs)
    again, headings = evaluated(runs)
    assert headings == []
    assert again.headline == "All 3 runs are evaluated; nothing was left to do"
    assert [facts["test"] for facts in again.facts["evaluations"]] == [
        facts["test"] for facts in result.facts["evaluations"]
    ]
    assert stamps(runs) == before
    code = (
        "import sys; from pathlib import Path, PosixPath, WindowsPath\n"
        "from models.evaluation.queue import evaluate_each\n"
        "from pipeline.stages.evaluation import Evaluate; from pipeline.progress import Silent\n"
        f"assert evaluate_each({options_of(runs)!r}, Silent()).facts['done_before'] == 3\n"
        "assert not {'torch', 'numpy'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_an_evaluation_in_a_queue_is_the_same_as_alone(runs, tmp_path):
    evaluated(runs)
    other = shutil.copytree(runs, tmp_path / "alone")
    for run in list_runs(other):
        (run.folder / "metrics.json").unlink()
        evaluate_each(options_of(other, run=run.name), Silent())
        alone, queued = run.metrics(), Run(runs / run.name).metrics()
        assert alone.pop("cost")["gflops"] == queued.pop("cost")["gflops"]  # the rest are speeds
        assert alone == queued


@pytest.mark.slow
def test_one_name_is_evaluated_as_it_was_and_again(runs):
    result, headings = evaluated(runs, run="ResNet18_CFT")
    assert (result.facts["model"], result.next_stage, headings) == ("ResNet18_CFT", "explain", [])
    before = stamps_of(result)
    again, _ = evaluated(runs, run="ResNet18_CFT")
    assert stamps_of(again) != before
    latest, _ = evaluated(runs, run="latest")
    assert latest.facts["model"] == "MammoCNN"
    assert not (runs / "evaluations.csv").exists()


def stamps_of(result):
    return (result.folder / "metrics.json").stat().st_mtime_ns


@pytest.mark.slow
def test_names_with_commas_are_evaluated_once_in_the_same_way(runs):
    second = list_runs(runs)[1].name
    result, headings = evaluated(runs, run=f"MammoCNN,{second},{runs / second}, latest")
    assert [line.split("  ")[1].split("/")[0] for line in headings] == ["MammoCNN", "ResNet18_CFT"]
    assert result.facts["done"] == 2
    assert not list_runs(runs)[0].evaluated
    assert evaluated(runs, run=f"MammoCNN,{second}")[1] == []
    assert len(evaluated(runs, run=f"MammoCNN,{second}", tta="flips")[1]) == 2
    assert evaluated(runs, tta="none")[1] == [f"1/1  {list_runs(runs)[0].name}"], (
        "all: what was evaluated otherwise stays as somebody wanted it"
    )


@pytest.mark.slow
def test_all_on_another_dataset_are_those_not_evaluated_on_it(runs, tmp_path):
    evaluated(runs)
    other = make_dataset(tmp_path / "other", {"val": 4, "test": 8}, first=100)
    for count in (3, 0):
        _, headings = evaluated(runs, data=other)
        assert len(headings) == count
    assert {run.metrics()["data"] for run in list_runs(runs)} == {str(other.resolve())}


def test_what_cannot_be_evaluated_is_set_aside_with_its_reason(runs, monkeypatch, capsys):
    first, second, _ = list_runs(runs)
    (first.folder / "weights.safetensors").write_bytes(b"cut")
    facts = read_json(second.folder / "model.json")
    gone = facts | {"data": str(runs.parent / "gone")}
    (second.folder / "model.json").write_text(json.dumps(gone))
    monkeypatch.chdir(runs.parent)
    monkeypatch.setenv("COLUMNS", "80")
    words = ["evaluate", "--run", "all", "--batch", "--replicates", "100", "--workers", "1"]
    assert main(words) == 3
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("Test images")[1].split("3 runs")[0].splitlines())) <= 80
    assert "3 runs: 1 evaluated, 2 failed" in shown
    assert "each with its reason in runs/evaluations.csv" in shown
    lines = listed(runs)
    assert [line["state"] for line in lines] == ["failed", "failed", "done"]
    assert "weights.safetensors: cannot be read" in lines[0]["reason"]
    assert "gone: no such folder" in lines[1]["reason"]
    assert float(lines[2]["auc"]) == Run(runs / lines[2]["run"]).metrics()["splits"]["test"][
        "metrics"]["auc"]["value"]  # fmt: skip

    (second.folder / "model.json").write_text(json.dumps(facts))
    result, headings = evaluated(runs)
    assert headings == [f"1/2  {first.name}", f"2/2  {second.name}"], "failures are tried again"
    assert (result.facts["failed"], result.facts["done"], result.facts["done_before"]) == (1, 1, 1)
    assert result.tables[0].columns[1] == "State"
    assert result.notes[0].startswith(f"{first.name}: failed: ")


def test_where_all_fail_it_is_an_error(runs):
    for run in list_runs(runs):
        (run.folder / "weights.safetensors").write_bytes(b"cut")
    told = r"every one of the 3 evaluations failed; .*evaluations\.csv lists each with its reason"
    with pytest.raises(UserError, match=told):
        evaluated(runs)
    assert [line["state"] for line in listed(runs)] == ["failed"] * 3


@pytest.mark.slow
def test_a_stale_dataset_is_a_reason_as_well(runs, trained_three, tmp_path):
    data = shutil.copytree(trained_three[0] / "data", tmp_path / "data")
    (first, *_) = list_runs(runs)
    facts = read_json(first.folder / "model.json")
    (first.folder / "model.json").write_text(json.dumps(facts | {"data": str(data)}))
    make_dataset(data, {"train": 6, "val": 4, "test": 9})
    result, _ = evaluated(runs)
    assert "has changed since" in result.facts["evaluations"][0]["reason"]
    assert result.facts["done"] == 2


@pytest.mark.slow
def test_what_torch_cannot_do_for_one_run_is_a_reason_too(runs, monkeypatch):
    def full(run, *_):
        if run.model == "ResNet18_CFT":
            raise RuntimeError("MPS backend out of memory (allocated: 9 GB)")
        return score(run, *_)

    import models.evaluation.stage as stage

    score = stage.score_run
    monkeypatch.setattr(stage, "score_run", full)
    result, _ = evaluated(runs)
    (failed,) = [one for one in result.facts["evaluations"] if one["state"] == "failed"]
    assert failed["reason"].startswith("not enough memory (MPS backend out of memory")
    assert "in full" in listed(runs)[1]["traceback"]


@interrupts_itself
def test_ctrl_c_names_the_command_that_goes_on_with_the_rest(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs.parent)
    words = ["evaluate", "--run", "all", "--batch", "--replicates", "100", "--workers", "1"]
    with interrupted_when(lambda: any(run.evaluated for run in list_runs(runs))):
        assert main(words) == 130
    shown = capsys.readouterr()
    assert "; what is done is kept." in shown.out
    assert "continue with: python main.py evaluate --run all --replicates 100" in shown.err
    left = sum(not run.evaluated for run in list_runs(runs))
    assert left > 0
    result, headings = evaluated(runs)
    assert len(headings) == left
    assert result.facts["done_before"] == 3 - left


def test_a_programming_error_keeps_its_traceback(runs):
    def wrong(text):
        if text.startswith("Test AUC"):
            raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        evaluated(runs, Told(wrong))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"run": "MammoCNN,nothing"}, "nothing: no such run in .*; the newest there are: "),
        ({"fold": 2}, "holds no finished run of fold 2; run: python main.py train --fold 2"),
        ({"data": "gone"}, "manifest.csv: no such file"),
    ],
)
def test_what_no_run_can_use_is_refused_at_once(runs, tmp_path, given, problem):
    given = {name: tmp_path / value if name == "data" else value for name, value in given.items()}
    with pytest.raises(UserError, match=problem):
        evaluated(runs, **given)
    assert not (runs / "evaluations.csv").exists()


def test_predictions_made_elsewhere_are_no_run_to_evaluate(runs, tmp_path):
    lines = [f"i{n},p{n},{'malignant' if n % 2 else 'benign'},0.{n + 1}" for n in range(8)]
    file = tmp_path / "theirs.csv"
    file.write_text("\n".join(["image_id,patient_id,label,probability", *lines]))
    theirs, headings = evaluated(runs, predictions=file)
    assert (theirs.facts["model"], headings) == ("theirs", [])
    (theirs.folder / "metrics.json").unlink()
    assert len(evaluated(runs)[1]) == 3


@pytest.mark.slow
def test_an_ensemble_is_evaluated_with_the_rest(runs):
    from models.evaluation.ensemble import ensemble

    joined = ensemble(Ensemble(members="all", runs=runs), Silent())
    _, headings = evaluated(runs)
    assert headings[-1] == f"4/4  Ensemble/{joined.folder.name}"
    cost = Run(joined.folder).metrics()["cost"]
    single = [Run(runs / one["run"]).metrics()["cost"]["gflops"]
              for one in listed(runs)[:3]]  # fmt: skip
    assert cost["gflops"] == pytest.approx(sum(single), rel=1e-3)


@pytest.mark.slow
def test_runs_of_one_model_are_told_apart_in_eighty_columns(runs):
    first = list_runs(runs)[1]
    shutil.copytree(first.folder, first.folder.with_name("20990101-000000-7"))
    result, _ = evaluated(runs)
    named = [row[0] for row in result.tables[0].rows]
    assert sum(name.startswith("ResNet18_CFT\n") for name in named) == 2
    assert {"ResNet18_OPW", "MammoCNN"} <= set(named)
    limited = dataclasses.replace(options_of(runs), fold=1)
    with pytest.raises(UserError, match="holds no finished run of fold 1"):
        evaluate_each(limited, Told())
