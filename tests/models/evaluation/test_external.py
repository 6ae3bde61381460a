"""Predictions made elsewhere: read with care, measured like a run."""

import csv
import math

import numpy as np
import pytest

from models.evaluation.predictions import read_predicted, read_predictions
from models.evaluation.stage import evaluate
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import list_runs
from pipeline.stages.evaluation import Evaluate

HEAD = "image_id,patient_id,label,probability"


def lines(count=12, split=""):
    """Images of patients of two images each, every second patient malignant, well told apart."""
    found = []
    for number in range(count):
        patient, malignant = number // 2, number // 2 % 2
        probability = 0.3 + 0.4 * malignant + 0.02 * (number % 3)
        cells = [f"{split}i{number}", f"{split}p{patient}", str(malignant), f"{probability:.3f}"]
        found.append(",".join([*cells, *([split] if split else [])]))
    return found


def written(path, *text, head=HEAD):
    path.write_text("\n".join([head, *text]) + "\n", encoding="utf-8")
    return path


def measured(path, runs, **given):
    options = Evaluate(predictions=path, runs=runs, replicates=200, workers=1, **given)
    result = evaluate(options, Silent())
    return result, read_json(result.folder / "metrics.json")


def test_a_file_alone_gets_every_measure(tmp_path):
    path = written(tmp_path / "their model.csv", *lines())
    result, found = measured(path, tmp_path / "runs")
    assert result.headline.startswith("Test AUC 1.000 (95 % interval 1.000 to 1.000) on 12 ")
    assert found["model"] == "their_model"
    assert found["operating_point"]["threshold"] == 0.5
    assert found["calibration"]["method"] == "none"
    assert set(found["splits"]) == {"test"}
    assert all(one["value"] is not None for one in found["splits"]["test"]["metrics"].values())
    assert found["units"]["patient"]["splits"]["test"]["images"] == 6
    assert any("no validation images" in note for note in result.notes)
    assert [run.name for run in list_runs(tmp_path / "runs")] == [found["run"]]


def test_with_validation_rows_the_operating_point_comes_from_them(tmp_path):
    head = f"{HEAD},split"
    path = written(tmp_path / "m.csv", *lines(split="val"), *lines(split="test"), head=head)
    _, found = measured(path, tmp_path / "runs", calibration="none")
    assert found["operating_point"]["rule"] == "Youden's J on validation"
    assert set(found["splits"]) == {"val", "test"}


def test_beside_a_dataset_its_rows_give_the_strata(tiny_data, give_baselines, tmp_path):
    give_baselines(tmp_path / "runs")
    rows = [row for row in read_manifest(tiny_data) if row.split == "test"]
    text = [f"{row.image_id},{row.patient_id},{row.label},0.{number:02d}"
            for number, row in enumerate(rows, start=1)]  # fmt: skip
    _, found = measured(written(tmp_path / "m.csv", *text), tmp_path / "runs", data=tiny_data)
    assert {one["factor"] for one in found["strata"]} >= {"view", "laterality"}
    place = next(place for place, row in enumerate(rows) if row.label == "benign")
    text[place] = text[place].replace("benign", "malignant")
    wrong = rf"m\.csv: line {place + 2}: label of .* is malignant, and benign in"
    with pytest.raises(UserError, match=wrong):
        measured(written(tmp_path / "m.csv", *text), tmp_path / "runs", data=tiny_data)


def test_values_come_back_as_they_were_said(tmp_path):
    path = written(tmp_path / "m.csv", "a,p,benign,0", "b,q,Malignant,1", " c , r , 1 , 0.25 ")
    result, _ = measured(path, tmp_path / "runs")
    with (result.folder / "predictions_test.csv").open(encoding="utf-8") as file:
        said = {line["image_id"]: float(line["probability"]) for line in csv.DictReader(file)}
    assert said == pytest.approx({"a": 0, "b": 1, "c": 0.25})


