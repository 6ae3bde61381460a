import csv
import json
import os
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_record
from pipeline.stages import Organize, Synthesize
from sources.images import read_image
from sources.synthetic import synthesize

REAL = Path(__file__).parents[2] / "shared" / "real_cbis_ddsm"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real download is not here")


def run(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def set_aside(out):
    path = out / "set_aside.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def contents(folder):
    """All files that make up the dataset, without what tells of the run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.suffix == ".png" or path.name in ("manifest.csv", "set_aside.csv")
    }


def case_rows(source, finding):
    """The rows of a finding as a plain CSV reader sees them, with the official split."""
    rows = []
    for split in ("train", "test"):
        (path,) = source.rglob(f"{finding}_case_description_{split}_set.csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows += [
                {name: text.strip() for name, text in line.items()} | {"split": split}
                for line in csv.DictReader(file)
            ]
    return rows


def film_of(line):
    return f"{line['patient_id']}_{line['left or right breast']}_{line['image view']}"


def series_of(line, column):
    return line[column].split("/")[2]


@pytest.fixture
def copy(collection, tmp_path):
    """A copy of the synthetic collection that a test may damage."""
    return Path(shutil.copytree(collection, tmp_path / "raw"))


@pytest.fixture(scope="module")
def whole(collection, tmp_path_factory):
    """Its mass mammograms, organised undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "dataset"
    return run(collection, out)


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kaggle") / "raw"
    synthesize(Synthesize(out=folder, patients=16, seed=3, layout="kaggle", workers=1), Silent())
    return folder


def dicom_of(source, series, bits=16):
    """The one file of a series, or of some series, with that many bits."""
    series = {series} if isinstance(series, str) else series
    for path in source.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.SeriesInstanceUID in series and header.BitsAllocated == bits:
            return path
    raise LookupError(series)


# --- the right images


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
    assert result.facts["left_out"]["pooled_patients"] == len(torn)
    assert any("in train for one finding" in note for note in result.notes)


def test_without_callback_can_be_left_out(collection, tmp_path):
    result = run(collection, tmp_path / "dataset", without_callback="leave-out")
    lines = case_rows(collection, "mass")
    kept = [line for line in lines if line["pathology"] != "BENIGN_WITHOUT_CALLBACK"]
    rows = read_manifest(tmp_path / "dataset")
    assert {row.image_id for row in rows} == {film_of(line) for line in kept}
    left_out = result.facts["left_out"]
    assert left_out["lesions_without_callback"] == len(lines) - len(kept) > 0
    films = {film_of(line) for line in lines}
    assert left_out["images_without_callback"] == len(films) - len(rows)


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


@pytest.mark.parametrize("unit", ["mammogram", "crop"])
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


# --- damage


def test_damage_is_set_aside_with_its_reason_and_the_rest_is_as_before(copy, whole, tmp_path):
    rows = read_manifest(whole.folder)
    truncated, emptied, text, missing = (dicom_of(copy, row.source_id) for row in rows[:4])
    truncated.write_bytes(truncated.read_bytes()[:-5000])
    emptied.write_bytes(b"")
    text.write_text("this is not an image\n" * 50)
    missing.unlink()
    (copy / "LICENSE").write_text("text")
    out = tmp_path / "dataset"
    result = run(copy, out)
    reasons = set_aside(out)
    assert "pixel data is truncated" in reasons[rows[0].image_id]
    assert reasons[emptied.relative_to(copy).as_posix()] == "is empty"
    assert reasons[text.relative_to(copy).as_posix()] == "is a text file, not DICOM"
    for row in rows[1:4]:
        assert reasons[row.image_id] == (
            f"missing: no file of series {row.source_id} "
            f"(mass {'test' if row.split == 'test' else 'train'}, "
            f"Mass-{'Test' if row.split == 'test' else 'Training'}_{row.image_id})"
        )
    assert result.set_aside == len(reasons) == 6
    assert read_manifest(out) == rows[4:]  # nobody changed splits for it


def test_a_whole_duplicate_stands_in_for_a_damaged_file(copy, whole, tmp_path):
    row = read_manifest(whole.folder)[0]
    path = dicom_of(copy, row.source_id)
    shutil.copyfile(path, path.with_name("z duplicate.dcm"))
    path.write_bytes(path.read_bytes()[:-5000])
    result = run(copy, tmp_path / "dataset")
    assert read_manifest(tmp_path / "dataset") == read_manifest(whole.folder)
    assert list(set_aside(tmp_path / "dataset")) == [path.relative_to(copy).as_posix()]
    assert result.set_aside == 1


def test_a_mask_is_not_taken_for_a_missing_crop(copy, tmp_path):
    line = case_rows(copy, "mass")[0]
    dicom_of(copy, series_of(line, "cropped image file path")).unlink()
    run(copy, tmp_path / "dataset", unit="crop")
    name = f"{film_of(line)}_mass_{line['abnormality id']}"
    assert set_aside(tmp_path / "dataset") == {
        name: "missing: its series holds nothing but the mask"
    }


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        ((), "is empty"),
        (("*.csv",), "holds no DICOM or JPEG file"),
        (("*.dcm",), "holds none of the case description CSVs"),
    ],
)
def test_an_empty_collection_is_refused_and_nothing_is_written(copy, tmp_path, keep, reason):
    for path in copy.rglob("*.*"):
        if path.is_file() and not any(path.match(pattern) for pattern in keep):
            path.unlink()
    for folder in sorted((path for path in copy.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    with pytest.raises(UserError, match=reason):
        run(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_collection_of_other_images_is_refused(copy, tmp_path):
    films = {series_of(line, "image file path") for line in case_rows(copy, "mass")}
    for series in films:
        dicom_of(copy, series).unlink()
    with pytest.raises(UserError, match=r"none of its \d+ image files is one of the \d+ mass"):
        run(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_the_other_finding_without_its_csvs_is_refused(copy, tmp_path):
    for path in copy.glob("calc_*.csv"):
        path.unlink()
    with pytest.raises(UserError, match="holds neither calc_case_description_train_set"):
        run(copy, tmp_path / "dataset", finding="calc")


@pytest.mark.parametrize("inside", ["", "dataset"])
def test_writing_into_the_download_is_refused(copy, inside):
    with pytest.raises(UserError, match="lies in the download"):
        run(copy, copy / inside)
    assert not (copy / "manifest.csv").exists()
    assert not (copy / "dataset").exists()


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        run(tmp_path / "nowhere", tmp_path / "dataset")


# --- once more, stopped, and otherwise


class Stopping(Silent):
    """Presses Ctrl-C after some images."""

    def __init__(self, after):
        self.after = after

    def track(self, text, total, unit, done=0):
        bar = super().track(text, total, unit, done)
        return bar if unit != "images" else _Stopper(bar, self.after)


class _Stopper:
    def __init__(self, bar, after):
        self.bar, self.left = bar, after

    def __enter__(self):
        self.bar.__enter__()
        return self

    def __exit__(self, *error):
        return self.bar.__exit__(*error)

    def __call__(self, steps):
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_stopped_run_continues_to_the_same_dataset(collection, whole, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", workers=1)
    with pytest.raises(KeyboardInterrupt):
        organize(options, Stopping(after=5))
    assert not (tmp_path / "dataset" / "stage.json").exists()
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "dataset").rglob("*.png")}
    assert len(begun) == 6
    result = organize(options, Silent())
    assert contents(tmp_path / "dataset") == contents(whole.folder)
    assert result.facts == whole.facts
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in begun.items())


def test_a_second_run_writes_no_image_again_and_makes_what_was_lost(collection, tmp_path):
    first = run(collection, tmp_path / "dataset")
    before = contents(tmp_path / "dataset")
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.png")}
    lost = first.folder / read_manifest(first.folder)[0].path
    lost.unlink()
    second = run(collection, tmp_path / "dataset")
    assert second.facts == first.facts
    assert contents(tmp_path / "dataset") == before
    del stamps[lost]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_other_options_leave_nothing_of_the_earlier_run(collection, whole, tmp_path):
    run(collection, tmp_path / "dataset", unit="crop", finding="both")
    run(collection, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == contents(whole.folder)


def test_a_source_that_went_bad_takes_its_image_with_it(copy, tmp_path):
    run(copy, tmp_path / "dataset")
    row = read_manifest(tmp_path / "dataset")[0]
    path = dicom_of(copy, row.source_id)
    path.write_bytes(path.read_bytes()[:-5000])
    run(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / row.path).exists()
    assert row.image_id in set_aside(tmp_path / "dataset")


def test_the_number_of_workers_changes_nothing(collection, whole, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", workers=2)
    organize(options, Silent())
    assert contents(tmp_path / "dataset") == contents(whole.folder)


def test_another_seed_gives_another_split_of_the_same_images(collection, whole, tmp_path):
    rows = read_manifest(whole.folder)
    others = []
    for seed in (1, 2, 3):
        run(collection, tmp_path / str(seed), seed=seed, val_share=0.4)
        others.append({row.image_id: row.split for row in read_manifest(tmp_path / str(seed))})
    assert all(other.keys() == {row.image_id for row in rows} for other in others)
    assert any(other != others[0] for other in others[1:])
    assert Counter(others[0].values())["val"] > Counter(row.split for row in rows)["val"]


def test_torchvision_reads_the_dataset(whole):
    datasets = pytest.importorskip("torchvision.datasets")
    for split, counts in whole.facts["splits"].items():
        images = datasets.ImageFolder(str(whole.folder / split))
        assert images.classes == ["benign", "malignant"]
        assert len(images) == counts["images"]
        assert images[0][0].mode == "RGB"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions bind neither root nor Windows"
)
def test_an_output_that_may_not_be_written_is_refused(collection, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="may not be written"):
        run(collection, tmp_path / "locked" / "dataset")


def test_nothing_of_the_headers_reaches_the_images(whole):
    for row in read_manifest(whole.folder):
        content = (whole.folder / row.path).read_bytes()
        assert row.patient_id.encode() not in content
        assert b"tEXt" not in content
