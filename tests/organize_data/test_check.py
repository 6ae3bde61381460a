"""The doctor: a download with known damage, and one without any."""

import csv
import io
import os
import random
import shutil
import zipfile

import cv2
import numpy as np
import pydicom
import pytest

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from tests.organize_data.reading import case_rows, dicom_of, film_of, run, series_of


def check(source, out):
    return run(source, out, check=True)


def listed(out):
    path = out / "check.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line for line in csv.DictReader(file)}


def claim(path, syntax):
    """Give a file another transfer syntax in its meta information, and change nothing else."""
    meta, buffer = pydicom.dcmread(path, stop_before_pixels=True).file_meta, io.BytesIO()
    rest = path.read_bytes()[144 + meta.FileMetaInformationGroupLength :]
    meta.TransferSyntaxUID = syntax
    pydicom.filewriter.write_file_meta_info(buffer, meta)
    path.write_bytes(bytes(128) + b"DICM" + buffer.getvalue() + rest)


def to_download(out):
    path = out / "missing.tcia"
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    return lines[lines.index("ListOfSeriesToDownload=") + 1 :]


@pytest.mark.parametrize("layout", ["whole collection", "jpeg copy"])
def test_a_whole_download_has_nothing_wrong(collection, kaggle, tmp_path, layout):
    source = collection if layout == "whole collection" else kaggle
    result = check(source, tmp_path / "dataset")
    assert listed(tmp_path / "dataset") == {}
    assert to_download(tmp_path / "dataset") == []
    assert (result.set_aside, result.headline) == (0, "The download is whole")
    for roles in result.facts["parts"].values():
        assert all(role["found"] == role["expected"] > 0 for role in roles.values())
    lines = case_rows(collection, "mass") + case_rows(collection, "calc")
    films = {series_of(line, "image file path") for line in lines}
    assert result.facts["files"] == {
        "expected": len(films) + 2 * len(lines),
        "found": len(films) + 2 * len(lines),
    }
    assert result.facts["complete_collection"] == {"series": 6775, "files": 10239}


def test_masks_of_another_size_are_worth_knowing_and_no_damage(collection, tmp_path):
    result = check(collection, tmp_path / "dataset")
    with (tmp_path / "dataset" / "check_notes.csv").open(newline="") as file:
        notes = [(line["what"], line["note"]) for line in csv.DictReader(file)]
    unlike = {name for name, note in notes if "to fit" in note}
    assert result.facts["masks_of_another_size"] == len(unlike) > 0
    for line in case_rows(collection, "mass"):
        film = dicom_of(collection, series_of(line, "image file path"))
        mask = dicom_of(collection, series_of(line, "ROI mask file path"), bits=8)
        shapes = [pydicom.dcmread(path).pixel_array.shape for path in (film, mask)]
        assert (mask.relative_to(collection).as_posix() in unlike) == (shapes[0] != shapes[1])


def test_every_damaged_file_is_named_with_its_reason_and_none_that_is_whole(copy, tmp_path):
    files = sorted(copy.rglob("*.dcm"))
    random.Random(7).shuffle(files)
    # Two of one series would hide that a series is missing as a whole.
    chosen = {path.parent: path for path in files if len(list(path.parent.iterdir())) == 1}
    cut, emptied, text, coded, copied, lost, first, second = [*chosen.values()][:8]
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in files}
    cut.write_bytes(cut.read_bytes()[:-4000])
    emptied.write_bytes(b"")
    text.write_text("<html>not found</html>" * 20)
    claim(coded, "1.2.840.10008.1.2.4.90")
    shutil.copy2(copied, copied.with_name("1-1 (copy).dcm"))
    lost.unlink()
    spare = tmp_path / "spare"
    shutil.move(first, spare)
    shutil.move(second, first)
    shutil.move(spare, second)
    out = tmp_path / "dataset"
    result = check(copy, out)
    problems = {name: (line["kind"], line["reason"]) for name, line in listed(out).items()}

    def name(path):
        return path.relative_to(copy).as_posix()

    assert problems[name(cut)][0] == "truncated"
    assert problems[name(emptied)] == ("unreadable", "is empty")
    assert problems[name(text)] == ("unreadable", "is a text file, not DICOM")
    assert "JPEG 2000" in problems[name(coded)][1]
    assert problems[name(copied.with_name("1-1 (copy).dcm"))] == (
        "duplicate",
        f"the same as {name(copied)}",
    )
    assert problems[name(first)][0] == problems[name(second)][0] == "wrong folder"
    gone = {headers[path].SeriesInstanceUID for path in (emptied, text, lost)}
    missing = {line["series"] for line in listed(out).values() if line["kind"] == "missing"}
    assert missing == {headers[lost].SeriesInstanceUID}
    assert listed(out)[name(text)]["series"] == headers[text].SeriesInstanceUID
    named = {what for what in problems if (copy / what).is_file()}
    assert named == {
        *map(name, (cut, emptied, text, coded, first, second)),
        name(copied.with_name("1-1 (copy).dcm")),
    }
    broken = {headers[path].SeriesInstanceUID for path in (cut, coded)}
    assert set(to_download(out)) == gone | broken
    assert result.set_aside == len(problems)
    assert sum(result.facts["problems"].values()) == len(problems)


