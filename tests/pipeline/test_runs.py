"""Run folders: made, found by the names people use, listed when finished."""

import json
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from models.evaluation.operating_point import choose
from pipeline.errors import UserError
from pipeline.folds import Fold
from pipeline.records import close_folder, open_folder
from pipeline.runs import Run, create_run, find_run, list_runs, run_choices, suggested_resume
from pipeline.schemas import Point


@dataclass(frozen=True)
class Options:
    seed: int = 1


def finish(run, fold=None):
    counts = fold.facts if fold else {}
    close_folder(run.folder, "train", Options(), counts, "abc", 1.0)
    return run


@pytest.fixture
def runs(tmp_path):
    """Two finished runs and one that was stopped."""
    for name in ("ResNet18_CFT/20260101-100000-1", "MammoCNN/20260102-100000-1"):
        (tmp_path / name).mkdir(parents=True)
        finish(Run(tmp_path / name))
    (tmp_path / "MammoCNN" / "20260103-100000-1").mkdir()
    return tmp_path


def test_two_runs_of_one_second_do_not_share_a_folder(tmp_path):
    first, second = (create_run(tmp_path, "MammoCNN", 7) for _ in range(2))
    assert first.folder != second.folder
    assert first.folder.name.endswith("-7")
    assert first.model == second.model == "MammoCNN"


def test_a_run_that_was_stopped_last_is_what_training_goes_on_with(runs):
    assert suggested_resume({"runs": runs}) == "new"
    open_folder(runs / "MammoCNN" / "20260103-100000-1", "train", Options())
    assert suggested_resume({"runs": runs}) == "MammoCNN/20260103-100000-1"
    finish(create_run(runs, "ResNet18_OPW", 1))  # since then the person went on to another model
    assert suggested_resume({"runs": runs}) == "new"


def test_only_finished_runs_are_listed_oldest_first(runs):
    assert [run.model for run in list_runs(runs)] == ["ResNet18_CFT", "MammoCNN"]


def test_the_latest_is_the_one_finished_last_whatever_it_is_called_now(runs):
    (runs / "ResNet18_CFT" / "20260101-100000-1").rename(runs / "ResNet18_CFT" / "best")
    assert find_run(runs, "latest").model == "MammoCNN"
    (runs / "MammoCNN" / "20260102-100000-1").rename(runs / "MammoCNN" / "1st")
    assert [run.folder.name for run in list_runs(runs)] == ["best", "1st"]


def test_runs_of_an_earlier_version_are_ordered_by_their_names(runs):
    for run in list_runs(runs):
        record = json.loads((run.folder / "stage.json").read_text())
        del record["time"]
        (run.folder / "stage.json").write_text(json.dumps(record))
    (runs / "MammoCNN" / "20260102-100000-1").rename(runs / "MammoCNN" / "20251231-100000-1")
    assert find_run(runs, "latest").model == "ResNet18_CFT"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("latest", "MammoCNN"),
        ("ResNet18_CFT", "ResNet18_CFT"),
        ("ResNet18_CFT/20260101-100000-1", "ResNet18_CFT"),
    ],
)
def test_a_run_is_found_by_the_names_people_use(runs, name, model):
    assert find_run(runs, name).model == model


def test_a_run_is_found_by_its_path(runs, tmp_path):
    folder = runs / "MammoCNN" / "20260102-100000-1"
    assert find_run(tmp_path / "elsewhere", str(folder)).folder == folder.resolve()


def test_what_is_not_there_is_said_with_what_is(runs, tmp_path):
    with pytest.raises(UserError, match=r"nosuch: no such run .*MammoCNN/20260102-100000-1"):
        find_run(runs, "nosuch")
    with pytest.raises(UserError, match=r"holds no finished run; run: python main\.py train"):
        find_run(tmp_path / "empty", "latest")
    with pytest.raises(UserError, match="is not a folder made by train"):
        find_run(runs, "MammoCNN/20260103-100000-1")


def test_metrics_of_a_run_that_was_not_evaluated_name_the_command(runs):
    run = find_run(runs, "latest")
    with pytest.raises(UserError, match=r"python main\.py evaluate --run"):
        run.metrics()
    (run.folder / "metrics.json").write_text(json.dumps({"model": "MammoCNN"}))
    with pytest.raises(UserError, match=r"missing required field .*evaluate again with"):
        run.metrics()


def test_choices_are_newest_first_and_say_what_is_evaluated(runs):
    (runs / "MammoCNN" / "20260102-100000-1" / "metrics.json").write_text("{}")
    assert list(run_choices({"runs": runs}).items()) == [
        ("MammoCNN/20260102-100000-1", "evaluated"),
        ("ResNet18_CFT/20260101-100000-1", "not evaluated yet"),
    ]


@pytest.fixture
def folded(runs):
    """The same runs, and after each model's a run of fold 1 and one of fold 2."""
    for number in (1, 2):
        for model in ("MammoCNN", "ResNet18_CFT"):
            folder = runs / model / f"2026020{number}-100000-1"
            folder.mkdir()
            finish(Run(folder), Fold(number, 5))
    return runs


@pytest.mark.parametrize(
    ("name", "fold", "found"),
    [
        ("latest", 0, "ResNet18_CFT/20260202-100000-1"),
        ("latest", 1, "ResNet18_CFT/20260201-100000-1"),
        ("MammoCNN", 0, "MammoCNN/20260202-100000-1"),
        ("MammoCNN", 1, "MammoCNN/20260201-100000-1"),
        ("MammoCNN/20260201-100000-1", 1, "MammoCNN/20260201-100000-1"),
        ("MammoCNN/20260201-100000-1", 0, "MammoCNN/20260201-100000-1"),
    ],
)
def test_a_fold_selects_among_the_runs(folded, name, fold, found):
    run = find_run(folded, name, fold)
    assert run.name == found
    assert run.fold == Fold(int(found[-10]), 5)


def test_a_run_of_another_fold_is_refused(folded):
    with pytest.raises(UserError, match="is a run of fold 1 of 5, not of fold 2; drop --fold"):
        find_run(folded, "MammoCNN/20260201-100000-1", 2)
    with pytest.raises(UserError, match=r"is a run of the plain train/val split, not of fold 2"):
        find_run(folded, str(folded / "MammoCNN" / "20260102-100000-1"), 2)
    with pytest.raises(UserError, match=r"no finished run of fold 3; run: .* train --fold 3"):
        find_run(folded, "latest", 3)
    with pytest.raises(UserError, match="holds no finished run of MammoCNN of fold 3"):
        find_run(folded, "MammoCNN", 3)


def test_choices_name_the_fold_and_keep_to_the_one_that_was_given(folded):
    assert run_choices({"runs": folded})["MammoCNN/20260201-100000-1"] == (
        "not evaluated yet, fold 1 of 5"
    )
    assert list(run_choices({"runs": folded, "fold": 1})) == [
        "ResNet18_CFT/20260201-100000-1",
        "MammoCNN/20260201-100000-1",
    ]


def test_a_damaged_record_does_not_hide_the_other_runs(folded):
    (folded / "MammoCNN" / "20260202-100000-1" / "stage.json").write_text("{")
    assert find_run(folded, "MammoCNN", 1).name == "MammoCNN/20260201-100000-1"
    assert len(run_choices({"runs": folded})) == 6


def test_an_operating_point_above_every_score_is_read():
    nobody = choose("specificity", 1.0, np.array([False, True]), np.array([1.0, 0.5]))
    assert nobody.threshold > 1
    msgspec.convert({"threshold": nobody.threshold, "rule": nobody.rule}, Point)
