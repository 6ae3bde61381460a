"""The commands that repeat a page: complete, in order, and without the names of old runs."""

import re
import shlex

import pytest

from interface.flags import build_parser
from interface.stages import STAGES
from pipeline.records import close_folder, open_folder, plain_options, read_json, write_json
from pipeline.runs import find_run
from pipeline.stages.evaluation import WAY, Ensemble, Evaluate
from pipeline.stages.explanation import Explain
from pipeline.stages.tuning import Tune
from tests.interface.report.files import cohort, dataset, finish, page_of, run_folder
from tests.interface.report.test_searches import MODEL, STUDY, study, tuned
from tests.interface.report.test_stage import Page


def commands(root):
    """Return stage and options of every command of the page, in order."""
    text = Page(page_of(root).text).text
    lines = re.findall(r"python main\.py .*? --batch", text[text.index("Commands that repeat") :])
    parser = build_parser({name: stage.options for name, stage in STAGES.items()})
    return [(line.split()[2], parser.parse_args(shlex.split(line)[2:])) for line in lines]


def finished(folder, second, **changed):
    """Say when a run was finished, and change its record."""
    record = read_json(folder / "stage.json") | {"time": f"2026-01-02T03:04:{second:02}Z"}
    write_json(folder / "stage.json", record | changed)
    return folder


@pytest.fixture
def searched(tmp_path):
    """A search, the run trained with what it found, another one before it."""
    rows = cohort(48)
    data = dataset(tmp_path, rows)
    runs = tmp_path / "runs"
    options = Tune(data=data, model=MODEL, weights="none", trials=15, runs=runs)
    finish(runs / "studies" / STUDY, "tune", options)
    found = study(runs, data)
    write_json(found / "best.json", read_json(found / "best.json") | {
        "finished": "2026-01-02T03:04:30Z"})  # fmt: skip
    finished(run_folder(runs, data, rows, "MammoCNN", 0.7), 20)
    folder = finished(run_folder(runs, data, rows, MODEL, 0.9), 40)
    tuned(folder)
    return tmp_path, data, rows, folder


def test_commands_are_in_the_order_in_which_they_can_be_run(searched):
    root, data, _, _ = searched
    found = commands(root)
    assert [stage for stage, _ in found] == [
        "synthesize", "organize", "preprocess", "train", "evaluate", "tune", "train", "evaluate",
        "report",
    ]  # fmt: skip
    trained = [options.model for stage, options in found if stage == "train" and "model" in options]
    assert trained == ["MammoCNN"]  # the other is the default
    (search,) = [options for stage, options in found if stage == "tune"]
    assert (search.model, search.trials, search.data) == (MODEL, 15, str(data))


def test_evaluation_names_a_run_as_it_will_be_called_and_finds_it(searched):
    root, _, _, folder = searched
    named = [options.run for stage, options in commands(root) if stage == "evaluate"]
    assert named == ["MammoCNN", MODEL]
    assert find_run(root / "runs", named[1]).folder == folder
    text = Page(page_of(root).text).text
    assert "20260102-0304" not in text[text.index("Commands that repeat") :]


def test_heat_maps_are_made_again_after_their_run_was_evaluated(searched):
    root, _, _, folder = searched
    options = Explain(images="all", evidence="malignant", checks=0, runs=root / "runs")
    open_folder(folder / "explanations", "explain", options)
    close_folder(folder / "explanations", "explain", options, {}, "abc", 1.0)
    found = commands(root)
    assert [stage for stage, _ in found][-3:] == ["evaluate", "explain", "report"]
    again = found[-2][1]
    assert (again.run, again.images, again.evidence, again.checks) == (
        MODEL, "all", "malignant", 0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "rule", "expected"),
    [
        ({"operating_point": "f1"}, "", ("f1", None, "auto")),
        ({"operating_point": "cost", "target": 25.0}, "", ("cost", 25.0, "auto")),
        ({"operating_point": "youden"}, "", ("auto", None, "auto")),
        ({"calibration": "isotonic"}, "", ("auto", None, "isotonic")),
        # Versions before kept the rule alone.
        (None, "highest F1 on validation", ("f1", None, "temperature")),
        (None, "sensitivity of at least 0.95 on validation", ("sensitivity", 0.95, "temperature")),
    ],
)
def test_evaluation_repeats_the_options_that_it_recorded(searched, way, rule, expected):
    root, _, _, folder = searched
    measured = read_json(folder / "metrics.json")
    if way is None:
        measured["operating_point"]["rule"] = rule
    else:
        standard = {"operating_point": "youden", "calibration": "temperature"}
        measured["options"] = plain_options(Evaluate()) | standard | way
        measured["options"] = {name: measured["options"][name] for name in WAY}
    write_json(folder / "metrics.json", measured)
    found = [one for stage, one in commands(root) if stage == "evaluate" and one.run == MODEL]
    standard = {"operating_point": "auto", "target": None, "calibration": "auto"}
    (given,) = (standard | vars(one) for one in found)
    assert tuple(given[name] for name in standard) == expected


def test_search_without_a_record_leaves_the_other_commands(searched):
    root, _, _, _ = searched
    (root / "runs" / "studies" / STUDY / "stage.json").unlink()
    assert "tune" not in [stage for stage, _ in commands(root)]


@pytest.mark.parametrize(
    ("joined", "named"),
    [
        ("all", "all"),
        ("MammoCNN/20260102-030405-42,ResNet18_CFT/20260102-030405-42", "MammoCNN,ResNet18_CFT"),
        ("MammoCNN/20260102-030405-42", "MammoCNN"),
    ],
)
def test_ensemble_names_its_members_by_model(searched, joined, named):
    root, data, rows, _ = searched
    folder = run_folder(root / "runs", data, rows, "Ensemble", 0.8, strategy="ensemble")
    options = plain_options(Ensemble(members=joined, runs=root / "runs"))
    finished(folder, 50, stage="ensemble", options=options)
    found = commands(root)
    assert [stage for stage, _ in found][-3:] == ["ensemble", "evaluate", "report"]
    assert getattr(found[-3][1], "members", "all") == named
    assert found[-2][1].run == "Ensemble"
