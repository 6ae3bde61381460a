"""What the report says of the shortcut probe."""

import cv2
import numpy as np
import pytest

from models.shortcuts.stage import Findings, Sample, Verdict, probe, write_findings
from tests.interface.report.files import cohort, dataset, page_of, run_folder
from tests.interface.report.test_stage import Page

BANNER = "These figures cannot be believed"


@pytest.fixture
def data(tmp_path):
    """The preprocessed dataset of an evaluated run; the organised one lies beside it."""
    rows = cohort(24)
    folder = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", folder, rows)
    return folder


def samples(lying):
    """Films of 20 patients, the malignant ones on their side where asked for."""
    noise = np.random.default_rng(4)
    made = []
    for number in range(40):
        film = noise.integers(0, 90, (192, 120), dtype=np.uint8)
        cv2.ellipse(film, (0, 96), (int(noise.integers(70, 100)), 80), 0, 0, 360, 160, -1)
        malignant = number % 4 > 1
        film = np.ascontiguousarray(film.T) if malignant and lying else film
        label = "malignant" if malignant else "benign"
        made.append(Sample(f"P_{number // 2}", label, *film.shape, film))
    return made


def pictures(page):
    return [item for item in page.all("img") if item["alt"].startswith("The mean image")]


def test_a_warning_stands_in_the_data_with_its_picture_and_at_the_top(data, tmp_path):
    findings = probe(samples(lying=True), 1)
    write_findings(data, findings, samples(lying=True))
    page = Page(page_of(tmp_path).text)
    sentence = findings.warnings()[0].replace("; see shortcuts.png", "")
    assert sentence.startswith("orientation alone predicts the label: AUC")
    assert f"Shortcut probe of the preprocessed images: {sentence}." in page.text
    (picture,) = pictures(page)
    assert picture["src"].startswith("data:image/jpeg;base64,")
    assert BANNER in page.text
    assert "nothing predicts the label" not in page.text


def test_a_quiet_probe_is_one_line(data, tmp_path):
    quiet = Verdict(0.5049, 0.4467, 0.5612, 48, 24)
    findings = Findings(dict.fromkeys(("size", "borders", "orientation", "histogram"), quiet))
    findings = Findings({**findings.groups, "all": quiet})
    for folder in (data, data.parent / "dataset"):
        write_findings(folder, findings, samples(lying=False))
    page = Page(page_of(tmp_path).text)
    line = (
        "nothing predicts the label; the AUC of all features together is 0.505 (95 % interval "
        "0.447 to 0.561)."
    )
    assert page.text.count(f"Shortcut probe: {line}") == 1
    assert not pictures(page)
    assert BANNER not in page.text


def test_what_preprocessing_has_put_right_is_told_but_not_of_the_figures(data, tmp_path):
    write_findings(data.parent / "dataset", probe(samples(True), 1), samples(True))
    write_findings(data, probe(samples(lying=False), 1), samples(lying=False))
    page = Page(page_of(tmp_path).text)
    assert "Shortcut probe of the organised images: orientation alone predicts" in page.text
    assert "Shortcut probe: nothing predicts the label" in page.text
    assert len(pictures(page)) == 1
    assert BANNER not in page.text


def test_no_verdict_says_why(data, tmp_path):
    write_findings(data, probe(samples(lying=True)[:8], 1), [])
    assert (
        "Shortcut probe: no verdict, too few patients (2 benign, 2"
        in Page(page_of(tmp_path).text).text
    )


@pytest.mark.parametrize("text", ["[1]", "{", '{"warnings": []}', '{"warnings": 3}', "null"])
def test_a_broken_file_is_said_to_be_one(data, tmp_path, text):
    (data / "shortcuts.json").write_text(text)
    assert f"{data / 'shortcuts.json'} cannot be read" in Page(page_of(tmp_path).text).text


def test_without_a_probe_nothing_is_said(data, tmp_path):
    assert data.is_dir()
    assert "Shortcut probe" not in Page(page_of(tmp_path).text).text
