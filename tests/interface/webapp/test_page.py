"""The page as a person meets it, without a browser: what is drawn for what was dropped on it."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from streamlit.testing.v1 import AppTest

from interface.screen import NOTICE
from interface.webapp.about import facts_of
from interface.webapp.server import PAGE
from models.prediction.stage import predict
from pipeline.errors import UserError
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.runs import list_runs
from pipeline.stages.prediction import Predict
from tests.interface.webapp.conftest import bomb, photo

BINARY = "application/octet-stream"


@pytest.fixture
def open_page(place, monkeypatch):
    """Open the page for another person at each call."""
    monkeypatch.delenv("MAMMOLAB_PASSWORD", raising=False)

    def start(runs=place / "runs"):
        monkeypatch.setattr(sys, "argv", [str(PAGE), str(runs), str(list_runs(runs)[0].folder)])
        page = AppTest.from_file(str(PAGE), default_timeout=60)
        return page.run()

    return start


def drop(page, *files):
    """Drop files, paths or pairs of name and content, in place of what lies there."""
    pairs = [(f.name, f.read_bytes()) if isinstance(f, Path) else f for f in files]
    page.file_uploader[0].set_value([(name, content, BINARY) for name, content in pairs])
    page.run()
    assert not page.exception
    return page


def html(page):
    return " ".join(one.proto.body for one in page.get("html"))


def errors(page):
    return [one.value.replace("\\", "") for one in page.error]


def test_the_empty_page_says_what_it_is_not_and_what_the_model_is(open_page):
    page = open_page()
    assert not page.exception
    assert NOTICE in html(page)
    told = " ".join(one.value for one in page.markdown)
    for question in ("How does it work?", "What was it trained on?", "What must it not be used"):
        assert question in told
    assert "Synthetic films" in told
    assert "Diagnosis, screening, triage" in told
    assert "Its layers hold random weights and were not trained; only a logistic regression" in told


def test_a_film_gets_the_prediction_of_the_stage(open_page, place, dicom, picture, tmp_path):
    paths = f"{str(dicom)!r} {str(picture)!r}"
    options = checked(Predict, {"paths": paths, "runs": place / "runs", "out": tmp_path / "out"})
    wanted = [float(line["probability"]) for line in
              predict(options, Silent()).facts["predictions"]]  # fmt: skip
    page = drop(open_page(), dicom, ("film.png", picture.read_bytes()))
    for probability in wanted:
        assert f"<td>{probability:.2f}</td>" in html(page)


def test_the_result_is_said_in_plain_words(open_page, picture):
    page = drop(open_page(), picture)
    told = html(page).replace("&#x27;", "'")
    assert "calibrated probability of malignancy" in told
    assert "chosen on validation images for the highest sum of sensitivity and specificity" in told
    assert "Test AUC 0." in told
    assert "95 % interval" in told
    assert "patients" in told
    assert page.slider(key=f"heat {page.session_state['film']}").value > 0


def test_a_photograph_is_called_unlike_and_its_probability_meaningless(open_page):
    page = drop(open_page(), ("holiday.jpg", photo()))
    told = html(page)
    assert "Unlike the images of the training." in told
    assert "in colour" in told
    assert "The probability means nothing here." in told
    assert "Called" not in told
    assert not [one for one in page.slider if one.label == "Heat-map"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("note.dcm", b"a *text* file\n" * 50, "note.dcm: is a text file, not DICOM"),
        ("empty.png", b"", "empty.png: is empty"),
        ("torn.jpg", b"\xff\xd8\xff\xe0 torn", "torn.jpg: cannot be decoded"),
        ("bomb.png", bomb(), "bomb.png: has more than 178 million pixels"),
        ("series.zip", b"PK\x03\x04 and so on", "series.zip: is a zip file; unpack it"),
        ("<img src=x>.png", b"nothing", "<img src=x>.png: cannot be decoded"),
    ],
)
def test_what_cannot_be_read_is_answered_in_one_line(open_page, name, content, reason):
    (error,) = errors(drop(open_page(), (name, content)))
    assert error.startswith(reason)
    assert "\n" not in error


def test_a_deflated_file_is_refused_before_it_is_unpacked(open_page, dicom):
    file, data = io.BytesIO(), pydicom.dcmread(dicom)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(file)
    (error,) = errors(drop(open_page(), ("film.dcm", file.getvalue())))
    assert "deflated" in error


def test_a_file_that_cannot_be_read_does_not_keep_the_others_away(open_page, picture):
    page = drop(open_page(), picture, ("note.dcm", b"text\n" * 100))
    assert len(errors(page)) == 1
    assert "calibrated probability" in html(page)


def test_a_film_without_a_breast_is_shown_and_not_scored(open_page):
    black = cv2.imencode(".png", np.zeros((600, 400), np.uint8))[1].tobytes()
    page = drop(open_page(), ("black.png", black))
    assert len(errors(page)) <= 1
    assert "Called malignant" not in html(page)


def test_names_and_birthdays_of_headers_are_not_shown(open_page, dicom):
    file, data = io.BytesIO(), pydicom.dcmread(dicom)
    data.PatientName, data.PatientBirthDate, data.PatientID = "Doe^Jane", "19531224", "ID-4711"
    data.save_as(file)
    page = drop(open_page(), ("film.dcm", file.getvalue()))
    everything = html(page) + " ".join(str(one) for one in page)
    seen = re.sub("base64,[^']+", "", everything)  # pictures may spell anything
    assert "calibrated probability" in seen
    for secret in ("Doe", "Jane", "19531224", "4711"):
        assert secret not in seen


def test_two_people_see_only_their_own(open_page, dicom, picture):
    one, other = open_page(), open_page()
    drop(one, ("mine.dcm", dicom.read_bytes()))
    drop(other, ("yours.png", picture.read_bytes()))
    one.run()
    for page, name in ((one, "mine.dcm"), (other, "yours.png")):
        (upload,) = page.session_state["uploads"].values()
        assert upload.file.name == name
        assert html(page).count("calibrated probability") == 1


def test_films_of_one_name_are_told_apart(open_page, picture):
    page = drop(open_page(), *[("1-1.png", picture.read_bytes())] * 3)
    assert page.selectbox(key="film").options == ["1-1.png", "1-1 (2).png", "1-1 (3).png"]


def test_each_film_can_be_looked_at(open_page, dicom, picture):
    page = drop(open_page(), ("a.dcm", dicom.read_bytes()), ("b.png", picture.read_bytes()))

    def shown():
        (figure,) = re.findall("<figure.*?</figure>", html(page))
        return figure

    newest = shown()
    page.selectbox(key="film").select_index(0).run()
    assert not page.exception
    assert shown() != newest
    covered = shown()
    page.slider(key=f"heat {page.session_state['film']}").set_value(0).run()
    assert "with a heat-map" in covered
    assert "with a heat-map" not in shown()


def test_a_film_that_is_taken_away_is_gone(open_page, picture):
    page = drop(open_page(), picture)
    assert len(page.session_state["uploads"]) == 1
    page.file_uploader[0].set_value(None)
    page.run()
    assert page.session_state["uploads"] == {}
    assert "calibrated probability" not in html(page)


def test_another_run_can_be_chosen(open_page, place, tmp_path, picture):
    (run,) = list_runs(place / "runs")
    for name in ("20260101-000000-1", "20260102-000000-2"):
        shutil.copytree(run.folder, tmp_path / "runs" / run.model / name)
    page = drop(open_page(tmp_path / "runs"), picture)
    choice = page.selectbox(key="run")
    assert len(choice.options) == 2
    choice.select_index(1).run()
    assert not page.exception
    assert "calibrated probability" in html(page)


@pytest.fixture
def two_runs(place, tmp_path):
    """A folder with two copies of the run; the page begins with the newer one."""
    (run,) = list_runs(place / "runs")
    for name in ("20260101-000000-1", "20260102-000000-2"):
        shutil.copytree(run.folder, tmp_path / "runs" / run.model / name)
    return tmp_path / "runs"


@pytest.mark.parametrize("gone", [0, 1])
def test_where_the_chosen_run_is_gone_the_other_answers_and_the_page_says_so(
    open_page, two_runs, picture, gone
):
    page = drop(open_page(two_runs), picture)
    page.selectbox(key="run").select_index(gone).run()
    first, second = list_runs(two_runs)
    chosen, other = (first, second) if gone == 0 else (second, first)
    shutil.rmtree(chosen.folder)
    page.run()
    assert not page.exception
    assert errors(page) == [f"{chosen.name} is gone from this machine: {other.name} answers now."]
    assert "calibrated probability" in html(page)


def test_an_ensemble_whose_member_is_gone_says_so(two_runs):
    one, _ = list_runs(two_runs)
    facts = json.loads((one.folder / "model.json").read_text())
    (one.folder / "model.json").write_text(
        json.dumps(facts | {"members": ["../20250101-000000-9"]})
    )
    with pytest.raises(
        UserError, match=r"its member ResNet18_OPW/20250101-000000-9 is gone; choose"
    ):
        facts_of(one)


def test_where_all_runs_are_gone_the_page_says_what_to_do(open_page, two_runs):
    page = open_page(two_runs)
    for run in list_runs(two_runs):
        shutil.rmtree(run.folder)
    page.run()
    (error,) = errors(page)
    assert "holds no finished run; run: python main.py train" in error


def test_the_first_view_can_be_had_again(open_page, picture):
    page = drop(open_page(), picture)

    def buttons():
        return [one for one in page.button if one.label == "Reset view"]

    def sliders():
        return {one.label: one.value for one in page.slider}

    first = sliders()
    assert not buttons()
    for label, value in (("Window level", 100.0), ("Window width", 0.1), ("Zoom", 8.0)):
        (slider,) = [one for one in page.slider if one.label == label]
        slider.set_value(value).run()
    assert sliders()["Zoom"] == 8
    buttons()[0].click().run()
    assert not page.exception
    assert sliders() == first
    assert not buttons()


def test_a_run_that_is_damaged_is_said_in_one_line(open_page, place, tmp_path, picture):
    shutil.copytree(place / "runs", tmp_path / "runs")
    (weights,) = (tmp_path / "runs").glob("*/*/weights.safetensors")
    weights.write_bytes(b"torn")
    (error,) = errors(drop(open_page(tmp_path / "runs"), picture))
    assert "weights.safetensors: cannot be read" in error


def test_the_password_is_asked_for_and_nothing_is_shown_before_it(open_page, monkeypatch):
    page = open_page()
    monkeypatch.setenv("MAMMOLAB_PASSWORD", "sesame")
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.get("file_uploader")
    assert NOTICE in html(page)
    page.text_input[0].set_value("simsim")
    page.button[0].click().run()
    assert errors(page) == ["Wrong password."]
    assert not page.get("file_uploader")
    page.text_input[0].set_value("sesame")
    page.button[0].click().run()
    assert page.get("file_uploader")


def test_lines_of_the_csv_are_those_of_the_stage(place, picture, tmp_path):
    from images.archives import MemoryFile
    from interface.webapp.films import answer, read_upload
    from interface.webapp.wording import as_csv, line_of
    from models.prediction.predictor import open_predictor

    predictor = open_predictor(place / "runs", "latest")
    files = [MemoryFile("=1+1.png", picture.read_bytes()), MemoryFile("b.jpg", photo())]
    lines = [line_of(read_upload(one), answer(one, predictor).said, predictor) for one in files]
    film, unlike = csv.DictReader(io.StringIO(as_csv(lines)))
    options = {"paths": str(picture), "runs": place / "runs", "out": tmp_path / "out"}
    predict(checked(Predict, options), Silent())
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        (wanted,) = csv.DictReader(file)
    assert film["image"] == "'=1+1.png"  # a spreadsheet computes nothing
    assert float(film["probability"]) == pytest.approx(float(wanted["probability"]), abs=1e-5)
    assert {name: film[name] for name in ("run", "called", "height", "width")} == {
        name: wanted[name] for name in ("run", "called", "height", "width")
    }
    assert unlike["like_training"] == "no"
    assert "in colour" in unlike["remarks"]
