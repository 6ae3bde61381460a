"""What lies beside the images: masks, folds, notes, sheets, summary; and pseudonyms."""

import csv
import json
import re
import shutil
from collections import Counter

import cv2
import numpy as np
import pydicom
import pytest

from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.data import Organize
from tests.organize_data.reading import case_rows, contents, dicom_of, film_of, run, series_of


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_masks_are_1_bit_and_have_the_size_and_place_of_their_mammogram(collection, whole):
    masks = table(whole.folder / "masks.csv")
    lines = {(film_of(x), f"mass {x['abnormality id']}"): x for x in case_rows(collection, "mass")}
    assert {(mask["image_id"], mask["abnormality"]) for mask in masks} == lines.keys()
    rows = {row.image_id: row for row in read_manifest(whole.folder)}
    for mask in masks:
        content = (whole.folder / mask["path"]).read_bytes()
        assert content[24:26] == b"\x01\x00"  # bit depth 1, greyscale: ISO/IEC 15948, 11.2.1
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) > 0
        row = rows[mask["image_id"]]
        assert image.shape == (row.height, row.width)
        assert int(mask["area"]) == np.count_nonzero(image) > 0
        line = lines[mask["image_id"], mask["abnormality"]]
        source = dicom_of(collection, series_of(line, "ROI mask file path"), bits=8)
        pixels = pydicom.dcmread(source).pixel_array
        assert (int(mask["rows"]), int(mask["columns"])) == pixels.shape
        if mask["fit"] == "same size":
            np.testing.assert_array_equal(image, pixels > 0)
        else:  # the lesion lies where it lay, as a share of each side
            for axis in (0, 1):
                centres = [np.nonzero(x)[axis].mean() / x.shape[axis] for x in (image, pixels)]
                assert centres[0] == pytest.approx(centres[1], abs=0.01)
    assert Counter(mask["fit"] for mask in masks).keys() > {"same size"}
    assert whole.facts["masks"]["written"] == len(masks)


def test_masks_can_be_left_alone(collection, tmp_path):
    result = run(collection, tmp_path / "dataset", masks=False)
    assert not (tmp_path / "dataset" / "masks").exists()
    assert not (tmp_path / "dataset" / "masks.csv").exists()
    assert result.facts["masks"] == {"written": 0}


def test_a_lost_mask_is_set_aside_and_a_download_without_any_is_noted(copy, tmp_path):
    line = case_rows(copy, "mass")[0]
    dicom_of(copy, series_of(line, "ROI mask file path"), bits=8).unlink()
    result = run(copy, tmp_path / "one")
    (lost,) = table(tmp_path / "one" / "set_aside.csv")
    assert lost["what"] == f"mask of {film_of(line)}, mass {line['abnormality id']}"
    assert lost["reason"].startswith("missing: no mask in series")
    assert result.facts["without_file"] == 0
    for path in copy.rglob("*.dcm"):
        if pydicom.dcmread(path, stop_before_pixels=True).BitsAllocated == 8:
            path.unlink()
    result = run(copy, tmp_path / "none")
    assert result.set_aside == 0
    assert "the download holds no masks" in result.notes


def test_8_bit_images_have_the_pixels_of_the_16_bit_ones(collection, whole, tmp_path):
    run(collection, tmp_path / "dataset", depth="8")
    for row in read_manifest(tmp_path / "dataset")[:4]:
        shallow, deep = (
            cv2.imread(str(folder / row.path), cv2.IMREAD_UNCHANGED)
            for folder in (tmp_path / "dataset", whole.folder)
        )
        assert shallow.dtype == np.uint8
        assert np.abs(shallow - deep / 257).max() <= 0.5


def test_every_split_and_class_has_a_page_of_thumbnails(whole):
    for split, counts in whole.facts["splits"].items():
        for label in ("benign", "malignant"):
            page = whole.folder / "contact_sheets" / f"{split}_{label}.png"
            assert page.is_file() == (counts[label] > 0)
    assert min(cv2.imread(str(page)).shape[:2]) > 100


def test_the_summary_holds_the_cohort_and_its_warnings(whole):
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert summary["splits"] == whole.facts["splits"]
    assert summary["collection"]["case_descriptions"]["mass train"]["rows"] > 0
    assert summary["warnings"] == list(whole.notes)
    assert summary["shortcuts"]["warnings"] == []


def test_what_contradicts_itself_is_listed(collection, tmp_path):
    run(collection, tmp_path / "dataset", finding="both")
    notes = {line["what"]: line["note"] for line in table(tmp_path / "dataset" / "notes.csv")}
    undescribed = {
        path.relative_to(collection).as_posix()
        for path in collection.rglob("*.dcm")
        if "SeriesDescription" not in pydicom.dcmread(path, stop_before_pixels=True)
    }
    named = {what for what, note in notes.items() if "has no SeriesDescription" in note}
    assert named == undescribed != set()
    assert "its CSV has crop and mask in each other's column" in notes.values()


