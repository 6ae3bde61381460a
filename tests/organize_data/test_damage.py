import shutil

import pytest

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from tests.organize_data.reading import case_rows, dicom_of, film_of, run, series_of, set_aside


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
