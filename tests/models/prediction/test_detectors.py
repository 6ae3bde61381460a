"""Predictions of anomaly detectors: errors, and how far above those of normal images they are."""

import csv
import json
import shlex
import shutil

import cv2
import pydicom
import pytest

from models.evaluation.ensemble import ensemble
from models.evaluation.stage import evaluate
from models.explanation.stage import explain
from models.prediction.stage import predict
from models.training.stage import train
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.runs import find_run
from pipeline.stages.evaluation import Ensemble, Evaluate
from pipeline.stages.explanation import Explain
from pipeline.stages.prediction import Predict
from pipeline.stages.training import Train
from tests.models.prediction.films import unlike
from tests.models.prediction.workspace import make_detectors, make_workspace

DETECTORS = ("CAE", "PatchCore")


@pytest.fixture(scope="session")
def place(once):
    """A workspace; not to be written to."""
    return once("scored", make_workspace)


@pytest.fixture(scope="session")
def runs(once, place):
    """Its runs: a classifier, a CAE and PatchCore; not to be written to."""
    return once("detected", lambda folder: make_detectors(place, folder))


@pytest.fixture
def predicted(runs, tmp_path):
    """Predict images and return what the stage returned, and the lines of predictions.csv."""

    def run(*paths, **given):
        values = {"paths": shlex.join(map(str, paths)), "runs": runs, "workers": 1,
                  "heat_maps": "none", "out": tmp_path / "predictions", **given}  # fmt: skip
        result = predict(checked(Predict, values), Silent())
        return result, lines_of(result.folder / "predictions.csv")

    return run


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def image_id(line):
    return line["image"].split("/")[-1].partition(".")[0]


@pytest.mark.parametrize("model", DETECTORS)
def test_images_of_the_test_split_get_the_errors_of_evaluation(place, runs, predicted, model):
    run = find_run(runs, model)
    truth = {line["image_id"]: line for line in lines_of(run.folder / "predictions_test.csv")}
    known = run.metrics()["anomaly"]
    result, lines = predicted(place / "dataset" / "test", run=model)
    assert {image_id(line) for line in lines} == set(truth)
    for line in lines:
        own = truth[image_id(line)]
        error = float(own["error"])
        assert float(line["error"]) == pytest.approx(error, rel=1e-5)
        z = (error - known["mean"]) / known["sd"]
        assert float(line["z"]) == pytest.approx(z, rel=1e-4, abs=1e-4)
        called = "anomalous" if own["predicted"] == "1" else "not anomalous"
        assert line["called"] == called
        assert float(line["z_threshold"]) == pytest.approx(2)
        assert float(line["error_threshold"]) == pytest.approx(known["threshold"])
    called = sum(line["called"] == "anomalous" for line in lines)
    assert result.headline.startswith(f"{called} of {len(lines)} images called anomalous")
    record = json.loads((result.folder / "stage.json").read_text())
    assert record["counts"]["anomalous"] == called


def test_a_detector_s_score_is_never_told_as_a_probability(place, predicted):
    result, lines = predicted(place / "dataset" / "test", run="CAE")
    written = json.loads((result.folder / "predictions.json").read_text())["predictions"]
    told = [result.headline, *result.notes, *(one.title for one in result.tables)]
    told += [name for one in result.tables for name in one.columns]
    told += [*lines[0], *written[0], *(str(cell) for one in result.tables for row in one.rows
                                       for cell in row)]  # fmt: skip
    for text in told:
        assert "probab" not in text.lower(), text
        assert "malignant" not in text.split("/")[-1], text
    assert result.tables[0].title.endswith("anomalous from mean + 2 sd on")
    assert any("normal test images are called anomalous" in note for note in result.notes)


def test_beside_a_classifier_each_line_has_what_its_run_gives(place, predicted):
    result, lines = predicted(place / "dataset" / "test", run="ResNet18_OPW,CAE")
    by_run = {}
    for line in lines:
        by_run.setdefault(line["run"].split("/")[0], []).append(line)
    assert len(by_run["ResNet18_OPW"]) == len(by_run["CAE"]) > 0
    of_classifier = {"probability", "threshold", "raw_probability"}
    of_detector = {"error", "z", "z_threshold", "error_threshold"}
    for run, own, others in (
        ("ResNet18_OPW", of_classifier, of_detector),
        ("CAE", of_detector, of_classifier),
    ):
        for line in by_run[run]:
            assert all(line[name] for name in own)
            assert not any(line[name] for name in others)
    written = json.loads((result.folder / "predictions.json").read_text())["predictions"]
    for line in written:
        others = of_classifier if line["run"].startswith("CAE") else of_detector
        assert not others & set(line)
    assert "called malignant or anomalous" in result.headline
    assert [one.columns[1] for one in result.tables] == ["Probability", "Error"]


