"""Folders with a table of their images: columns, rows and files that fit together, or do not."""

import pytest

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.stages.data import Organize
from sources.folders.table import columns_problem, suggested_columns
from sources.registry import recognised
from tests.sources.folders.making import (
    aside,
    class_folders,
    diagnoses,
    draw,
    planned,
    run,
    with_table,
    women,
)


def test_a_table_tells_patients_labels_sides_and_views(tmp_path):
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"))
    assert recognised(root) == "folders"
    result = run(root, tmp_path / "out", question="benign-malignant")
    rows = read_manifest(tmp_path / "out")
    assert diagnoses(tmp_path / "out") == {"benign": 12, "malignant": 12}
    assert {row.patient_id for row in rows} == set(map(str, range(12)))
    for row in rows:
        number = int(row.patient_id)
        assert row.laterality == ("LEFT", "RIGHT")[number // 2 % 2]
        assert row.image_id == f"w{number}_{row.view}"
        assert (row.label, row.pathology) == (("benign", "B"), ("malignant", "M"))[number % 2]
    assert any("image is File, patient is Patient, label is Class" in note for note in result.notes)


def test_odd_rows_and_files_are_set_aside_and_the_rest_is_there(tmp_path):
    lines = women(tmp_path / "raw")
    draw(tmp_path / "raw" / "images" / "nobody.png")
    more = [lines[0], "gone.png,3,B,L,CC", "w1_CC.png,77,M,L,CC", ",4,B,L,CC"]
    root = with_table(tmp_path / "raw", [*lines, *more])
    run(root, tmp_path / "out")
    assert aside(tmp_path / "out") == {
        "labels.csv: line 26": "repeats line 2, and counts once",
        "labels.csv: line 27": "missing: no file gone.png",
        "labels.csv: line 28": "says another patient or split of images/w1_CC.png than "
        "labels.csv: line 4",
        "labels.csv: line 29": "names no image",
        "images/nobody.png": "is not in labels.csv",
    }
    assert len(read_manifest(tmp_path / "out")) == 24


def test_two_rows_on_one_image_give_it_the_worse_diagnosis(tmp_path):
    lines = women(tmp_path / "raw")
    root = with_table(tmp_path / "raw", [*lines, lines[0].replace(",B,", ",M,")])
    result = run(root, tmp_path / "out")
    (row,) = (row for row in read_manifest(tmp_path / "out") if row.image_id == "w0_CC")
    assert row.label == "malignant"
    assert any("images with several rows: 1" in note for note in result.notes)


@pytest.mark.parametrize(
    "cell", ["C:\\data\\images\\{}", "/home/her/images/{}", "./images/{}", "{}", "IMAGES/{}"]
)
def test_paths_of_another_computer_are_understood(cell, tmp_path):
    lines = [cell.format(line) for line in women(tmp_path / "raw")]
    root = with_table(tmp_path / "raw", lines)
    assert planned(root).facts["held"]["all"] == {
        "images": 24, "patients": 12, "normal": 0, "benign": 12, "malignant": 12,
    }  # fmt: skip


def test_names_without_suffix_in_folders_of_patients(tmp_path):
    root = tmp_path / "raw"
    lines = []
    for number in range(12):
        draw(root / f"p{number}" / "1.png")
        lines.append(f"1,p{number},{number % 2}")
    with_table(root, lines, "image_id,patient_id,cancer")
    assert planned(root).facts["held"]["all"]["patients"] == 12


def test_splits_ages_and_densities_of_a_table(tmp_path):
    splits = "train", "valid", "Testing"
    lines = [f"{line},{splits[number // 2 % 3]},{40 + number},{'abcdx'[number % 5]}"
             for number, line in enumerate(women(tmp_path / "raw"))]  # fmt: skip
    root = with_table(
        tmp_path / "raw", lines, "File,Patient,Class,Side,View,Set,Age,Breast Density"
    )
    result = run(root, tmp_path / "out")
    rows = read_manifest(tmp_path / "out")
    assert {int(row.patient_id) % 3: row.split for row in rows} == {0: "train", 1: "val", 2: "test"}
    assert {row.density for row in rows} == {1, 2, 3, 4, None}
    assert {row.age for row in rows} == set(range(40, 64))
    assert any("4 cells of density are not understood" in note for note in result.notes)


def test_columns_of_other_names_are_shown_with_their_first_rows(tmp_path):
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"), "Aufnahme,Frau,Befund,Seite,Proj")
    shown = r"Aufnahme \(w0_CC.png, w0_MLO.png, w1_CC.png\), Frau \(0, 0, 1\), Befund \(B, B, M\)"
    with pytest.raises(UserError, match=rf"{shown}.*--columns \"image=COLUMN") as refused:
        run(root, tmp_path / "out")
    assert "\n" not in str(refused.value)
    given = "image=Aufnahme,patient=frau,label=Befund,laterality=Seite,view=Proj"
    assert planned(root, columns=given).facts["held"]["all"]["patients"] == 12
    with pytest.raises(UserError, match=r"has no column 'Bild' but Aufnahme \(w0_CC\.png"):
        planned(root, columns="image=Bild")
    with pytest.raises(UserError, match="'bild' is none of image, patient, label"):
        planned(root, columns="bild=Aufnahme")


def test_the_question_offers_the_columns_and_shows_them_where_they_are_not_known(tmp_path):
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"), "File,Frau,Class,Side,View")
    answers = {"source": root, "csv": None}
    offer = suggested_columns(answers)
    assert offer == "image=File,patient=?,label=Class,laterality=Side,view=View"
    assert "Frau (0, 0, 1)" in columns_problem(offer, answers)
    assert columns_problem(offer.replace("?", "Frau"), answers) is None


def test_a_table_elsewhere_and_class_folders_with_a_table_of_patients(tmp_path):
    root = class_folders(tmp_path / "raw", count=8)
    lines = [f"{name}/{number}.png,{name[0]}{number // 2}" for name in ("benign", "malignant")
             for number in range(8)]  # fmt: skip
    with_table(tmp_path, lines, "path,subject", name="who.csv")
    result = run(root, tmp_path / "out", csv=tmp_path / "who.csv")
    assert diagnoses(tmp_path / "out") == {"benign": 8, "malignant": 8}
    assert result.facts["patients"] == 8


def test_a_table_that_cannot_be_read_is_told_of(tmp_path):
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"))
    (root / "broken.csv").write_bytes(b"a,b\n\x00\x01\x02")
    result = run(root, tmp_path / "out")
    assert len(read_manifest(tmp_path / "out")) == 24
    assert any("broken.csv: " in note and note.endswith("; not used") for note in result.notes)


def test_spreadsheets_beside_the_images_are_told_of_and_those_saved_as_csv_are_not(tmp_path):
    root = class_folders(tmp_path / "raw")
    (root / "who.xlsx").write_bytes(b"PK\x03\x04")
    (root / "~$who.xlsx").write_bytes(b"")
    told = "spreadsheets are not read: save who.xlsx as CSV (UTF-8)"
    assert any(note.startswith(told) for note in planned(root).notes)
    (root / "who.csv").write_text("name,age\nx,1\n")
    assert not any("spreadsheets" in note for note in planned(root).notes)


def test_a_table_that_is_a_spreadsheet_alone_is_refused_with_what_to_do(tmp_path):
    root = tmp_path / "raw"
    women(root)
    table = root / "labels.xlsx"
    table.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"not read: save labels\.xlsx as CSV \(UTF-8\)"):
        planned(root)
    for given in (table, root):
        with pytest.raises(UserError, match=r"--csv: .*spreadsheet.*: save .* as CSV \(UTF-8\)"):
            checked(Organize, {"source": root, "csv": given})
