"""Scores of images that a person hands in: those of evaluation, whatever file they come from."""

import csv
import json
import shlex
import shutil
import zipfile
import zlib

import cv2
import numpy as np
import pydicom
import pytest

from interface.flags import command
from main import main
from models.evaluation.ensemble import ensemble
from models.evaluation.stage import evaluate
from models.export.stage import export
from models.prediction.stage import predict
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.runs import list_runs
from pipeline.stages.evaluation import Ensemble, Evaluate
from pipeline.stages.export import Export
from pipeline.stages.prediction import Predict
from pipeline.stages.training import Train
from tests.interrupts import interrupted_when, interrupts_itself
from tests.models.prediction.films import unlike, unlike_in_one_way
from tests.models.prediction.workspace import make_workspace
from tests.models.without_torch import run_without_torch


@pytest.fixture(scope="session")
def place(once):
    """A workspace with an evaluated run; not to be written to."""
    return once("scored", make_workspace)


@pytest.fixture
def predicted(place, tmp_path):
    """Predict images and return the lines of predictions.csv by image."""

    def run(*paths, **given):
        values = {"paths": shlex.join(map(str, paths)), "runs": place / "runs", "workers": 1,
                  "out": tmp_path / "predictions", **given}  # fmt: skip
        result = predict(checked(Predict, values), Silent())
        with (result.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return result, {line["image"]: line for line in csv.DictReader(file)}

    return run


def evaluated(place, split="test"):
    (run,) = list_runs(place / "runs")
    path = run.folder / f"predictions_{split}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {line["image_id"]: line for line in csv.DictReader(file)}


def by_id(lines):
    return {image.split("/")[-1].partition(".")[0]: line for image, line in lines.items()}


@pytest.mark.parametrize("kind", ["dataset", "preprocessed"])
def test_images_of_the_test_split_get_the_scores_of_evaluation(place, predicted, kind):
    result, lines = predicted(place / kind / "test")
    truth = evaluated(place)
    assert result.set_aside == 0
    assert set(by_id(lines)) == set(truth)
    for name, line in by_id(lines).items():
        assert float(line["probability"]) == pytest.approx(
            float(truth[name]["probability"]), abs=1e-5
        )
        assert (line["called"] == "malignant") == (truth[name]["predicted"] == "1")


def test_the_download_itself_gets_them_too(place, predicted):
    rows = {row.source_id: row for row in read_manifest(place / "dataset") if row.split == "test"}
    films = {}
    for path in sorted((place / "raw").rglob("*.dcm")):
        series = pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID
        if series in rows and len(films) < 6:
            films[str(path)] = rows[series].image_id
    _, lines = predicted(*films)
    truth = evaluated(place)
    assert len(films) == 6
    for path, image_id in films.items():
        score = float(truth[image_id]["probability"])
        assert float(lines[path]["probability"]) == pytest.approx(score, abs=1e-5)


def test_views_of_a_breast_are_joined_as_in_evaluation(place, predicted, tmp_path):
    files = sorted((place / "raw").rglob("*.dcm"))
    films = [path for path in files if "full" in str(path).lower()][:4]
    folder = tmp_path / "study"
    folder.mkdir()
    for number, path in enumerate(films):
        data = pydicom.dcmread(path)
        data.StudyInstanceUID, data.PatientName = "1.2.3", "Doe^Jane"
        data.Laterality = "L" if number < 2 else "R"
        data.save_as(folder / f"{number}.dcm")
    result, lines = predicted(folder)
    with (result.folder / "breasts.csv").open(encoding="utf-8", newline="") as file:
        breasts = {line["laterality"]: line for line in csv.DictReader(file)}
    assert set(breasts) == {"LEFT", "RIGHT"}
    left = [float(line["probability"]) for line in lines.values() if line["laterality"] == "LEFT"]
    assert float(breasts["LEFT"]["probability"]) == max(left)
    written = b"".join(p.read_bytes() for p in result.folder.rglob("*") if p.is_file())
    assert b"Doe" not in written
    assert b"1.2.3" not in written


def test_every_kind_of_file_is_read(place, predicted, tmp_path):
    source = next(iter(sorted((place / "dataset" / "test").rglob("*.png"))))
    film = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    folder = tmp_path / "many kinds"
    folder.mkdir()
    for suffix in ("png", "tif", "pgm"):
        cv2.imwrite(str(folder / f"film.{suffix}"), film)
    cv2.imwrite(str(folder / "film.jpg"), (film >> 8).astype(np.uint8))
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.write(source, "inside/film.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    result, lines = predicted(folder)
    assert len(lines) == 5
    scores = [float(line["probability"]) for line in lines.values()]
    assert np.ptp(scores) < 0.05, "8 bits and JPEG change little"
    assert any("files of other kinds were left aside: 1 .txt" in note for note in result.notes)


def test_a_file_that_cannot_be_read_is_set_aside_with_the_reason(place, predicted, tmp_path):
    good = next(iter((place / "dataset" / "test").rglob("*.png")))
    text, cut, bomb = tmp_path / "text.dcm", tmp_path / "cut.png", tmp_path / "bomb.png"
    text.write_text("not an image")
    cut.write_bytes(good.read_bytes()[:2000])
    small = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    header = small[12:16] + (60000).to_bytes(4, "big") * 2 + small[24:29]
    bomb.write_bytes(small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:])
    result, lines = predicted(good, text, cut, bomb)
    assert [*lines] == [str(good)]
    assert result.set_aside == 3
    reasons = (result.folder / "set_aside.csv").read_text()
    assert "is a text file, not DICOM" in reasons
    assert "has more than 178 million pixels" in reasons
    assert "cut.png" in reasons


def test_a_first_file_that_cannot_be_opened_is_set_aside_as_any(place, predicted, tmp_path):
    good = next(iter((place / "dataset" / "test").rglob("*.png")))
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(good, "0")  # without a suffix: only its bytes could tell what it is
        archive.write(good, "film.png")
    content = bytearray((tmp_path / "films.zip").read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + flags] |= 1  # encrypted
    (tmp_path / "films.zip").write_bytes(content)
    result, lines = predicted(tmp_path / "films.zip")
    assert [*lines] == [str(tmp_path / "films.zip" / "film.png")]
    assert "is encrypted in its zip file" in (result.folder / "set_aside.csv").read_text()


def test_heat_maps_of_a_zip_file_that_was_replaced_are_drawn_anew(place, predicted, tmp_path):
    name = "x" * 240 + ".png"  # longer than fits before the picture's own ending
    pictures = []
    for source in sorted((place / "dataset" / "test").rglob("*.png"))[:2]:
        with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
            archive.write(source, name)
        result, lines = predicted(tmp_path / "films.zip")
        (line,) = lines.values()
        pictures.append((result.folder / line["heat_map"]).read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ("", "nothing was given"),
        ("gone.dcm", "it is no file or folder"),
        ("'open", "a quote is not closed"),
    ],
)
def test_what_is_no_path_is_refused_at_once(place, paths, problem):
    with pytest.raises(UserError, match=problem):
        checked(Predict, {"paths": paths, "runs": place / "runs"})


