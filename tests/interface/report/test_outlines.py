"""The outlines of lesions in the sample predictions."""

import base64
import dataclasses
import re

import cv2
import numpy as np
import pytest

from images.files import write_png
from pipeline import manifest
from pipeline.records import write_table
from tests.interface.report.files import cohort, dataset, page_of, run_folder
from tests.interface.report.test_stage import Page

# The window that each preprocessed image of 96 pixels shows of its film, mirrored.
CROP = {"crop_x": 100, "crop_y": 40, "crop_width": 192, "crop_height": 192, "scale": 0.5,
        "mirrored": 1}  # fmt: skip


def made(root, masked, synthetic=False, films=True):
    """Return the page on a run whose named test images have masks, as organize writes them."""
    rows = cohort(8)
    data = dataset(root, rows, synthetic=synthetic)
    shape, box = (96, 96), (slice(20, 50), slice(60, 80))
    if films:  # the lesion of above in the film's pixels
        manifest.write_manifest(data, [dataclasses.replace(row, **CROP) for row in rows])
        shape, box = (400, 500), (slice(80, 140), slice(132, 172))
    lines = []
    for image_id in masked:
        mask = np.zeros(shape, bool)
        mask[box] = True
        name = f"masks/{image_id}_mass_1.png"
        (root / "dataset" / "masks").mkdir(exist_ok=True)
        write_png(root / "dataset" / name, mask)
        lines.append((image_id, name))
    if masked:
        write_table(root / "dataset" / "masks.csv", ("image_id", "path"), lines)
    run_folder(root / "runs", data, rows)
    return Page(page_of(root).text)


def thumbnails(page):
    """Return by image ("P_00003 LEFT CC") what its thumbnail shows, (96, 96, 3), and its text."""
    found = {}
    for item in page.all("img"):
        if match := re.match(r"(P_\d+ LEFT \w+): ", item.get("alt", "")):
            content = base64.b64decode(item["src"].partition(",")[2])
            found[match[1]] = cv2.imdecode(np.frombuffer(content, np.uint8), 1), item["alt"]
    return found


def yellow(picture):
    """Return where a picture is yellow: (left, top, right, bottom), or None."""
    blue, green, red = np.moveaxis(picture.astype(int), 2, 0)
    places = np.argwhere((red > 170) & (green > 120) & (blue < 110))
    return (*places.min(axis=0)[::-1], *places.max(axis=0)[::-1]) if len(places) else None


@pytest.mark.parametrize("films", [True, False])
def test_outline_lies_where_the_mask_does_in_the_film(tmp_path, films):
    page = made(tmp_path, ["I_00003_CC"], films=films)
    picture, told = thumbnails(page)["P_00003 LEFT CC"]
    assert picture.shape == (96, 96, 3)
    assert yellow(picture) == pytest.approx((60, 20, 79, 49), abs=1)
    assert told.endswith("; 1 lesion outlined")


def test_image_without_a_mask_has_no_outline_and_the_legend_says_so(tmp_path):
    page = made(tmp_path, ["I_00003_CC"])
    picture, told = thumbnails(page)["P_00003 LEFT MLO"]
    assert yellow(picture) is None
    assert "outlined" not in told
    assert "Outline of a lesion: the radiologist's mark in the collection" in page.text
    assert "Without a line there is no mask." in page.text


def test_page_without_masks_does_not_speak_of_outlines(tmp_path):
    page = made(tmp_path, [])
    assert all(yellow(picture) is None for picture, _ in thumbnails(page).values())
    assert "Outline" not in page.text


def test_outlines_of_drawn_lesions_are_no_radiologists(tmp_path):
    names = [f"I_0000{number}_{view}" for number in (3, 7) for view in ("CC", "MLO")]
    page = made(tmp_path, names, synthetic=True)
    assert "Outline of a lesion: the mask that the program drew" in page.text
    assert "radiologist's mark" not in page.text
    assert "Without a line" not in page.text


@pytest.mark.parametrize("name", ["masks/I_00003_CC_mass_1.png", "masks.csv"])
def test_damaged_mask_costs_its_outline_alone(tmp_path, name):
    made(tmp_path, ["I_00003_CC"])
    (tmp_path / "dataset" / name).write_bytes(b"\x89PNG broken")
    page = Page(page_of(tmp_path).text)
    picture, _ = thumbnails(page)["P_00003 LEFT CC"]
    assert picture.std() > 5
    assert yellow(picture) is None
