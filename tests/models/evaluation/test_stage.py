import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from main import main
from models.evaluation.predictions import maps_are_older
from models.evaluation.stage import evaluate
from models.metrics import METRICS
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import read_json, write_table
from pipeline.runs import Run
from pipeline.stages.evaluation import Evaluate
from tests.models.datasets import make_dataset


@pytest.fixture(scope="module")
def copied(trained, give_baselines):
    """Copy the trained run into a folder of runs."""

    def copy(place):
        folder = place / "runs" / trained.folder.parent.name / trained.folder.name
        shutil.copytree(trained.folder, folder)
        give_baselines(place / "runs")
        return folder

    return copy


@pytest.fixture
def run(copied, tmp_path):
    """A copy of the trained run, to be evaluated."""
    return copied(tmp_path)


@pytest.fixture(scope="module")
def evaluated(copied, tmp_path_factory):
    """An evaluated copy of the trained run, and what evaluation returned."""
    folder = copied(tmp_path_factory.mktemp("evaluated"))
    return folder, scored(folder)


def scored(run, **given):
    quick = {"run": str(run), "runs": run.parent.parent, "replicates": 200, "workers": 1}
    return evaluate(Evaluate(**{**quick, **given}), Silent())


def predictions(run, split):
    with (run / f"predictions_{split}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_figures_are_those_of_the_predictions(evaluated, tiny_data):
    run, result = evaluated
    measured = read_json(run / "metrics.json")
    threshold = measured["operating_point"]["threshold"]
    for split in ("val", "test"):
        lines = predictions(run, split)
        rows = [row for row in read_manifest(tiny_data) if row.split == split]
        assert [line["image_id"] for line in lines] == [row.image_id for row in rows]
        targets = np.array([int(line["target"]) for line in lines])
        scores = np.array([float(line["probability"]) for line in lines])
        called = np.array([int(line["predicted"]) for line in lines])
        assert [line["label"] == "malignant" for line in lines] == [bool(one) for one in targets]
        assert ((scores >= threshold) == called).all()
        figures = measured["splits"][split]
        auc = figures["metrics"]["auc"]
        assert auc["value"] == pytest.approx(roc_auc_score(targets, scores))
        assert auc["low"] <= auc["value"] <= auc["high"]
        assert figures["confusion"]["tp"] == int((called & targets).sum())
        assert sum(figures["confusion"].values()) == figures["images"] == len(rows)
        assert figures["patients"] == len({row.patient_id for row in rows})
    assert result.headline.startswith("Test AUC ")
    assert "on 12 images of 6 patients" in result.headline
    assert result.next_stage == "explain"
    assert Run(run).evaluated


@pytest.fixture(scope="module")
def swapped(tiny_data, tmp_path_factory):
    """The dataset with the labels of all test images swapped."""
    folder = tmp_path_factory.mktemp("swapped") / "data"
    shutil.copytree(tiny_data, folder)
    turned = {"benign": "malignant", "malignant": "benign"}
    rows = [
        dataclasses.replace(row, label=turned[row.label]) if row.split == "test" else row
        for row in read_manifest(folder)
    ]
    write_manifest(folder, rows)
    return folder


@pytest.mark.slow
def test_nothing_but_the_figures_of_test_depends_on_its_labels(options_for, swapped, tmp_path):
    """Training, early stopping, calibration, thresholds: swapped test labels change none."""
    one = train(options_for(tmp_path / "true"), Silent()).folder
    other = train(options_for(tmp_path / "swapped", data=swapped), Silent()).folder
    for name in ("weights.safetensors", "last.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    first, second = (
        [scored(folder), read_json(folder / "metrics.json")][1] for folder in (one, other)
    )
    for name in ("operating_point", "calibration"):
        assert first[name] == second[name]
    for unit in ("breast", "patient"):
        for name in ("threshold", "rule"):
            assert first["units"][unit][name] == second["units"][unit][name]
    assert first["splits"]["val"] == second["splits"]["val"]
    true, false = (one["splits"]["test"]["metrics"]["auc"]["value"] for one in (first, second))
    assert true == pytest.approx(1 - false)


def test_breasts_and_patients_are_counted_and_called_on_their_own(evaluated):
    units = read_json(evaluated[0] / "metrics.json")["units"]
    images = read_json(evaluated[0] / "metrics.json")["splits"]["test"]["images"]
    assert {name: units[name]["splits"]["test"]["images"] for name in units} == {
        "breast": images // 2,
        "patient": images // 2,
    }


@pytest.mark.slow
def test_mirror_images_are_averaged(run, evaluated):
    scored(run, tta="flips", calibration="none")
    single, mean = (
        [float(line["raw_probability"]) for line in predictions(folder, "test")]
        for folder in (evaluated[0], run)
    )
    assert single != mean
    assert read_json(run / "metrics.json")["tta"] == "flips"
    assert read_json(run / "metrics.json")["calibration"]["method"] == "none"


def test_a_sensitivity_above_one_is_refused(run):
    with pytest.raises(UserError, match="--target 5: a sensitivity is at most 1"):
        scored(run, operating_point="sensitivity", target=5.0)


@pytest.mark.slow
@pytest.mark.drawn
def test_the_same_evaluation_gives_the_same_bytes(copied, tmp_path):
    run, again = copied(tmp_path / "one"), copied(tmp_path / "two")
    for folder in (run, again):
        scored(folder)
    written = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    names = ("roc", "pr", "confusion", "reliability", "decision", "probabilities", "history")
    drawn = {path.name for path in written if path.parent.name == "figures"}
    assert drawn == {f"{name}.{suffix}" for name in names for suffix in ("svg", "png")}
    for path in written:
        if path.name != "metrics.json":
            assert (run / path).read_bytes() == (again / path).read_bytes(), path
    measured, before = (read_json(folder / "metrics.json") for folder in (run, again))
    assert measured.pop("cost")["parameters"] == before.pop("cost")["parameters"]  # it has speeds
    assert measured == before


def test_the_tables_fit_eighty_columns(evaluated):
    for table in evaluated[1].tables:
        lines = [
            [cell if isinstance(cell, str) else "0.000" for cell in row]
            for row in (table.columns, *table.rows)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        assert sum(widths) + 3 * len(widths) <= 80
    assert len(evaluated[1].tables[0].rows) == len(METRICS)


def test_without_a_run_one_line_names_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--batch"]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "run: python main.py train" in shown.err


def test_a_patient_that_was_trained_on_is_refused_in_test(run, tmp_path):
    leaking = make_dataset(tmp_path / "leaking", {"test": 2, "val": 2, "train": 2})
    with pytest.raises(UserError, match=r"2 test patients \(P_00000, \.\.\.\) were trained on"):
        scored(run, data=leaking)
    assert not (run / "metrics.json").exists()


def test_a_patient_that_was_trained_on_is_refused_in_validation(run, tmp_path):
    leaking = make_dataset(tmp_path / "leaking", {"val": 2, "test": 2}, first=10)
    with pytest.raises(UserError, match=r"2 val patients \(P_00010, \.\.\.\) were trained on"):
        scored(run, data=leaking)


def test_other_data_is_scored_and_what_differs_is_noted(run, tmp_path):
    other = make_dataset(tmp_path / "other", {"test": 2, "val": 2}, first=12, stage="organize")
    result = scored(run, data=other)
    assert "this is not the dataset that the run was trained on" in result.notes
    assert "2 test patients helped to choose the weights (validation)" in result.notes
    assert any("preprocessed otherwise" in note for note in result.notes)
    assert read_json(run / "metrics.json")["data"] == str(other.resolve())
    assert read_json(run / "metrics.json")["notes"] == list(result.notes)


def test_test_images_of_one_class_have_no_auc(run, tmp_path):
    other = make_dataset(tmp_path / "o", {"val": 2, "test": 3}, ("benign",), first=500)
    result = scored(run, data=other)
    assert result.headline == "no test AUC: the 6 test images show one class only"
    measured = json.loads((run / "metrics.json").read_text())
    assert measured["splits"]["test"]["metrics"]["auc"] == dict.fromkeys(("value", "low", "high"))
    assert measured["operating_point"]["threshold"] == 0.5
    assert "one class" in measured["operating_point"]["rule"]


def test_images_that_cannot_be_read_are_added_to_the_list(run, tmp_path):
    other = make_dataset(tmp_path / "o", {"val": 2, "test": 2}, first=500)
    row = read_manifest(other)[-1]
    (other / row.path).unlink()
    (run / "set_aside.csv").write_text("what,reason\ntrain/x.png,was empty\n")
    result = scored(run, data=other)
    assert result.set_aside == 1
    listed = (run / "set_aside.csv").read_text()
    assert row.path in listed
    assert "train/x.png,was empty" in listed


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.parametrize("name", ["EfficientNetB3_Optuna", "ResNet18_CFT"])
def test_other_kinds_of_runs_can_be_evaluated(name, options_for, tmp_path):
    train(options_for(tmp_path, model=name), Silent())
    options = Evaluate(runs=tmp_path, replicates=100, workers=1)
    result = evaluate(options, Silent())
    assert result.facts["model"] == name
    drawn = (result.folder / "figures" / "history.svg").is_file()
    assert not drawn  # one epoch, or none


@pytest.mark.slow
def test_an_untrained_head_is_titled(options_for, tmp_path):
    train(options_for(tmp_path, model="ResNet18_OPW", untrained_head=True), Silent())
    result = evaluate(Evaluate(runs=tmp_path, replicates=100, workers=1), Silent())
    assert result.headline.startswith("Control with an untrained head: Test AUC ")
    assert any("the control, which is chance" in note for note in result.notes)


def test_a_run_of_before_pixels_were_recorded_is_evaluated(run):
    facts = read_json(run / "model.json")
    (run / "model.json").write_text(
        json.dumps({name: facts[name] for name in facts if name not in ("pixels", "depth")})
    )
    assert scored(run).facts["test"]["images"] > 0
    assert (run / "domain.json").is_file()


def test_data_without_test_images_is_refused(run, tmp_path):
    other = make_dataset(tmp_path / "o", {"val": 4}, first=500)
    with pytest.raises(UserError, match="holds no test images"):
        scored(run, data=other)


def test_data_that_is_gone_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        scored(run, data=tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("weights.safetensors", b"cut", r"weights\.safetensors: cannot be read"),
        ("model.json", b"{}", r"model\.json: is damaged or of another version"),
    ],
)
def test_a_damaged_run_is_refused(run, name, content, problem):
    (run / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        scored(run)


def test_malignant_against_the_rest_is_scored_with_a_note(run, tmp_path):
    labels = "not_malignant", "malignant"
    other = make_dataset(tmp_path / "o", {"val": 4, "test": 4}, labels, first=500)
    result = scored(run, data=other)
    assert any(
        "learnt to tell benign or malignant, and the images here are not malignant or" in note
        for note in result.notes
    )
    found = read_json(run / "metrics.json")
    assert found["labels"] == list(labels)
    assert {line["label"] for line in predictions(run, "test")} == set(labels)


def test_a_question_that_was_not_learnt_is_refused_in_one_line(run, tmp_path):
    other = make_dataset(tmp_path / "o", {"val": 2, "test": 2}, ("normal", "abnormal"), first=500)
    problem = "learnt to tell benign or malignant, and the images of this dataset are normal or"
    with pytest.raises(UserError, match=problem) as told:
        scored(run, data=other)
    assert "\n" not in str(told.value)
    assert not (run / "metrics.json").exists()


def test_heat_maps_of_an_evaluation_before_are_named(run):
    assert not any("heat-maps" in note for note in scored(run).notes)
    columns = ("image_id", "probability", "outcome")

    def explain_as_said():
        """Write the table of heat-maps as `explain` does, as far as it is looked at."""
        lines = [
            (one["image_id"], one["probability"], f"T{'NP'[int(one['predicted'])]}")
            for one in predictions(run, "test")
        ]
        write_table(run / "explanations" / "explanations.csv", columns, lines)

    explain_as_said()
    assert not maps_are_older(run)
    assert not any("heat-maps" in note for note in scored(run).notes)
    # A point that calls every image malignant: other outcomes of the same probabilities.
    again = scored(run, operating_point="sensitivity", target=1.0, calibration="none")
    assert any("heat-maps of this run are of its evaluation before" in one for one in again.notes)
    assert maps_are_older(run)
    explain_as_said()
    assert not maps_are_older(run)