def test_a_lost_crop_and_a_lost_mask_of_one_series_are_told_apart(copy, tmp_path):
    lines = [
        line
        for line in case_rows(copy, "mass")
        if series_of(line, "ROI mask file path") == series_of(line, "cropped image file path")
    ]
    dicom_of(copy, series_of(lines[0], "cropped image file path")).unlink()
    dicom_of(copy, series_of(lines[1], "ROI mask file path"), bits=8).unlink()
    check(copy, tmp_path / "dataset")
    found = sorted(listed(tmp_path / "dataset"))
    assert [what.split()[0] for what in found] == ["crop", "mask"]
    assert set(to_download(tmp_path / "dataset")) == {
        series_of(line, "cropped image file path") for line in lines[:2]
    }


def test_the_two_columns_exchanged_do_not_blame_the_other_series(copy, tmp_path):
    (line,) = [
        line
        for line in case_rows(copy, "calc")
        if series_of(line, "ROI mask file path") != series_of(line, "cropped image file path")
        and dicom_of(copy, series_of(line, "cropped image file path"), bits=8)
    ][:1]
    crop = series_of(line, "ROI mask file path")
    dicom_of(copy, crop).unlink()
    check(copy, tmp_path / "dataset")
    assert to_download(tmp_path / "dataset") == [crop]


def test_renamed_folders_are_not_misplaced_files(copy, tmp_path):
    for number, path in enumerate(sorted(copy.rglob("*.dcm"))):
        folder = tmp_path / "moved" / f"film-{number:05d}"
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / "1.dcm")
    for path in copy.glob("*_case_description_*.csv"):
        shutil.copyfile(path, tmp_path / "moved" / path.name)
    assert check(tmp_path / "moved", tmp_path / "dataset").set_aside == 0


def test_checking_a_finished_dataset_leaves_it_finished(collection, tmp_path):
    out = tmp_path / "dataset"
    run(collection, out)
    record = (out / "stage.json").read_bytes()
    result = check(collection, out)
    assert (out / "stage.json").read_bytes() == record
    assert result.set_aside == 0


def test_a_damaged_jpeg_and_one_in_the_wrong_folder_are_named(kaggle, tmp_path):
    copy = shutil.copytree(kaggle, tmp_path / "raw")
    films = {series_of(line, "image file path") for line in case_rows(copy, "mass")}
    first, second, third, fourth = (
        next((copy / "jpeg" / uid).iterdir()) for uid in sorted(films)[:4]
    )
    first.write_bytes(first.read_bytes()[:-3000])
    spare = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(spare)
    shutil.copyfile(fourth, fourth.with_name("9-999.jpg"))
    check(copy, tmp_path / "dataset")
    problems = {what: line["kind"] for what, line in listed(tmp_path / "dataset").items()}
    assert problems == {
        f"jpeg/{first.parent.name}/{first.name}": "truncated",
        f"jpeg/{second.parent.name}/{second.name}": "wrong size",
        f"jpeg/{third.parent.name}/{third.name}": "wrong size",
        f"jpeg/{fourth.parent.name}/9-999.jpg": "duplicate",
    }


def test_a_damaged_file_in_the_zip_of_its_series_is_not_missing_as_well(copy, tmp_path):
    line = case_rows(copy, "mass")[0]
    film = dicom_of(copy, series_of(line, "image file path"))
    uid = series_of(line, "image file path")
    with zipfile.ZipFile(film.parents[1] / f"{uid}.zip", "w") as archive:
        archive.writestr("1-1.dcm", "<html>not found</html>")
    film.unlink()
    check(copy, tmp_path / "dataset")
    (problem,) = listed(tmp_path / "dataset").values()
    assert (problem["kind"], problem["series"]) == ("unreadable", uid)
    assert to_download(tmp_path / "dataset") == [uid]


def test_a_check_that_is_to_hide_whom_it_names_is_refused(collection, tmp_path):
    with pytest.raises(UserError, match=r"--check names files and patients.*leave one of the two"):
        run(collection, tmp_path / "dataset", check=True, pseudonymize=True)
    assert not (tmp_path / "dataset").exists()


def test_a_stray_copy_is_named_and_not_the_file_in_its_place(copy, tmp_path):
    original = next(copy.rglob("*.dcm"))
    (copy / "a").mkdir()
    shutil.copy2(original, copy / "a" / "1.dcm")
    check(copy, tmp_path / "dataset")
    assert list(listed(tmp_path / "dataset")) == ["a/1.dcm"]


