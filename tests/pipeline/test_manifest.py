"""The manifest: what it holds comes back, and what would make results false is refused."""

import dataclasses

import pytest

from pipeline.errors import UserError
from pipeline.manifest import Row, read_manifest, write_manifest


def row(image_id="P_00001_LEFT_CC", patient_id="P_00001", split="train", **more):
    return Row(
        image_id=image_id,
        patient_id=patient_id,
        split=split,
        label=more.pop("label", "benign"),
        path=f"{split}/benign/{image_id}.png",
        **more,
    )


def test_rows_come_back_as_they_were_sorted_by_split(tmp_path):
    test = row("B", "P_00002", "test", density=3, scale=0.125, crop_x=0, shape="ROUND|N/A")
    train = row("A", subtlety="5", label="malignant")
    write_manifest(tmp_path, [test, train])
    assert read_manifest(tmp_path) == [train, test]


def test_order_of_rows_does_not_change_the_bytes(tmp_path):
    rows = [row("B"), row("A"), row("C", "P_00002", "val")]
    write_manifest(tmp_path, rows)
    first = (tmp_path / "manifest.csv").read_bytes()
    write_manifest(tmp_path, rows[::-1])
    assert (tmp_path / "manifest.csv").read_bytes() == first
    assert b"\r" not in first


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row("X", split="test")], "patient P_00001 is in train and test"),
        ([row(), row()], "stands there twice"),
        ([row(split="val", parent="P")], "an augmented image in val"),
        ([row(label="maybe")], "label 'maybe' are not known"),
    ],
    ids=["patient in two splits", "image twice", "augmented validation image", "unknown label"],
)
def test_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        write_manifest(tmp_path, rows)
    assert not (tmp_path / "manifest.csv").exists()


def test_a_leak_is_refused_when_reading_too(tmp_path):
    write_manifest(tmp_path, [row(), row("X", "P_00002", "test")])
    path = tmp_path / "manifest.csv"
    path.write_text(path.read_text().replace("P_00002", "P_00001"))
    with pytest.raises(UserError, match="results would be false"):
        read_manifest(tmp_path)


def test_missing_file_missing_column_and_wrong_number(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.csv: no such file"):
        read_manifest(tmp_path)
    path = tmp_path / "manifest.csv"
    path.write_text("image_id,split\nA,train\n")
    with pytest.raises(UserError, match="line 1: lacks patient_id, label, path"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, [dataclasses.replace(row(), height=7)])
    path.write_text(path.read_text().replace(",7,", ",tall,"))
    with pytest.raises(UserError, match="line 2: height is 'tall'"):
        read_manifest(tmp_path)


def test_a_manifest_edited_in_a_spreadsheet_is_read(tmp_path):
    write_manifest(tmp_path, [row()])
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_manifest(tmp_path) == [row()]