def test_views_of_a_breast_are_joined_by_their_errors(place, predicted, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    films = [path for path in sorted((place / "raw").rglob("*.dcm")) if "full" in str(path).lower()]
    for number, path in enumerate(films[:2]):
        data = pydicom.dcmread(path)
        data.StudyInstanceUID, data.Laterality = "1.2.3", "L"
        data.save_as(folder / f"{number}.dcm")
    result, lines = predicted(folder, run="CAE,ResNet18_OPW")
    of_both = {line["run"].split("/")[0]: line for line in lines_of(result.folder / "breasts.csv")}
    breast = of_both["CAE"]
    highest = max((line for line in lines if line["error"]), key=lambda line: float(line["z"]))
    assert float(breast["z"]) == pytest.approx(float(highest["z"]), abs=1e-6)
    assert float(breast["error"]) == pytest.approx(float(highest["error"]))
    assert breast["called"] in ("anomalous", "not anomalous")
    assert not breast["probability"]
    assert of_both["ResNet18_OPW"]["probability"]


@pytest.mark.parametrize("model", DETECTORS)
def test_the_largest_errors_are_drawn_over_their_films(place, predicted, model):
    films = sorted((place / "dataset" / "test").rglob("*.png"))[:4]
    result, lines = predicted(*films, run=model, heat_maps=2)
    drawn = sorted(lines, key=lambda line: -float(line["z"]))
    assert [bool(line["heat_map"]) for line in drawn] == [True, True, False, False]
    picture = cv2.imread(str(result.folder / drawn[0]["heat_map"])).astype(int)
    film = cv2.imread(drawn[0]["image"], cv2.IMREAD_UNCHANGED)
    assert picture.shape[0] / picture.shape[1] == pytest.approx(film.shape[0] / film.shape[1], 0.01)
    assert (picture.max(axis=2) - picture.min(axis=2)).max() > 10, "it has no colour"


@pytest.mark.slow
@pytest.mark.parametrize("model", DETECTORS)
def test_unlike_images_are_named_as_such_and_like_ones_are_not(place, predicted, tmp_path, model):
    paths = sorted((place / "dataset" / "test").rglob("*.png"))
    films = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths[:4]]
    folder = tmp_path / "unlike"
    folder.mkdir()
    for name, image in unlike(films).items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    result, lines = predicted(folder, run=model)
    assert sum(line["like_training"] == "no" for line in lines) + result.set_aside >= 18
    assert any("the score means nothing there" in note for note in result.notes)
    _, like = predicted(place / "dataset" / "test", run=model)
    assert sum(line["like_training"] == "no" for line in like) <= 0.1 * len(like)


@pytest.mark.slow
def test_what_was_scored_before_is_taken_over(place, predicted):
    first, lines = predicted(place / "dataset" / "test", run="CAE")
    ledger = (first.folder / "ledger.jsonl").read_text()
    again, same = predicted(place / "dataset" / "test", run="CAE")
    assert same == lines
    assert (again.folder / "ledger.jsonl").read_text() == ledger


@pytest.mark.slow
def test_an_ensemble_gives_the_range_of_its_members(place, runs, predicted, tmp_path):
    mine = tmp_path / "runs"
    shutil.copytree(runs / "CAE", mine / "CAE")
    options = {"data": place / "preprocessed", "model": "CAE", "size": 64, "seed": 7, "epochs": 1,
               "weights": "none", "runs": mine, "workers": 1, "device": "cpu"}  # fmt: skip
    train(checked(Train, options), Silent())
    made = ensemble(checked(Ensemble, {"runs": mine, "workers": 1}), Silent())
    values = {"runs": mine, "run": str(made.folder), "workers": 1, "replicates": 100}
    evaluate(checked(Evaluate, values), Silent())
    truth = {line["image_id"]: float(line["error"])
             for line in lines_of(made.folder / "predictions_test.csv")}  # fmt: skip
    result, lines = predicted(
        place / "dataset" / "test", runs=mine, run=str(made.folder), heat_maps=1
    )
    for line in lines:
        assert float(line["error"]) == pytest.approx(truth[image_id(line)], rel=1e-5)
        low, z, high = (float(line[name]) for name in ("z_low", "z", "z_high"))
        assert low <= z <= high
    assert any(line["z_low"] != line["z_high"] for line in lines)
    assert len(list((result.folder / "heat_maps").iterdir())) == 1


@pytest.mark.slow
def test_maps_are_drawn_on_the_scale_that_explain_measured(place, runs, predicted, tmp_path):
    mine = tmp_path / "runs"
    shutil.copytree(runs, mine)
    (film, *_) = sorted((place / "dataset" / "test").rglob("*.png"))
    given = {"run": "CAE", "runs": mine, "heat_maps": 1}
    result, (before,) = predicted(film, **given)
    values = {"run": "CAE", "runs": mine, "workers": 1}
    explain(checked(Explain, values), Silent())
    _, (after,) = predicted(film, **given)
    pictures = [cv2.imread(str(result.folder / line["heat_map"])) for line in (before, after)]
    assert (pictures[0] != pictures[1]).any()
