import csv
import json
import shutil
from collections import defaultdict

import cv2
import numpy as np
import pydicom
import pytest

from images.files import read_image
from pipeline.manifest import read_manifest
from pipeline.records import read_record
from tests.organize_data.reading import (
    REAL,
    case_rows,
    contents,
    dicom_of,
    film_of,
    needs_real,
    run,
    series_of,
    set_aside,
)


def test_mammograms_are_those_of_the_csvs(collection, whole):
    films = defaultdict(list)
    for line in case_rows(collection, "mass"):
        films[film_of(line)].append(line)
    rows = {row.image_id: row for row in read_manifest(whole.folder)}
    assert rows.keys() == films.keys()
    for name, lines in films.items():
        row = rows[name]
        malignant = any(line["pathology"] == "MALIGNANT" for line in lines)
        assert row.label == ("malignant" if malignant else "benign")
        assert (row.split == "test") == (lines[0]["split"] == "test")
        assert row.patient_id == lines[0]["patient_id"]
        assert row.source_id == series_of(lines[0], "image file path")
        assert sorted(row.pathology.split("|")) == sorted(line["pathology"] for line in lines)
        assert (row.lesions, row.density) == (len(lines), int(lines[0]["breast_density"]))
        assert (row.unit, row.finding) == ("mammogram", "mass")
    assert whole.set_aside == 0


def test_images_are_16_bit_png_with_the_pixels_of_their_series(collection, whole):
    for row in read_manifest(whole.folder)[:4]:
        path = whole.folder / row.path
        assert path.parts[-3:-1] == (row.split, row.label)
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        source = pydicom.dcmread(dicom_of(collection, row.source_id))
        assert image.dtype == np.uint16
        assert image.shape == (row.height, row.width)
        np.testing.assert_array_equal(image, source.pixel_array)


def test_crops_are_those_of_the_csvs_and_never_masks(collection, tmp_path):
    out = tmp_path / "dataset"
    run(collection, out, unit="crop", finding="calc")
    lines = {
        f"{film_of(line)}_calc_{line['abnormality id']}": line
        for line in case_rows(collection, "calc")
    }
    rows = {row.image_id: row for row in read_manifest(out)}
    assert rows.keys() == lines.keys()
    for name, line in lines.items():
        # One row of the collection has the two columns exchanged.
        columns = ("cropped image file path", "ROI mask file path")
        source = dicom_of(collection, {series_of(line, column) for column in columns})
        pixels = pydicom.dcmread(source).pixel_array
        np.testing.assert_array_equal(read_image(out / rows[name].path), pixels)
        assert rows[name].unit == "crop"
        assert rows[name].pathology == line["pathology"]


def test_the_count_in_the_result_is_that_of_the_files(whole):
    total = 0
    for split, counts in whole.facts["splits"].items():
        for label in ("benign", "malignant"):
            files = list((whole.folder / split / label).glob("*.png"))
            assert len(files) == counts[label]
            total += len(files)
        patients = {path.name[:7] for path in (whole.folder / split).rglob("*.png")}
        assert len(patients) == counts["patients"]
    assert whole.facts["images"] == total
    assert whole.tables[0].rows[0][0] == "train"
    assert (whole.next_stage, whole.next_options) == ("preprocess", {"data": whole.folder})
    record = read_record(whole.folder, "organize")
    assert record["counts"]["splits"] == whole.facts["splits"]
    answers = json.loads((whole.folder / "answers.json").read_text(encoding="utf-8"))
    assert answers["stages"][0]["stage"] == "organize"


def test_pooled_findings_keep_patients_apart_and_films_once(collection, tmp_path):
    out = tmp_path / "dataset"
    result = run(collection, out, finding="both")
    lines = case_rows(collection, "mass") + case_rows(collection, "calc")
    test_patients = {line["patient_id"] for line in lines if line["split"] == "test"}
    torn = {line["patient_id"] for line in lines if line["split"] == "train"} & test_patients
    expected = defaultdict(list)
    for line in lines:
        expected[film_of(line)].append(line)
    expected = {
        name: any(line["pathology"] == "MALIGNANT" for line in held)
        for name, held in expected.items()
        if name[:7] not in test_patients or any(line["split"] == "test" for line in held)
    }
    rows = read_manifest(out)
    assert {row.image_id: row.label == "malignant" for row in rows} == expected
    assert {row.patient_id for row in rows if row.split == "test"} == test_patients
    assert "mass|calcification" in {row.finding for row in rows}
    assert torn
    assert result.facts["pooled_patients"] == len(torn)
    assert any("in train for one finding" in note for note in result.notes)