def test_a_folder_without_an_image_and_a_run_that_is_not_evaluated(place, tmp_path, predicted):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image; images are DICOM files and PNG"):
        predicted(tmp_path / "empty")
    shutil.copytree(place / "runs", tmp_path / "runs")
    (run,) = list_runs(tmp_path / "runs")
    (run.folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"has not been evaluated; run: python main.py evaluate"):
        predicted(place / "dataset" / "test", runs=tmp_path / "runs")


def test_unlike_images_are_named_as_such_and_like_ones_are_not(place, predicted, tmp_path):
    paths = sorted((place / "dataset" / "test").rglob("*.png"))
    films = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths[:4]]
    folder = tmp_path / "unlike"
    folder.mkdir()
    for name, image in unlike(films).items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    result, lines = predicted(folder)
    flagged = {name for name, line in by_id(lines).items() if line["like_training"] == "no"}
    refused = result.set_aside
    assert len(lines) + refused == 20
    assert len(flagged) + refused >= 18
    inverted = [line["remarks"] for name, line in by_id(lines).items() if "inverted" in name]
    assert sum("inverted" in remarks for remarks in inverted) >= 3
    _, like = predicted(place / "dataset" / "test")
    assert sum(line["like_training"] == "no" for line in like.values()) <= 0.1 * len(like)


def test_what_differs_from_a_film_in_one_way_alone_is_called_unlike(place, predicted, tmp_path):
    paths = sorted((place / "dataset" / "test").rglob("*.png"))
    made = tmp_path / "made"
    made.mkdir()
    for number, path in enumerate(paths[:3]):
        film = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        third = film.shape[1] // 3
        upright = film if film[:, :third].mean() > film[:, -third:].mean() else film[:, ::-1]
        for name, image in unlike_in_one_way(np.ascontiguousarray(upright)).items():
            cv2.imwrite(str(made / f"{name} {number}.png"), image)
    result, lines = predicted(made)
    silent = [name for name, line in by_id(lines).items() if line["like_training"] != "no"]
    assert len(lines) + result.set_aside == 9
    assert not silent


@pytest.mark.slow
def test_what_was_scored_before_is_taken_over_until_the_run_changes(place, predicted, tmp_path):
    images = place / "dataset" / "test"
    first, lines = predicted(images)
    entry = (first.folder / "ledger.jsonl").read_text()
    _, again = predicted(images)
    assert again == lines
    assert (first.folder / "ledger.jsonl").read_text() == entry
    shutil.copytree(place / "runs", tmp_path / "runs")
    (run,) = list_runs(tmp_path / "runs")
    metrics = json.loads((run.folder / "metrics.json").read_text())
    metrics["operating_point"]["threshold"] = 1.0
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    _, other = predicted(images, runs=tmp_path / "runs")
    assert {line["called"] for line in other.values()} == {"benign"}


