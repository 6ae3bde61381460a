"""The gallery of heat-maps on the page."""

import re

import cv2
import numpy as np

from interface.report.heat_maps import MAP_KINDS, MAP_SCORES
from models.explanation.judging import KINDS
from models.explanation.scores import GROUPS, SCORES
from models.explanation.stage import COLUMNS
from pipeline.records import close_folder, open_folder, read_json, write_json, write_table
from pipeline.stages.explanation import Explain
from tests.interface.report.files import cohort, dataset, page_of, run_folder
from tests.interface.report.test_stage import Page

OUTCOMES = ("TP", "FN", "TN", "FP")


def explained(root):
    """Write a run with heat-maps of four test images, one of each outcome; return their folder."""
    rows = cohort(8)
    run = run_folder(root / "runs", dataset(root, rows), rows)
    folder = run / "explanations"
    open_folder(folder, "explain", Explain())
    lines = []
    tested = [row for row in rows if row.split == "test"]
    for row, outcome in zip(tested, OUTCOMES, strict=True):
        picture = np.full((64, 64, 3), 30, np.uint8)
        picture[10:30, 10:30] = (10, 60, 230)
        cv2.imwrite(str(folder / f"{row.image_id}.png"), picture)
        lines.append((row.image_id, row.patient_id, "LEFT", row.view, row.label, "0.7", outcome,
                      "malignant", f"{row.image_id}.png", 1.0, 2.0, 1.0, 0.2, 0.1,
                      0.9))  # fmt: skip
    write_table(folder / "explanations.csv", COLUMNS, lines)
    figure = {"value": 0.625, "low": 0.5, "high": 0.75}
    scores = {kind: {group: dict.fromkeys(SCORES, figure) for group in GROUPS} for kind in KINDS}
    areas = {"map": figure, "blob": figure}
    write_json(folder / "explanations.json", {
        "method": "gradcam++", "evidence": "called", "images": 4, "drawn": 4, "scored": 4,
        "patients": 2, "tolerance": 0.03, "thresholds": dict.fromkeys(KINDS, 0.5),
        "scores": scores, "leads": {}, "masks_set_aside": 0,
        "checks": {"images": 2, "deletion": areas, "insertion": areas, "mirror": figure,
                   "randomised": [{"unit": "fc", "correlation": 0.875},
                                  {"unit": "conv1", "correlation": 0.125}]},
        "untrained_networks": 3,
        "strata": [{"factor": "density", "level": level, "images": images, "patients": 2,
                    "scores": {kind: dict.fromkeys(SCORES, figure) for kind in KINDS}}
                   for level, images in (("2", 40), ("3", 4))],
    })  # fmt: skip
    close_folder(folder, "explain", Explain(), {}, "abc", 1.0)
    return folder


def test_gallery_has_a_filter_for_each_outcome_and_needs_no_script(tmp_path):
    explained(tmp_path)
    text = page_of(tmp_path).text
    page = Page(text)
    pictures = [one for one in page.all("img") if one.get("alt", "").startswith("Heat-map of")]
    assert len(pictures) == 4
    assert all(one["src"].startswith("data:image/jpeg;base64,") for one in pictures)
    labels = {one["for"] for one in page.all("label")}
    for outcome in OUTCOMES:
        assert f'<li class="of-{outcome}">' in text
        (button,) = (one for one in page.all("input") if one["class"] == f"pick-{outcome}")
        assert button["id"] in labels
        assert f".pick-{outcome}:checked ~ .gallery .of-{outcome}" in text
    assert "<script" not in text
    assert re.search(r"Grad-CAM\+\+ of 4 test images", page.text)
    assert "maps of random weights, from the head on: fc 0.88, conv1 0.12" in page.text
    assert "0.500 to 0.750" in page.text


def test_strata_of_the_scores_are_folded_and_small_ones_say_so(tmp_path):
    explained(tmp_path)
    text = Page(page_of(tmp_path).text).text
    assert "2 strata of the images whose lesions are outlined" in text
    folded = text[text.index("2 strata of") :]
    assert re.search(r"Breast density\s+2\s+40\s+2\s+0.625", folded)
    assert re.search(r"3\s+too few to say anything\s+4\s+2\s+0.625", folded)
    assert "Untrained network: the mean of 3 with random weights" in text


def test_names_of_the_page_are_those_of_the_stage():
    assert MAP_KINDS == KINDS
    assert MAP_SCORES == SCORES


def test_maps_of_an_earlier_version_have_no_pixel_auc_or_strata_and_are_shown(tmp_path):
    folder = explained(tmp_path)
    facts = read_json(folder / "explanations.json")
    for groups in facts["scores"].values():
        for scores in groups.values():
            del scores["pixel_auc"]
    del facts["strata"], facts["untrained_networks"]
    write_json(folder / "explanations.json", facts)
    text = Page(page_of(tmp_path).text).text
    assert "Pointing game" in text
    assert "Pixel AUC" not in text
    assert "whose lesions are outlined" not in text


def test_run_whose_heat_maps_are_damaged_or_unfinished_shows_none(tmp_path):
    folder = explained(tmp_path)
    (folder / "explanations.json").write_text("{")
    assert "Heat-map of" not in page_of(tmp_path).text
    (folder / "stage.json").unlink()
    assert "Heat-map of" not in page_of(tmp_path).text