GOOD = "a,p,benign,0.5"
REFUSED = {
    "no probability": ("image_id,patient_id,label", GOOD, r"line 1: lacks probability"),
    "a column twice": (f"{HEAD},label", f"{GOOD},benign", r"line 1: label stands there twice"),
    "empty": ("", "", r"line 1: lacks image_id, patient_id, label, probability"),
    "no line": (HEAD, "", r"holds no test image"),
    "a cell too few": (HEAD, f"{GOOD}\nb,p,benign", r"line 3: 3 cells, and the first line has 4"),
    "a word": (HEAD, f"{GOOD}\nb,p,benign,high", r"line 3: probability is 'high', not a number"),
    "nan": (HEAD, "b,p,benign,nan", r"line 2: probability is 'nan', not a number from 0 to 1"),
    "too large": (HEAD, "b,p,benign,1.01", r"line 2: probability is '1.01', not a number"),
    "a label": (HEAD, f"{GOOD}\n\nb,p,2,0.5", r"line 4: label is '2', not benign or malignant"),
    "twice": (HEAD, f"{GOOD}\n{GOOD}", r"line 3: a stands there twice"),
    "no patient": (HEAD, "a,,benign,0.5", r"line 2: patient_id is empty"),
    "a split": (f"{HEAD},split", f"{GOOD},train", r"line 2: split is 'train', not val or test"),
    "two homes": (f"{HEAD},split", f"{GOOD},val\nb,p,benign,0.5,test",
                  r"line 3: patient p is in val and in test"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_malformed_is_refused_with_its_line(case, tmp_path):
    head, text, problem = REFUSED[case]
    with pytest.raises(UserError, match=problem) as refused:
        read_predictions(written(tmp_path / "m.csv", text, head=head), [])
    assert "\n" not in str(refused.value)


def test_what_is_no_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "m.csv").write_bytes(f"{HEAD}\n{GOOD}\nb,".encode() + b"\xff\x81")
    with pytest.raises(UserError, match=r"line 3: is no text"):
        read_predictions(tmp_path / "m.csv", [])


def test_a_refused_file_leaves_no_run(tmp_path):
    with pytest.raises(UserError):
        measured(written(tmp_path / "m.csv", "a,p,benign,x"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (";", ","), (";", "."), ("\t", ",")]
)
def test_what_a_spreadsheet_saved_is_understood(tmp_path, encoding, separator, decimal):
    lines = [HEAD.split(","), ["Bär", "p", "benign", f"0{decimal}25"], ["b", "q", "1", "1"], [], []]
    text = "\r\n".join(separator.join([*line, *[""] * (6 - len(line))]) for line in lines)
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode(encoding))
    found = read_predictions(path, [])
    splits, note = found.splits, found.unusual
    assert [row.image_id for row in splits["test"].rows] == ["Bär", "b"]
    assert splits["test"].values[0] == pytest.approx(math.log(1 / 3))
    plain = separator == "," and encoding.startswith("utf-8")
    assert (note == "") == plain
    assert ("semicolons" in note) == (separator == ";")


def rare_lines(count=400, every=50):
    """One image a patient, one of `every` malignant; malignant ones score a little higher."""
    found = []
    for number in range(count):
        malignant = number % every == 0
        probability = (number * 37 % 100) / 200 + 0.4 * malignant
        found.append(f"i{number},p{number},{int(malignant)},{probability:.4f}")
    return found


def test_where_few_are_malignant_pr_auc_and_pf1_lead(tmp_path):
    result, found = measured(written(tmp_path / "m.csv", *rare_lines()), tmp_path / "runs")
    assert result.headline.startswith("Test PR AUC 0.")
    assert "chance 0.020), pF1 0." in result.headline
    measures, units, *_ = result.tables
    assert [row[0] for row in measures.rows][:2] == ["PR AUC", "Probabilistic F1"]
    assert measures.rows[-1][0] == "Accuracy"
    assert units.columns[2:5] == ("PR AUC", "95 % interval", "Chance")
    (note,) = (note for note in result.notes if "accuracy" in note)
    assert "8 of 400 test images (2.0%, of 8 patients) are malignant" in note
    assert "an accuracy of 0.980" in note
    soft = found["splits"]["test"]["metrics"]["pf1"]
    assert soft["low"] < soft["value"] < soft["high"]
    assert note in found["notes"]


