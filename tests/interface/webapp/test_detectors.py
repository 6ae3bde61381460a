"""The page with anomaly detectors: alone, and as a second opinion beside a classifier."""

import csv
import io
import json
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from interface.screen import NOTICE
from interface.webapp.choosing import second_opinion
from interface.webapp.server import PAGE
from models.prediction.stage import predict
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.runs import find_run
from pipeline.stages.prediction import Predict
from tests.interface.webapp.conftest import photo
from tests.interface.webapp.test_page import drop, errors, html
from tests.models.prediction.workspace import make_detectors


@pytest.fixture(scope="session")
def runs(once, place):
    """A classifier, a CAE and PatchCore; not to be written to."""
    return once("detected", lambda folder: make_detectors(place, folder))


@pytest.fixture
def open_page(runs, monkeypatch):
    """Open the page with a model's run chosen."""
    monkeypatch.delenv("MAMMOLAB_PASSWORD", raising=False)

    def start(model, runs=runs):
        monkeypatch.setattr(sys, "argv", [str(PAGE), str(runs), str(find_run(runs, model).folder)])
        return AppTest.from_file(str(PAGE), default_timeout=60).run()

    return start


@pytest.fixture
def said_of(runs, picture, tmp_path):
    """What the stage says of the picture."""

    def run(model):
        values = {"paths": str(picture), "run": model, "runs": runs, "out": tmp_path / "out",
                  "heat_maps": "none", "workers": 1}  # fmt: skip
        (line,) = predict(checked(Predict, values), Silent()).facts["predictions"]
        return line

    return run


@pytest.mark.parametrize("model", ["CAE", "PatchCore"])
def test_a_detector_says_how_far_above_normal_images_a_film_is(open_page, said_of, picture, model):
    wanted = said_of(model)
    page = drop(open_page(model), picture)
    told = html(page)
    words = re.sub("<[^>]*>", " ", told)
    assert NOTICE in words
    assert f"<div class='number'>{abs(wanted['z']):.1f}<small>standard deviations " in told
    called = wanted["called"].capitalize()
    assert f"{called}: its error is " in words
    assert "mean + 2 sd of normal images" in words
    assert "Normal here: benign images" in words
    assert "not how likely a disease is" in words
    assert "class='bar'" in told
    assert "probability" not in words
    assert "malignant." not in words
    assert "with a heat-map over it" in told
    assert page.slider(key=f"heat {page.session_state['film']}").value > 0


def test_the_questions_about_a_detector_are_answered_for_it(open_page):
    for model, how in (("CAE", "restores the film"), ("PatchCore", "compares each patch")):
        told = " ".join(one.value for one in open_page(model).markdown)
        assert how in told
        assert "It learnt from normal images alone" in told
        assert "probabilit" not in told


def test_beside_a_classifier_the_newest_detector_has_a_second_opinion(
    open_page, said_of, picture, runs
):
    wanted = said_of("PatchCore")
    page = drop(open_page("ResNet18_OPW"), picture)
    told = html(page)
    assert "calibrated probability of malignancy" in told
    (second,) = re.findall("<section class='second'>.*?</section>", told)
    assert f"by {find_run(runs, 'PatchCore').name}" in second
    assert f"{abs(wanted['z']):.1f} standard deviations" in second
    assert wanted["called"].capitalize() in second
    assert "How sure is it? Test AUC 0." in second
    assert told.index("class='result") < told.index("class='second'")
    choice = page.radio(key=f"map {page.session_state['film']}")
    assert choice.options == ["evidence of malignancy", "errors beyond those of normal images"]

    def shown():
        return re.findall("<figure.*?</figure>", html(page))[0]

    before = shown()
    choice.set_value(choice.options[1]).run()
    assert not page.exception
    assert shown() != before
    assert "larger errors" in shown()


def test_the_csv_has_what_both_say(runs, picture):
    from images.archives import MemoryFile
    from interface.webapp.films import answer, read_upload
    from interface.webapp.wording import as_csv, line_of
    from models.prediction.predictor import open_predictor

    file = MemoryFile("a.png", picture.read_bytes())
    known = [open_predictor(runs, name) for name in ("ResNet18_OPW", "CAE")]
    lines = [line_of(read_upload(file), answer(file, one).said, one) for one in known]
    classifier, detector = csv.DictReader(io.StringIO(as_csv(lines)))
    assert classifier["probability"]
    assert not classifier["z"]
    assert detector["z"]
    assert not detector["probability"]
    assert detector["called"] in ("anomalous", "not anomalous")


def test_several_films_are_listed_with_both_opinions(open_page, picture, dicom):
    page = drop(open_page("ResNet18_OPW"), dicom, ("film.png", picture.read_bytes()))
    (table,) = re.findall("<table class='session'>.*?</table>", html(page))
    for title in ("Film", "Probability", "Called", "Second opinion, sd above normal"):
        assert f"<th scope='col'>{title}</th>" in table
    assert len(re.findall("anomalous</td>", table)) == 2


def test_of_a_photograph_a_detector_s_score_means_nothing_either(open_page):
    told = html(drop(open_page("CAE"), ("holiday.jpg", photo())))
    assert "Unlike the images of the training." in told
    assert "The score means nothing here." in told
    assert "probability" not in told
    assert "Anomalous" not in told


def test_what_two_runs_meet_with_is_said_once(open_page):
    black = cv2.imencode(".png", np.zeros((600, 400), np.uint8))[1].tobytes()
    (error,) = errors(drop(open_page("ResNet18_OPW"), ("black.png", black)))
    assert error == "black.png: no breast can be found in it"


def test_what_is_unlike_the_training_is_said_in_a_sentence(open_page, runs, picture, tmp_path):
    mine = tmp_path / "runs"
    shutil.copytree(runs, mine)
    path = find_run(mine, "ResNet18_OPW").folder / "domain.json"
    known = json.loads(path.read_text())
    known["limits"]["features"] = -1.0
    path.write_text(json.dumps(known))
    told = html(drop(open_page("ResNet18_OPW", mine), picture))
    assert "This image shows the network something that it was not trained on." in told


def test_a_detector_of_other_data_has_no_opinion(runs, tmp_path):
    mine = tmp_path / "runs"
    shutil.copytree(runs, mine)
    classifier = find_run(mine, "ResNet18_OPW")
    assert second_opinion(mine, classifier).model == "PatchCore"
    assert second_opinion(mine, find_run(mine, "CAE")) is None
    path = find_run(mine, "PatchCore").folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_hash": "other"}))
    assert second_opinion(mine, classifier).model == "CAE"
    (find_run(mine, "CAE").folder / "metrics.json").unlink()
    assert second_opinion(mine, classifier) is None


def test_a_damaged_detector_leaves_the_classifier_its_answer(open_page, runs, tmp_path, picture):
    mine = tmp_path / "runs"
    shutil.copytree(runs, mine)
    (find_run(mine, "PatchCore").folder / "weights.safetensors").write_bytes(b"torn")
    page = drop(open_page("ResNet18_OPW", mine), picture)
    (error,) = errors(page)
    assert "weights.safetensors: cannot be read" in error
    assert "calibrated probability" in html(page)
    assert "class='second'" not in html(page)
