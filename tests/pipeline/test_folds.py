"""Folds: their file, and what a fold makes of a manifest."""

import dataclasses

import pytest

from pipeline.errors import UserError
from pipeline.folds import Fold, apply_fold, carry_folds, read_folds, read_rows, write_folds
from pipeline.manifest import Row, image_path, validate, write_manifest

COUNT = 4
ORGANIZED = {"stage": "organize", "counts": {}}
PREPARED = {"stage": "preprocess", "counts": {}}


def row(patient_id, split, view, parent=""):
    image_id = f"{patient_id}_LEFT_{view}"
    return Row(
        image_id=image_id,
        patient_id=patient_id,
        split=split,
        label="benign",
        path=image_path(split, "benign", image_id),
        parent=parent,
    )


@pytest.fixture
def rows(tmp_path):
    """A dataset of 11 + 3 patients outside test and 4 in it; training images have a copy."""
    made = []
    for number in range(18):
        patient = f"P_{number:05d}"
        split = "train" if number < 11 else "val" if number < 14 else "test"
        for view in ("CC", "MLO"):
            made.append(row(patient, split, view))
            if split == "train":
                made.append(row(patient, split, f"{view}_aug1", parent=made[-1].image_id))
    write_manifest(tmp_path, made)
    outside = sorted({one.patient_id for one in made if one.split != "test"})
    write_folds(tmp_path, {patient: n % COUNT + 1 for n, patient in enumerate(outside)})
    return made


def patients(rows, split):
    return {one.patient_id for one in rows if one.split == split}


def test_folds_come_back_as_they_were_sorted_by_patient(tmp_path):
    write_folds(tmp_path, {"P_2": 1, "P_10": 2, "P_1": 3})
    assert (tmp_path / "folds.csv").read_bytes() == b"patient_id,fold\nP_1,3\nP_10,2\nP_2,1\n"
    assert read_folds(tmp_path) == {"P_1": 3, "P_10": 2, "P_2": 1}


def test_folds_edited_in_a_spreadsheet_are_read(tmp_path):
    (tmp_path / "folds.csv").write_bytes(b"\xef\xbb\xbfpatient_id,fold\r\nP_1,1\r\nP_2,2\r\n")
    assert read_folds(tmp_path) == {"P_1": 1, "P_2": 2}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("patient_id\nP_1\n", "line 1: lacks fold"),
        ("patient_id,fold\nP_1,1\nP_2,two\n", "line 3: fold is 'two'"),
        ("patient_id,fold\nP_1,1\nP_2,-2\n", "line 3: fold is '-2'"),
        ("patient_id,fold\nP_1\n", "line 2: 1 cells, and the first line has 2"),
        ("patient_id,fold\nP_1,\n", "line 2: fold is ''"),
        ("patient_id,fold\n,1\n", "line 2: no patient"),
        ("patient_id,fold\nP_1,1\nP_1,2\n", "line 3: patient P_1 stands there twice"),
        ("patient_id,fold\nP_1,0\nP_2,1\n", "numbered from 1, and it has 0, 1"),
        ("patient_id,fold\nP_1,1\nP_2,3\n", "numbered from 1, and it has 1, 3"),
        ("patient_id,fold\n", "numbered from 1, and it has none"),
        ("", "line 1: lacks patient_id, fold"),
    ],
)
def test_bad_folds_are_refused(tmp_path, text, problem):
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(UserError, match=rf"folds\.csv: .*{problem}.*main\.py organize --folds 5"):
        read_folds(tmp_path)


def test_no_folds_are_refused_with_the_command_that_makes_them(tmp_path):
    problem = r"folds\.csv: no such file.*run: python main\.py organize --folds 5"
    with pytest.raises(UserError, match=problem):
        read_folds(tmp_path)


def test_without_a_fold_the_rows_are_as_they_are(tmp_path, rows):
    (tmp_path / "folds.csv").unlink()
    assert apply_fold(tmp_path, rows, 0) == rows


@pytest.mark.parametrize("fold", range(1, COUNT + 1))
def test_a_fold_validates_on_its_patients_and_trains_on_the_others(tmp_path, rows, fold):
    applied = apply_fold(tmp_path, rows, fold)
    validate(tmp_path, applied)  # no patient in two splits, no copy outside training
    folds = read_folds(tmp_path)
    assert patients(applied, "val") == {name for name, own in folds.items() if own == fold}
    assert patients(applied, "train") == {name for name, own in folds.items() if own != fold}
    assert [one for one in applied if one.split == "test"] == [
        one for one in rows if one.split == "test"
    ]
    before = {one.image_id: one for one in rows}
    for one in applied:
        assert dataclasses.replace(one, split=before[one.image_id].split) == before[one.image_id]
    left_out = set(before) - {one.image_id for one in applied}
    assert left_out == {
        one.image_id for one in rows if one.parent and folds[one.patient_id] == fold
    }


def test_every_patient_outside_test_is_validated_exactly_once(tmp_path, rows):
    validated = [
        patient
        for fold in range(1, COUNT + 1)
        for patient in patients(apply_fold(tmp_path, rows, fold), "val")
    ]
    assert sorted(validated) == sorted(patients(rows, "train") | patients(rows, "val"))


def test_rows_of_a_fold_stand_in_the_order_of_a_manifest(tmp_path, rows):
    applied = apply_fold(tmp_path, rows, 2)
    write_manifest(tmp_path, applied)
    assert read_rows(tmp_path, ORGANIZED, 0) == (applied, Fold())


def test_a_fold_that_there_is_not_is_refused(tmp_path, rows):
    with pytest.raises(UserError, match=r"has 4 folds, so there is no fold 5; give --fold 1 to 4"):
        apply_fold(tmp_path, rows, 5)


def test_a_patient_without_a_fold_is_refused(tmp_path, rows):
    folds = read_folds(tmp_path)
    del folds["P_00004"]
    write_folds(tmp_path, folds)
    with pytest.raises(UserError, match=r"has 4 folds, but patient P_00004 is in none of them"):
        apply_fold(tmp_path, rows, 1)


def test_the_manifest_is_read_with_the_name_of_its_fold(tmp_path, rows):
    read, fold = read_rows(tmp_path, PREPARED, 3)
    assert read == apply_fold(tmp_path, rows, 3)
    assert fold == Fold(3, COUNT)
    assert fold.name == "fold 3 of 4"
    assert Fold.of(fold.facts) == fold
    assert read_rows(tmp_path, PREPARED, 0)[1].name == ""


def test_what_was_preprocessed_for_one_fold_is_of_that_fold_alone(tmp_path, rows):
    made = apply_fold(tmp_path, rows, 2)
    write_manifest(tmp_path, made)
    (tmp_path / "folds.csv").unlink()
    record = {"stage": "preprocess", "counts": Fold(2, COUNT).facts}
    assert read_rows(tmp_path, record, 0) == (made, Fold(2, COUNT))
    assert read_rows(tmp_path, record, 2) == (made, Fold(2, COUNT))
    with pytest.raises(UserError, match=r"preprocessed for fold 2 of 4 alone.* no folds\.csv"):
        read_rows(tmp_path, record, 1)


@pytest.mark.usefixtures("rows")
def test_folds_are_carried_along_unless_the_dataset_is_of_one_fold(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    carry_folds(tmp_path, target, Fold())
    assert read_folds(target) == read_folds(tmp_path)
    carry_folds(tmp_path, target, Fold(1, COUNT))
    assert not list(target.iterdir())
    carry_folds(tmp_path, target, Fold())
    (tmp_path / "folds.csv").unlink()
    carry_folds(tmp_path, target, Fold())
    assert not list(target.iterdir())