def test_with_ordinary_prevalence_files_and_screen_are_as_before(tmp_path):
    result, found = measured(written(tmp_path / "m.csv", *lines()), tmp_path / "runs")
    assert "pf1" not in found["splits"]["test"]["metrics"]
    assert "labels" not in found
    measures, units, *_ = result.tables
    assert measures.rows[0][0] == "ROC AUC"
    assert len(measures.rows) == 14
    assert units.columns[2] == "AUC"


def test_labels_of_another_question_are_understood(tmp_path):
    names = ["not malignant", "MALIGNANT"]
    text = [line.split(",") for line in lines()]
    text = [",".join([*cells[:2], names[int(cells[2])], cells[3]]) for cells in text]
    result, found = measured(written(tmp_path / "m.csv", *text), tmp_path / "runs")
    assert found["labels"] == ["not_malignant", "malignant"]
    assert read_json(result.folder / "model.json")["labels"] == found["labels"]
    assert (found["splits"]["test"]["benign"], found["splits"]["test"]["malignant"]) == (6, 6)
    with (result.folder / "predictions_test.csv").open(encoding="utf-8") as file:
        said = [(line["label"], line["target"]) for line in csv.DictReader(file)]
    assert set(said) == {("not_malignant", "0"), ("malignant", "1")}
    again, _ = read_predicted(result.folder / "predictions_test.csv")
    assert [row.is_positive for row in again] == [target == "1" for _, target in said]


def test_probabilities_that_are_too_high_for_the_prevalence_are_named(tmp_path):
    text = [f"val{line},val" for line in rare_lines()]
    text = [line.replace(",p", ",valp") for line in text]
    text += [f"{line},test" for line in rare_lines()]
    path = written(tmp_path / "m.csv", *text, head=f"{HEAD},split")
    high, before = measured(path, tmp_path / "runs", calibration="temperature")
    assert any("on average, and 0.020 of its images are malignant" in one for one in high.notes)
    assert "operating point and calibration rest on 8 malignant validation images" in high.notes
    mended, after = measured(path, tmp_path / "runs", calibration="isotonic")
    assert not any("on average" in note for note in mended.notes)
    soft = [one["splits"]["test"]["metrics"]["pf1"]["value"] for one in (before, after)]
    assert soft[1] > 1.5 * soft[0]


def test_errors_of_a_detector_are_called_by_those_of_normal_images(tmp_path):
    head = "image_id,patient_id,label,error,split"
    val = [f"v{n},pv{n},{n % 2},{1 + 0.1 * n + 5 * (n % 2)},val" for n in range(12)]
    test = [f"t{n},pt{n},{n % 2},{1 + 0.1 * n + 5 * (n % 2)},test" for n in range(12)]
    result, _ = measured(written(tmp_path / "m.csv", *val, *test, head=head), tmp_path / "runs")
    normal = [1 + 0.1 * n for n in range(0, 12, 2)]
    figures = read_json(result.folder / "metrics.json")
    wanted = np.mean(normal) + 2 * np.std(normal, ddof=1)
    assert figures["anomaly"]["threshold"] == pytest.approx(wanted)
    assert result.facts["test"]["metrics"]["auc"]["value"] == 1
    assert result.facts["test"]["metrics"]["brier"]["value"] is None


def test_errors_without_validation_images_set_no_threshold(tmp_path):
    path = written(tmp_path / "m.csv", "a,p,benign,0.5", head=HEAD.replace("probability", "error"))
    with pytest.raises(UserError, match="has no validation images, whose errors set the threshold"):
        measured(path, tmp_path / "runs")
    below = written(tmp_path / "n.csv", "a,p,benign,-1", head=HEAD.replace("probability", "error"))
    with pytest.raises(UserError, match="line 2: error is '-1', not a number, at least 0"):
        measured(below, tmp_path / "runs")