def test_a_spoilt_copy_is_named_and_never_taken_for_the_film(copy, tmp_path):
    row = read_manifest(run(copy, tmp_path / "whole").folder)[0]
    original = dicom_of(copy, row.source_id)
    (copy / "a").mkdir()
    spoilt = copy / "a" / "1.dcm"
    spoilt.write_bytes(original.read_bytes()[:3000].ljust(original.stat().st_size, b"\0"))
    os.utime(spoilt, (1, 1))
    check(copy, tmp_path / "dataset")
    (problem,) = listed(tmp_path / "dataset").values()
    assert problem["what"] == "a/1.dcm"
    assert problem["reason"].endswith("but its content differs")
    run(copy, tmp_path / "dataset")
    images = [(tmp_path / name / row.path).read_bytes() for name in ("whole", "dataset")]
    assert images[0] == images[1]


def test_a_finding_that_was_not_downloaded_is_no_problem_unless_asked_for(copy, tmp_path):
    for line in case_rows(copy, "calc"):
        for column in ("image file path", "cropped image file path", "ROI mask file path"):
            for path in copy.rglob(f"*{series_of(line, column)[-5:]}/*.dcm"):
                path.unlink()
    result = check(copy, tmp_path / "dataset")
    assert result.set_aside == 0
    assert any(note.startswith("calc: none of its files is here") for note in result.notes)
    everything = run(copy, tmp_path / "both", check=True, finding="both")
    assert everything.set_aside > 20


# --- odd things in a download


def test_pipes_links_and_odd_names_neither_hang_nor_hide_a_film(copy, whole, tmp_path):
    os.mkfifo(copy / "pipe.dcm")
    os.mkfifo(copy / "pipe.csv")
    (copy / "loop").symlink_to(copy, target_is_directory=True)
    (copy / "nowhere.dcm").symlink_to(copy / "gone")
    away = shutil.move(copy / "CBIS-DDSM", tmp_path / "another disk")
    (copy / "CBIS-DDSM").symlink_to(away, target_is_directory=True)
    with open(bytes(copy) + b"/caf\xe9.dcm", "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    result = run(copy, tmp_path / "dataset")
    assert read_manifest(tmp_path / "dataset") == read_manifest(whole.folder)
    assert result.set_aside == 2
    text = (tmp_path / "dataset" / "set_aside.csv").read_text()
    assert 'caf\\udce9.dcm,"is a text file, not DICOM"' in text
    assert "nowhere.dcm" in text


@pytest.mark.slow
def test_a_bright_and_a_dark_jpeg_crop_are_no_masks(kaggle, tmp_path):
    lines = case_rows(kaggle, "mass")[:2]
    for with_table in (True, False):
        copy = shutil.copytree(kaggle, tmp_path / f"raw {with_table}")
        if not with_table:
            (copy / "csv" / "dicom_info.csv").unlink()
        for line, grey in zip(lines, (250, 5), strict=True):
            folder = copy / "jpeg" / series_of(line, "cropped image file path")
            for path in folder.iterdir():
                image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
                if np.count_nonzero((image > 40) & (image < 215)) > 0.1 * image.size:
                    cv2.imwrite(str(path), np.full_like(image, grey))
        out = tmp_path / f"crops {with_table}"
        result = run(copy, out, unit="crop")
        names = {f"{film_of(x)}_mass_{x['abnormality id']}" for x in lines}
        assert names <= {row.image_id for row in read_manifest(out)}
        assert result.set_aside == 0
        masks = run(copy, tmp_path / f"films {with_table}")
        assert masks.set_aside == 0


def test_a_table_of_the_jpeg_copy_that_broke_off_is_no_reason_to_stop(kaggle, whole, tmp_path):
    copy = shutil.copytree(kaggle, tmp_path / "raw")
    table = copy / "csv" / "dicom_info.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:-1], lines[-1].split(",")[0]]))
    run(copy, tmp_path / "dataset")
    assert read_manifest(tmp_path / "dataset") == read_manifest(whole.folder)


def test_tags_that_may_tell_who_a_person_is_are_listed_without_their_values(copy, tmp_path, capsys):
    path = dicom_of(copy, series_of(case_rows(copy, "mass")[0], "image file path"))
    data = pydicom.dcmread(path)
    data.PatientBirthDate, data.InstitutionName = "19501224", "Saint Nowhere"
    data.BurnedInAnnotation = "YES"
    data.save_as(path)
    result = check(copy, tmp_path / "dataset")
    tags = result.facts["identifying_tags"]
    assert (tags["PatientBirthDate"], tags["InstitutionName"]) == (1, 1)
    assert tags["PatientID"] == result.facts["files"]["found"]
    assert result.facts["burned_in"] == 1
    assert any("text is burned into the pixels of 1 file" in note for note in result.notes)
    written = b"".join(p.read_bytes() for p in (tmp_path / "dataset").rglob("*") if p.is_file())
    shown = written.decode(errors="replace") + str(result) + capsys.readouterr().out
    assert "19501224" not in shown
    assert "Saint Nowhere" not in shown