@pytest.mark.slow
def test_what_other_code_read_is_read_again(place, predicted, tmp_path, monkeypatch):
    images, ledger = place / "dataset" / "test", tmp_path / "predictions" / "ledger.jsonl"
    predicted(images)
    keys = {json.loads(line)["key"] for line in ledger.read_text().splitlines() if line}
    monkeypatch.setattr("models.prediction.stage.reading_code", lambda: "of the next version")
    predicted(images)
    last = json.loads(ledger.read_text().splitlines()[-1])
    assert last["key"] not in keys


def test_where_nothing_can_be_read_every_reason_is_kept(predicted, tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "films" / name).write_bytes(b"\x89PNG, cut off")
    with pytest.raises(UserError, match=r"a\.png: .*; all reasons are in .*set_aside\.csv$"):
        predicted(tmp_path / "films")
    with (tmp_path / "predictions" / "set_aside.csv").open(encoding="utf-8") as file:
        assert [line["what"][-5:] for line in csv.DictReader(file)] == ["a.png", "b.png"]


@pytest.mark.slow
def test_an_ensemble_gives_the_range_of_its_members(place, predicted, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(place / "runs", runs)
    options = {"data": place / "preprocessed", "model": "ResNet18_OPW", "size": 64, "seed": 7,
               "weights": "none", "runs": runs, "workers": 1, "device": "cpu"}  # fmt: skip
    train(checked(Train, options), Silent())
    made = ensemble(checked(Ensemble, {"runs": runs, "workers": 1}), Silent())
    values = {"runs": runs, "run": str(made.folder), "workers": 1, "replicates": 100}
    evaluate(checked(Evaluate, values), Silent())
    _, lines = predicted(place / "dataset" / "test", runs=runs, run=str(made.folder))
    for line in lines.values():
        low, score, high = (float(line[name]) for name in ("low", "probability", "high"))
        assert low <= score <= high
    assert any(line["low"] != line["high"] for line in lines.values())


@interrupts_itself
def test_ctrl_c_keeps_what_was_scored(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["predict", str(place / "dataset"), "--runs", str(place / "runs"), "--workers", "1",
             "--batch"]  # fmt: skip
    ledger = tmp_path / "predictions" / "ledger.jsonl"
    with interrupted_when(lambda: ledger.is_file() and ledger.stat().st_size > 100):
        assert main(words) == 130
    assert "continue with: python main.py predict" in capsys.readouterr().err
    kept = set(ledger.read_text().split("\n"))
    assert main(words) == 0
    assert kept <= set(ledger.read_text().split("\n")), "nothing is scored twice"
    with (tmp_path / "predictions" / "predictions.csv").open(newline="") as file:
        images = [line["image"] for line in csv.DictReader(file)]
    assert len(images) == len(read_manifest(place / "dataset"))


def test_the_command_that_is_printed_names_images_as_words(place):
    options = checked(Predict, {"paths": shlex.join([str(place / "dataset"), str(place / "raw")]),
                                "runs": place / "runs"})  # fmt: skip
    words = shlex.split(command("predict", options))
    at = words.index("predict")
    assert words[at + 1 : at + 3] == [str(place / "dataset"), str(place / "raw")]


def test_an_exported_run_predicts_without_torch(place, predicted, tmp_path):
    exported = tmp_path / "exported"
    export(checked(Export, {"runs": place / "runs", "out": exported}), Silent())
    _, lines = predicted(place / "dataset" / "test")
    words = ["predict", str(place / "dataset" / "test"), "--run", str(exported), "--out",
             str(tmp_path / "out"), "--workers", "1"]  # fmt: skip
    done, said = run_without_torch(*words)
    assert "Not a medical device" in done.stderr
    for line in said["facts"]["predictions"]:
        own = lines[line["image"]]
        assert line["probability"] == pytest.approx(float(own["probability"]), abs=1e-5)
        assert line["like_training"] == own["like_training"]
    # Beside its run it has a name of its own; a run that is named twice is asked once.
    result, _ = predicted(next(iter(place.rglob("test/*/*.png"))), run=f"{exported},latest,latest")
    (run,) = list_runs(place / "runs")
    assert [one["run"] for one in result.facts["predictions"]] == [
        f"{run.name} (exported)",
        run.name,
    ]


@pytest.mark.slow
def test_an_exported_model_with_a_damaged_weight_is_refused(place, predicted, tmp_path):
    folder = tmp_path / "exported"
    export(checked(Export, {"runs": place / "runs", "out": folder}), Silent())
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or not the file that was exported here"):
        predicted(place / "dataset" / "test", run=str(folder))


def test_a_file_that_is_no_exported_model_is_refused(place, predicted, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="is no ONNX model, or is damaged"):
        predicted(place / "dataset" / "test", run=str(tmp_path / "model.onnx"))