def test_without_callback_can_be_left_out(collection, tmp_path):
    result = run(collection, tmp_path / "dataset", without_callback="leave-out")
    lines = case_rows(collection, "mass")
    kept = [line for line in lines if line["pathology"] != "BENIGN_WITHOUT_CALLBACK"]
    rows = read_manifest(tmp_path / "dataset")
    assert {row.image_id for row in rows} == {film_of(line) for line in kept}
    films = {film_of(line) for line in lines}
    (cost,) = result.facts["left_out"]
    assert cost["why"] == "BENIGN_WITHOUT_CALLBACK"
    assert cost["lesions"] == len(lines) - len(kept) > 0
    assert cost["images"] == len(films) - len(rows)


def test_a_missing_pair_of_csvs_is_noted(copy, tmp_path):
    for path in copy.glob("calc_*.csv"):
        path.unlink()
    result = run(copy, tmp_path / "dataset", finding="both")
    assert "calc_case_description_train_set.csv, calc_case_description_test_set" in result.notes[0]


# --- any layout


def test_shuffled_folders_and_names_give_the_same_dataset(collection, whole, tmp_path):
    moved = tmp_path / "moved"
    for number, path in enumerate(
        sorted(collection.rglob("*.dcm"), key=lambda x: x.stat().st_size)
    ):
        target = moved / f"disk {number % 3}" / str(number % 5) / f"{number}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for number, path in enumerate(collection.glob("*_case_description_*.csv")):
        shutil.copyfile(path, moved / "disk 0" / f"table {number}.csv")
    run(moved, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == contents(whole.folder)


@pytest.mark.parametrize("unit", [pytest.param("mammogram", marks=pytest.mark.slow), "crop"])
def test_the_jpeg_copy_gives_the_same_manifest(collection, kaggle, tmp_path, unit):
    run(collection, tmp_path / "dicom", unit=unit)
    result = run(kaggle, tmp_path / "jpeg", unit=unit)
    assert result.set_aside == 0
    dicom, jpeg = (read_manifest(tmp_path / name) for name in ("dicom", "jpeg"))
    assert jpeg == dicom
    for row in jpeg[:6]:
        images = [read_image(tmp_path / name / row.path) / 65535 for name in ("dicom", "jpeg")]
        assert np.abs(images[0] - images[1]).mean() < 0.02


@pytest.mark.parametrize("shared_series", [True, False])
def test_a_row_with_crop_and_mask_exchanged_gives_the_crop(copy, tmp_path, shared_series):
    (table,) = copy.rglob("mass_case_description_train_set.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    line = rows[0]
    series = series_of(line, "cropped image file path")
    crop = dicom_of(copy, series)
    expected = pydicom.dcmread(crop).pixel_array
    if not shared_series:  # the crop gets a series of its own
        data = pydicom.dcmread(crop)
        data.SeriesInstanceUID = f"{series}9"
        data.save_as(crop)
        line["cropped image file path"] = line["cropped image file path"].replace(
            series, f"{series}9"
        )
    columns = ("cropped image file path", "ROI mask file path")
    line[columns[0]], line[columns[1]] = line[columns[1]], line[columns[0]]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(line))
        writer.writeheader()
        writer.writerows(rows)
    run(copy, tmp_path / "dataset", unit="crop")
    wanted = f"{film_of(line)}_mass_{line['abnormality id']}"
    (row,) = (row for row in read_manifest(tmp_path / "dataset") if row.image_id == wanted)
    np.testing.assert_array_equal(read_image(tmp_path / "dataset" / row.path), expected)


@pytest.mark.parametrize("where", ["whole", "download"])
@needs_real
def test_the_real_partial_download(tmp_path, where):
    source = REAL if where == "whole" else REAL / "download"
    result = run(source, tmp_path / "dataset", unit="crop")
    lines = case_rows(REAL, "mass")
    rows = read_manifest(tmp_path / "dataset")
    assert {(row.image_id, row.patient_id, row.label) for row in rows} == {
        ("P_00001_LEFT_CC_mass_1", "P_00001", "malignant"),
        ("P_00001_LEFT_MLO_mass_1", "P_00001", "malignant"),
        ("P_00016_LEFT_CC_mass_1", "P_00016", "malignant"),
        ("P_00016_LEFT_MLO_mass_1", "P_00016", "malignant"),
    }
    assert {row.split for row in rows if row.patient_id == "P_00016"} == {"test"}
    assert {row.split for row in rows if row.patient_id == "P_00001"} <= {"train", "val"}
    names = {f"{film_of(line)}_mass_{line['abnormality id']}" for line in lines}
    missing = set_aside(tmp_path / "dataset")
    assert missing.keys() == names - {row.image_id for row in rows}
    assert result.set_aside == len(missing) == len(lines) - 4 == 1692
    assert all(reason.startswith("missing: no file of series") for reason in missing.values())
    assert "4 of 1,696" in result.headline
