"""RSNA Screening Mammography: what its rows say, where its images lie, and what is damaged."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from images.files import read_image
from models.prediction.reading import open_film
from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.data import Organize
from sources.record_plan import live_counts
from sources.registry import collection_of
from sources.rsna.rows import NEEDED
from tests.conftest import write_collection
from tests.organize_data.reading import run, set_aside
from tests.sources.rsna.files import COLUMNS, row, some_rows, write_copies, write_table

PATIENT_FOLDERS, FLAT = "{patient}/{image}.png", "{patient}_{image}.png"


def by_id(out):
    return {one.image_id: one for one in read_manifest(out)}


def plan(**options):
    return organize(Organize(dry_run=True, **options), Silent())


def noted(out):
    with (out / "notes.csv").open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["note"] for line in csv.DictReader(file)}


@pytest.fixture(scope="session")
def lookalike(once):
    """A look-alike of 8 women; not to be written to."""
    return once("rsna", lambda folder: write_collection(folder, collection="rsna", patients=8))


@pytest.fixture(scope="session")
def organised(lookalike, once):
    """It, organised; not to be written to."""

    def make(folder):
        run(lookalike, folder)
        return folder

    return once("rsna-organised", make)


@pytest.fixture
def copies(tmp_path):
    """PNG copies of 24 images, with their table."""
    write_table(tmp_path / "raw" / "train.csv", some_rows())
    return write_copies(tmp_path / "raw", some_rows(), "png/" + PATIENT_FOLDERS)


def test_the_manifest_of_the_lookalike_says_what_its_table_says(lookalike, organised):
    held = by_id(organised)
    with (lookalike / "train.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == COLUMNS
    assert len(held) == len(lines) == 32
    for line in lines:
        one = held[f"{line['patient_id']}_{line['image_id']}"]
        assert one.patient_id == f"rsna_{line['patient_id']}"
        assert one.label == ("malignant" if line["cancer"] == "1" else "not_malignant")
        normal = "normal" if line["biopsy"] == "0" else "benign"
        assert one.diagnosis == ("malignant" if line["cancer"] == "1" else normal)
        assert (one.laterality[0], one.view) == (line["laterality"], line["view"])
        assert one.age == float(line["age"])
        assert (one.site, one.machine) == (line["site_id"], line["machine_id"])
        assert one.implant == ("yes" if line["implant"] == "1" else "no")
        assert (one.density or 0) == " ABCD".index(line["density"] or " ")
        assert one.assessment == line["BIRADS"].removesuffix(".0")
    home = {one.patient_id: one.split for one in held.values()}
    assert Counter(home.values()) == {"train": 5, "test": 2, "val": 1}
    assert all(home[one.patient_id] == one.split for one in held.values())
    malignant = {one.patient_id for one in held.values() if one.diagnosis == "malignant"}
    assert len(malignant) == 2


def test_the_films_of_the_lookalike_are_compressed_and_inverted_as_the_real_ones(lookalike):
    films = [pydicom.dcmread(path) for path in sorted(lookalike.rglob("*.dcm"))]
    syntaxes = Counter(film.file_meta.TransferSyntaxUID for film in films)
    assert syntaxes == {"1.2.840.10008.1.2.4.90": 16, "1.2.840.10008.1.2.4.70": 16}
    photometric = Counter(film.PhotometricInterpretation for film in films)
    assert photometric == {"MONOCHROME1": 8, "MONOCHROME2": 24}
    assert {film.get("VOILUTFunction") for film in films} == {None, "LINEAR", "SIGMOID"}
    assert {film.BitsStored for film in films} == {12, 14, 16}


def test_films_of_every_machine_are_shown_alike_and_predict_reads_the_same(lookalike, organised):
    shown = {}
    for one in read_manifest(organised):
        pixels = read_image(organised / one.path)
        film, _ = open_film(lookalike / one.source_id)
        np.testing.assert_array_equal(pixels, film)
        assert np.median(pixels[:, [0, -1]].min(axis=1)) < 5000  # beside the breast
        shown.setdefault(one.machine, []).append(np.median(pixels[pixels > 8000]))
    levels = [np.median(found) for found in shown.values()]
    assert len(levels) == 4
    assert max(levels) < 1.5 * min(levels)


@pytest.mark.slow
def test_the_same_options_give_the_same_bytes(lookalike, tmp_path):
    again = write_collection(tmp_path / "again", collection="rsna", patients=8)
    for path in [lookalike / "train.csv", *sorted(lookalike.rglob("*.dcm"))[::8]]:
        assert (again / path.relative_to(lookalike)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("values", "diagnosis"),
    [
        ({}, "normal"),
        ({"biopsy": 1}, "benign"),
        ({"biopsy": "1.0"}, "benign"),
        ({"cancer": 1}, "malignant"),
        ({"cancer": "1.0", "biopsy": 1}, "malignant"),
        ({"cancer": "True"}, "malignant"),
    ],
)
def test_a_cancer_is_malignant_and_a_biopsy_without_one_benign(tmp_path, values, diagnosis):
    others = [row(1, 11), row(2, 21, cancer=1), row(3, 31, biopsy=1)]
    table = write_table(tmp_path / "train.csv", [*others, row(4, 41, **values)])
    held = plan(csv=table).facts["held"]["all"]
    expected = Counter(["normal", "malignant", "benign", diagnosis])
    assert {name: held[name] for name in expected} == expected


@pytest.mark.parametrize("folder", ["", "train_images", "png_512"])
@pytest.mark.parametrize("name", [PATIENT_FOLDERS, FLAT])
def test_copies_are_found_in_the_folder_and_in_any_one_below(tmp_path, folder, name):
    rows, source = some_rows(), tmp_path / "raw"
    write_copies(source / folder, rows, name)
    write_table(source / "train.csv", rows)
    run(source, tmp_path / "out")
    held = by_id(tmp_path / "out")
    assert len(held) == len(rows)
    for one in held.values():
        patient, image = one.image_id.split("_")
        file = name.format(patient=patient, image=image)
        assert one.source_id == (f"{folder}/{file}" if folder else file)
    assert not set_aside(tmp_path / "out")


@pytest.mark.parametrize("name", [PATIENT_FOLDERS, FLAT])
def test_the_folder_of_the_images_will_do_where_the_table_lies_beside_it(tmp_path, name):
    rows, source = some_rows(), tmp_path / "raw" / "images"
    write_copies(source, rows, name)
    write_table(tmp_path / "raw" / "train.csv", rows)
    assert run(source, tmp_path / "out").facts["images"] == len(rows)


def test_a_table_elsewhere_is_named_with_csv(tmp_path, copies):
    table = shutil.move(copies / "train.csv", tmp_path / "labels.csv")
    assert run(copies, tmp_path / "out", csv=Path(table)).facts["images"] == 24
    assert collection_of({"source": copies, "csv": table}) == "rsna"


def test_dicom_is_taken_before_a_copy_of_it(lookalike, tmp_path):
    source = Path(shutil.copytree(lookalike, tmp_path / "raw"))
    dicom = sorted(source.rglob("*.dcm"))
    for path in dicom[:3]:
        copy = source / "png" / path.parent.name / f"{path.stem}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(copy), np.arange(10_000, dtype=np.uint8).reshape(100, 100))
    result = organize(Organize(source=source, out=tmp_path / "out", check=True), Silent())
    assert any("3 images lie there twice" in note for note in result.notes)
    run(source, tmp_path / "out2")
    assert {Path(one.source_id).suffix for one in by_id(tmp_path / "out2").values()} == {".dcm"}


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8-sig", ","), ("utf-16", ";"), ("utf-16", "\t"), ("utf-8", ";")],
)
def test_a_table_that_a_spreadsheet_saved_is_read(copies, encoding, separator):
    rows = [{name.upper().replace("_", " "): f" {value} " for name, value in one.items()}
            | {"fold": 3} for one in some_rows()]  # fmt: skip
    before = plan(source=copies)
    write_table(copies / "train.csv", rows, encoding, separator)
    assert plan(source=copies).facts["planned"] == before.facts["planned"]
    assert before.facts["planned"]["train"]["images"] > 10


@pytest.mark.parametrize("column", NEEDED)
def test_a_table_without_a_needed_column_is_one_line_that_names_it(copies, run_here, column):
    columns = [name for name in COLUMNS if name != column]
    write_table(copies / "train.csv", some_rows(), columns=columns)
    done = run_here("organize", "--source", copies, "--dry-run", "--batch")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"train.csv: line 1: lacks {column} (has " in done.stderr


def test_what_a_row_cannot_tell_is_empty_and_said(tmp_path):
    rows = [
        row(1, 11, age="", density="", BIRADS="", implant="", site_id="", machine_id=""),
        row(2, 21, cancer=1, age="old", density="E", BIRADS=9, implant="maybe"),
        row(3, 31, view="lmo", laterality=""),
    ]
    source = write_copies(tmp_path / "raw", rows)
    write_table(source / "train.csv", rows)
    notes = plan(source=source).notes
    for name in ("age: 1 cells mean nothing ('old')", "density: 1", "birads: 1", "implant: 1"):
        assert any(f"train.csv: {name}" in note for note in notes)
    run(source, tmp_path / "out")
    held = by_id(tmp_path / "out")
    for name in ("1_11", "2_21"):
        one = held[name]
        assert (one.age, one.density, one.assessment, one.implant) == (None, None, "", "")
    assert (held["3_31"].view, held["3_31"].laterality) == ("LMO", "")


@pytest.fixture
def damaged(lookalike, tmp_path):
    """A copy of the look-alike of which many things are wrong; with what, by name."""
    source = Path(shutil.copytree(lookalike, tmp_path / "raw"))
    with (source / "train.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = [f"{line['patient_id']}_{line['image_id']}" for line in lines]
    files = [source / "train_images" / line["patient_id"] / f"{line['image_id']}.dcm"
             for line in lines]  # fmt: skip
    files[0].unlink()
    files[5].write_bytes(files[5].read_bytes()[:-900])
    grey = pydicom.dcmread(files[9])
    grey.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    grey.PixelData = np.full((grey.Rows, grey.Columns), 700, np.uint16).tobytes()
    grey["PixelData"].VR, grey["PixelData"].is_undefined_length = "OW", False
    grey.save_as(files[9])
    files[13].write_bytes(b"")
    shutil.copyfile(files[14], files[14].with_name("4711.dcm"))
    lines += [lines[17], lines[21] | {"cancer": "1"}, lines[25] | {"image_id": "5", "cancer": "7"}]
    write_table(source / "train.csv", lines)
    reasons = {
        names[0]: "missing: train_images",
        names[5]: "cannot be decoded|truncated",
        names[9]: "is of one grey value",
        names[13]: "is empty",
        f"train_images/{lines[14]['patient_id']}/4711.dcm": "is not in train.csv",
        names[21]: "train.csv: lines 23, 35 say different things of it",
        f"{lines[25]['patient_id']}_5": "train.csv: line 36: cancer is '7', neither 0 nor 1",
    }
    return source, reasons, names[17]


def test_what_is_damaged_is_set_aside_by_name_and_nothing_else_is_lost(damaged, tmp_path):
    source, reasons, twice = damaged
    result = run(source, tmp_path / "out")
    found = set_aside(tmp_path / "out")
    assert sorted(found) == sorted(reasons)
    for name, reason in reasons.items():
        assert any(part in found[name] for part in reason.split("|")), (name, found[name])
    assert result.facts["images"] == 32 - 5
    assert result.facts["without_file"] == 1
    assert noted(tmp_path / "out")[twice] == "train.csv: lines 19, 34 are alike: it counts once"


def test_check_lists_what_is_damaged(damaged, tmp_path):
    source, reasons, _ = damaged
    result = organize(Organize(source=source, out=tmp_path / "out", check=True), Silent())
    with (tmp_path / "out" / "check.csv").open(newline="", encoding="utf-8") as file:
        assert sorted(line["what"] for line in csv.DictReader(file)) == sorted(reasons)
    assert result.facts["problems"] == {"missing": 1, "damaged": 6}


def test_pseudonyms_stand_for_all_names(damaged, tmp_path, monkeypatch):
    source, _, _ = damaged
    monkeypatch.chdir(tmp_path)
    run(source, tmp_path / "out", pseudonymize=True)
    patients = {path.name for path in (source / "train_images").iterdir()}
    for path in (tmp_path / "out").rglob("*"):
        assert not any(patient in path.name for patient in patients), path
    for name in ("manifest.csv", "set_aside.csv", "notes.csv", "summary.json"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert not any(f"{patient}/" in text or f"_{patient}" in text for patient in patients)


def test_a_missing_file_changes_nobodys_split(copies, tmp_path):
    planned = plan(source=copies).facts["planned"]
    run(copies, tmp_path / "whole")
    whole = {name: one.split for name, one in by_id(tmp_path / "whole").items()}
    for path in sorted((copies / "png" / "104").iterdir()):
        path.unlink()
    run(copies, tmp_path / "less")
    assert set(set_aside(tmp_path / "less")) == {"104_1040", "104_1041"}
    assert {name: one.split for name, one in by_id(tmp_path / "less").items()} == {
        name: split for name, split in whole.items() if not name.startswith("104_")
    }
    counts = Counter(whole.values())
    assert counts == {split: planned[split]["images"] for split in planned}


def test_a_plan_needs_the_table_alone(tmp_path, run_here):
    table = write_table(tmp_path / "train.csv", some_rows())
    done = run_here("organize", "--dry-run", "--csv", table, "--batch")
    assert done.returncode == 0, done.stderr
    assert "24 images of 12 patients; nothing written" in done.stdout
    named = run_here("organize", "--dry-run", "--csv", table, "--collection", "rsna", "--batch")
    assert named.stdout.splitlines()[:12] == done.stdout.splitlines()[:12]
    assert plan(source=tmp_path).facts == plan(csv=table).facts


def test_a_list_may_name_what_is_left_out_as_the_table_does(copies, tmp_path):
    listed = tmp_path / "listed.txt"
    listed.write_text("101\n1020\n103_1030\nrsna_104\n")
    facts = plan(source=copies, exclude=listed).facts
    assert facts["left_out"][0]["images"] == 2 + 1 + 1 + 2


def test_questions_show_what_each_answer_leaves(copies):
    answers = {"source": copies, "collection": "auto", "question": "malignant-rest"}
    assert collection_of(answers) == "rsna"
    counts = live_counts("question", answers)
    assert counts["malignant-rest"] == "24 images (3 malignant), 12 patients"
    assert counts["abnormal-normal"] == "24 images (8 abnormal), 12 patients"
    assert counts["benign-malignant"] == "8 images (3 malignant), 5 patients"
    assert live_counts("laterality", answers)["right"].startswith("12 images (0 malignant)")


@pytest.mark.parametrize("where", ["..", "png/101"])
def test_a_wrong_folder_is_answered_with_the_right_one(copies, tmp_path, where):
    with pytest.raises(UserError, match=r"RSNA Screening Mammography.* seems to lie in \S*/raw"):
        run((copies / where).resolve(), tmp_path.parent / "out")


def test_a_table_without_its_images_says_where_they_belong(tmp_path):
    write_table(tmp_path / "raw" / "train.csv", some_rows())
    with pytest.raises(UserError, match=r"holds none of the 24 images .*train_images/100/1000"):
        run(tmp_path / "raw", tmp_path / "out")


def test_other_tables_are_not_taken_for_it(copies, tmp_path):
    other = tmp_path / "other"
    write_table(other / "train.csv", [{"image_id": 1, "patient_id": 2, "label": "cancer"}])
    assert collection_of({"source": other}) != "rsna"
    write_table(copies / "test.csv", [row(1, 2)], columns=COLUMNS[:6])  # as Kaggle's lies beside
    assert plan(source=copies).facts["rows"] == 24
    (copies / "train.csv").rename(copies / "folds.csv")
    assert plan(source=copies).facts["rows"] == 24
    shutil.copyfile(copies / "folds.csv", copies / "more.csv")
    with pytest.raises(UserError, match=r"holds 2 tables \(folds.csv, more.csv\); name one with"):
        plan(source=copies)