def test_a_header_that_says_another_side_is_listed_and_the_csv_followed(copy, whole, tmp_path):
    row = read_manifest(whole.folder)[0]
    path = dicom_of(copy, row.source_id)
    data = pydicom.dcmread(path)
    data.Laterality = {"LEFT": "R", "RIGHT": "L"}[row.laterality]
    data.save_as(path)
    run(copy, tmp_path / "dataset")
    assert read_manifest(tmp_path / "dataset") == read_manifest(whole.folder)
    notes = [x["note"] for x in table(tmp_path / "dataset" / "notes.csv")]
    assert any(f"its CSV {row.laterality}; the CSV is followed" in note for note in notes)


def test_folds_part_the_training_patients_and_go_when_not_wanted(collection, tmp_path):
    run(collection, tmp_path / "dataset", folds=3)
    rows = read_manifest(tmp_path / "dataset")
    folds = {x["patient_id"]: x["fold"] for x in table(tmp_path / "dataset" / "folds.csv")}
    assert folds.keys() == {row.patient_id for row in rows if row.split != "test"}
    assert set(folds.values()) == {"1", "2", "3"}
    run(collection, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / "folds.csv").exists()
    with pytest.raises(UserError, match=r"--folds 50: there are only \d+ patients"):
        run(collection, tmp_path / "dataset", folds=50)


# --- the leak guard


def test_the_same_pixels_in_two_splits_stop_it_until_one_is_left_out(copy, whole, tmp_path):
    rows = read_manifest(whole.folder)
    test, train = (next(row for row in rows if row.split == split) for split in ("test", "train"))
    data = pydicom.dcmread(dicom_of(copy, test.source_id))
    data.SeriesInstanceUID = train.source_id
    data.save_as(dicom_of(copy, train.source_id))
    out = tmp_path / "dataset"
    with pytest.raises(UserError, match="the same pixels in two splits") as stopped:
        run(copy, out)
    assert test.image_id in str(stopped.value)
    assert train.image_id in str(stopped.value)
    assert not (out / "stage.json").exists()
    leaks = table(out / "leaks.csv")
    assert {leak["image_id"] for leak in leaks} == {test.image_id, train.image_id}
    assert {leak["same_pixels"] for leak in leaks} == {"1"}
    unfit = tmp_path / "unfit.txt"
    unfit.write_text(train.image_id)
    run(copy, out, exclude=unfit)
    assert not (out / "leaks.csv").exists()
    assert train.image_id not in {row.image_id for row in read_manifest(out)}


# --- pseudonyms


def test_pseudonyms_leave_no_id_behind_and_are_the_same_each_time(
    collection, whole, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the key lies in the workspace
    (tmp_path / "raw").symlink_to(collection)
    copy = shutil.copytree(collection, tmp_path / "broken")
    line = case_rows(copy, "mass")[0]
    damaged = dicom_of(copy, series_of(line, "image file path"))
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    out = tmp_path / "dataset"
    run(copy, out, check=True)  # which names patients
    run(tmp_path / "raw", out)  # an open one in the same folder, first
    run(copy, out, pseudonymize=True, folds=2)
    for path in out.rglob("*"):
        assert not re.search(r"P_\d{5}", path.name)
        if path.is_file() and path.suffix != ".png":
            text = path.read_text().replace("2.25.", "")
            assert not re.search(r"P_\d{5}", text), path.name
            # Folders end in five digits of public UIDs, and begin with the date of the study.
            assert not re.search(r"-\d{5}\b|07-20-2016|images", text) or path.suffix == ".json"
            assert line["image file path"].split("/")[2].removeprefix("2.25.") not in text
    rows, plain = read_manifest(out), read_manifest(whole.folder)
    kept = [row for row in plain if row.image_id != film_of(line)]
    assert sorted(row.label for row in rows) == sorted(row.label for row in kept)
    assert len({row.patient_id for row in rows}) == len({row.patient_id for row in kept})
    with pytest.raises(UserError, match="holds a pseudonymized dataset, and the check names"):
        run(copy, out, check=True)
    unfit = tmp_path / "unfit.txt"
    unfit.write_text(rows[0].image_id)
    fewer = run(copy, tmp_path / "fewer", pseudonymize=True, exclude=unfit)
    assert fewer.facts["images"] == len(rows) - 1
    again = tmp_path / "again"
    run(copy, again, pseudonymize=True, folds=2)
    assert contents(again) == contents(out)
    assert (tmp_path / ".mammolab" / "pseudonym.key").stat().st_mode & 0o777 == 0o600


# --- before it starts


def test_a_disk_that_is_too_small_is_refused_and_nothing_is_written(
    collection, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=500_000))
    with pytest.raises(UserError, match=r"has 500 kB free, but \d+ mammograms need up to \d+ kB"):
        run(collection, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


class Told(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_it_says_how_much_there_is_to_do(collection, tmp_path):
    told = Told()
    organize(Organize(source=collection, out=tmp_path / "dataset", workers=1), told)
    assert re.fullmatch(
        r"To write: \d+ mammograms need up to .* free, from .* of files\.", told.lines[0]
    )
    assert told.lines[1] == "It will take less than a minute."
    organize(Organize(source=collection, out=tmp_path / "dataset", workers=1), told)
    assert len(told.lines) == 2
