"""Runs are listed, renamed and deleted; what others need or work on stays, and all outside."""

import json
import shutil
import subprocess
import sys

import pytest

from interface.upkeep.runs import manage_runs
from models.evaluation.ensemble import ensemble
from models.evaluation.scoring import members_of
from models.evaluation.stage import evaluate
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.runs import Run, find_run, find_unfinished, list_all, list_runs
from pipeline.stages.evaluation import Ensemble, Evaluate, Report
from pipeline.stages.training import Train
from pipeline.stages.upkeep import Runs
from tests.conftest import ROOT
from tests.models.datasets import SIZE, make_dataset
from tests.quick import briefly_timed, without_figures

HOLDING = """
import sys, time
from pathlib import Path
from pipeline.holding import hold
hold(Path(sys.argv[1]), "train")
print("held", flush=True)
time.sleep(60)
"""
STAMP = "20260101-120000"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two trained runs, an ensemble of them that is evaluated, and a run that was stopped."""
    folder = tmp_path_factory.mktemp("made")
    data = make_dataset(folder / "preprocessed", {"train": 4, "val": 4, "test": 4})
    runs = folder / "runs"
    quick = {
        "data": data, "model": "MammoCNN", "weights": "none", "epochs": 1, "size": SIZE,
        "augment": "none", "precision": "fp32", "device": "cpu", "workers": 1, "runs": runs,
    }  # fmt: skip
    for seed in (1, 2):
        train(checked(Train, quick | {"seed": seed}), Silent())
    names = ",".join(run.name for run in list_runs(runs))
    joined = ensemble(Ensemble(members=names, runs=runs), Silent())
    with without_figures(), briefly_timed():
        evaluate(Evaluate(run=joined.facts["run"], runs=runs, replicates=100), Silent())
    stopped = runs / "MammoCNN" / f"{STAMP}-3"
    stopped.mkdir()
    first = list_runs(runs)[0].folder
    for name in ("answers.json", "model.json"):
        shutil.copy(first / name, stopped / name)
    record = json.loads((first / "stage.json").read_text())
    begun = {name: record[name] for name in ("stage", "options", "time")}
    (stopped / "unfinished.json").write_text(json.dumps(begun))
    return runs


@pytest.fixture
def runs(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "work")
    return tmp_path / "work" / "runs"


@pytest.fixture
def other():
    """Begin a process that holds a folder, as a training does."""
    begun = []

    def start(folder):
        command = [sys.executable, "-c", HOLDING, folder]
        begun.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout.readline() == "held\n"

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def ask(runs, **given):
    return manage_runs(checked(Runs, {"runs": runs, **given}), Silent())


def names(runs):
    return {run.name for run in list_all(runs)}


def test_the_list_says_state_size_and_auc(runs, other):
    one, _, joined = list_runs(runs)
    other(one.folder)
    result = ask(runs)
    states = {fact["run"]: fact["state"] for fact in result.facts["runs"]}
    assert states[one.name] == "being trained"
    assert states[f"MammoCNN/{STAMP}-3"] == "stopped"
    assert states[joined.name] == "evaluated"
    figures = {fact["run"]: fact for fact in result.facts["runs"]}
    metrics = joined.metrics()["splits"]["test"]["metrics"]
    assert figures[joined.name]["test_auc"] == metrics["auc"]["value"]
    files = [path for path in joined.folder.rglob("*") if path.is_file()]
    assert figures[joined.name]["bytes"] == sum(path.stat().st_size for path in files)
    assert "1 being trained; 1 stopped; 1 not evaluated" in result.headline
    assert result.tables[-1].rows[-1][0] == joined.name


def test_the_list_fits_80_columns(runs, run_main):
    one = list_runs(runs)[0]
    long = runs / "EfficientNetB3_Optuna" / one.folder.name  # the longest name there is
    shutil.copytree(one.folder, long)
    done = run_main("runs", "--runs", runs, "--batch", cwd=runs.parent)
    assert done.returncode == 0, done.stderr
    table = done.stdout[: done.stdout.index("5 runs in")]
    assert max(map(len, table.splitlines())) <= 80
    assert f"EfficientNetB3_Optuna/{one.folder.name}   not evaluated" in table
    assert table.startswith("On /")


def test_without_runs_it_says_how_to_get_one(tmp_path):
    assert ask(tmp_path / "runs").headline.endswith("to train one: python main.py train")


@pytest.mark.slow
def test_a_renamed_run_keeps_working_in_its_ensemble_too(runs):
    one, two, joined = list_runs(runs)
    result = ask(runs, action="rename", run=one.name, name="best")
    assert result.facts["ensembles"] == [joined.name]
    assert find_run(runs, "MammoCNN/best").folder == (runs / "MammoCNN" / "best").resolve()
    assert find_run(runs, "MammoCNN").folder == two.folder  # the newest is so by its record
    assert {run.name for run in members_of(joined)} == {"MammoCNN/best", two.name}
    evaluate(Evaluate(run=joined.name, runs=runs, replicates=100), Silent())
    evaluate(Evaluate(run="MammoCNN/best", runs=runs, replicates=100), Silent())
    answers = json.loads((joined.folder / "answers.json").read_text())["stages"][0]["options"]
    again = ensemble(checked(Ensemble, answers | {"runs": runs}), Silent())
    assert set(again.facts["members"]) == {"MammoCNN/best", two.name}
    assert not list(runs.rglob(".lock*"))


def test_a_renamed_ensemble_and_a_report_of_it(runs):
    from interface.report.stage import report

    joined = list_runs(runs)[-1]
    ask(runs, action="rename", run=joined.name, name="Ensemble/both")
    assert len(members_of(Run(runs / "Ensemble" / "both"))) == 2
    assert json.loads((runs / "Ensemble/both/metrics.json").read_text())["run"] == "Ensemble/both"
    result = report(Report(runs=runs, out=runs.parent / "reports"), Silent())
    assert list(result.facts["test_auc"]) == ["Ensemble/both"]


def test_a_stopped_run_is_continued_by_its_new_name(runs):
    ask(runs, action="rename", run=f"MammoCNN/{STAMP}-3", name="later")
    assert find_unfinished(runs, "MammoCNN/later").folder.name == "later"


@pytest.mark.parametrize(
    "name",
    ["../best", "DenseNet121_CFT/best", "a/b", ".hidden", "latest", "a,b", "a b", "a.", "x" * 101,
     "a\nb", "..", "a\\b"],
)  # fmt: skip
def test_names_that_cannot_be_are_refused(runs, name):
    before = names(runs)
    with pytest.raises(UserError, match="--name"):
        ask(runs, action="rename", run=list_runs(runs)[0].name, name=name)
    assert names(runs) == before


def test_a_name_that_is_there_is_refused_whatever_its_case(runs):
    one, two, _ = list_runs(runs)
    with pytest.raises(UserError, match="is there already"):
        ask(runs, action="rename", run=one.name, name=two.folder.name)
    ask(runs, action="rename", run=one.name, name="best-1")
    with pytest.raises(UserError, match="MammoCNN/best-1 is there already"):
        ask(runs, action="rename", run=two.name, name="Best.1")  # one anchor in a report


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"action": "rename", "name": "x"}, "no run was named; give --run"),
        ({"action": "delete"}, "no run was named; give --run"),
        ({"action": "delete", "run": "MammoCNN/none"}, "no such run"),
        ({"action": "delete", "run": "latest"}, "no such run"),  # too little said to delete it
        ({"action": "delete", "run": "studies/one"}, "no such run"),
    ],
)
def test_what_names_no_run_is_refused(runs, given, problem):
    with pytest.raises(UserError, match=problem):
        ask(runs, **given)


def test_two_runs_are_not_renamed_at_once_and_a_name_is_needed(runs):
    one, two, _ = list_runs(runs)
    with pytest.raises(UserError, match="rename one at a time"):
        ask(runs, action="rename", run=f"{one.name},{two.name}", name="x")
    with pytest.raises(UserError, match="no new name was given"):
        ask(runs, action="rename", run=one.name)


def test_a_run_being_trained_is_neither_deleted_nor_renamed(runs, other):
    one = Run(runs / "MammoCNN" / f"{STAMP}-3")
    other(one.folder)
    for given in ({"action": "delete"}, {"action": "rename", "name": "x"}):
        with pytest.raises(UserError, match=r"train since .* is at work there; stop it, or wait"):
            ask(runs, run=one.name, **given)
    assert one.name in names(runs)


def test_several_are_deleted_and_the_bytes_said(runs, run_main):
    one, two, joined = list_runs(runs)
    size = sum(
        path.stat().st_size
        for run in (one, two, joined)
        for path in run.folder.rglob("*")
        if path.is_file()
    )
    words = ["--action", "delete", "--run", f"{one.name},{two.folder},{joined.name}"]
    done = run_main("runs", *words, "--runs", runs, "--json", "--batch", cwd=runs.parent)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["facts"]["bytes"] == size
    assert "Deleted 3 runs" in result["headline"]
    assert result["headline"].endswith(f"freed, 1 left in {runs}")
    assert names(runs) == {f"MammoCNN/{STAMP}-3"}
    assert [path.name for path in runs.iterdir() if path.name[0] != "."] == ["MammoCNN"]


def test_a_member_of_an_ensemble_stays(runs):
    one, two, joined = list_runs(runs)
    with pytest.raises(UserError, match=f"{one.name}: is a member of {joined.name}; delete that"):
        ask(runs, action="delete", run=one.name)
    assert len(names(runs)) == 4
    ask(runs, action="delete", run=joined.name)
    ask(runs, action="delete", run=one.name)
    assert names(runs) == {two.name, f"MammoCNN/{STAMP}-3"}


def test_nothing_outside_the_runs_is_deleted(runs, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "MammoCNN" / "precious"
    shutil.copytree(list_runs(runs)[0].folder, elsewhere)
    with pytest.raises(UserError, match="no such run"):
        ask(runs, action="delete", run=str(elsewhere))
    (runs / "MammoCNN" / "linked").symlink_to(elsewhere)
    (runs / "Linked").symlink_to(elsewhere.parent)
    (elsewhere.parent.parent / "thesis.tex").write_text("years of work")
    for name in ("MammoCNN/linked", "Linked/precious", "../../elsewhere/MammoCNN/precious"):
        with pytest.raises(UserError, match=r"outside of it|is a link|no such run"):
            ask(runs, action="delete", run=name)
    one = Run(runs / "MammoCNN" / f"{STAMP}-3")
    (one.folder / "figures").symlink_to(elsewhere.parent.parent)
    ask(runs, action="delete", run=one.name)
    assert (elsewhere / "stage.json").is_file()
    assert (elsewhere.parent.parent / "thesis.tex").read_text() == "years of work"


def test_a_damaged_run_is_listed_and_can_be_deleted(runs):
    one = Run(runs / "MammoCNN" / f"{STAMP}-3")
    (one.folder / "unfinished.json").write_text("{")
    assert {fact["run"]: fact["state"] for fact in ask(runs).facts["runs"]}[one.name] == "damaged"
    ask(runs, action="delete", run=one.name)
    assert one.name not in names(runs)


def test_questions_show_the_choice_before_anything_is_deleted(runs, terminal):
    child = terminal("runs", "--runs", runs, cwd=runs.parent)
    child.expect("What to do with runs")
    child.send("\x1b[B\x1b[B\r")
    child.expect("Which run")
    child.expect(f"MammoCNN/{STAMP}-3")
    child.sendcontrol("c")
    child.expect("nothing was run")
    child.wait()
    assert len(names(runs)) == 4
