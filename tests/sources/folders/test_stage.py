"""Plain folders: class folders and tables, organised through the stage."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from images.files import write_png
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from sources.folders.classes import diagnosis_of
from sources.registry import collection_of
from sources.synthetic.stage import synthesize
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


@pytest.fixture(scope="session")
def sorted_by_hand(once):
    def make(folder):
        synthesize(Synthesize(out=folder, collection="folders", patients=10, size="256", seed=3,
                              workers=1), Silent())  # fmt: skip
        return folder

    return once("sorted-by-hand", make)


def test_the_look_alike_keeps_its_splits_classes_and_patients(sorted_by_hand, tmp_path):
    result = run(sorted_by_hand, tmp_path / "out")
    rows = read_manifest(tmp_path / "out")
    files = sorted(sorted_by_hand.glob("*/*/*.png"))
    assert len(rows) == len(files) == 40
    by_name = {path.stem: path for path in files}
    for row in rows:
        path = by_name[row.image_id]
        assert (row.split, row.diagnosis) == path.parts[-3:-1]
        assert row.label == ("malignant" if row.diagnosis == "malignant" else "not_malignant")
        assert row.patient_id == row.image_id[:7]
        assert f"{row.laterality}_{row.view}" == row.image_id[8:]
    assert (result.set_aside, result.next_stage) == (0, "preprocess")
    assert "patients are told by P_number in the names of the images" in result.notes
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["collection"], summary["has_patients"]) == ("folders", True)


def test_it_says_what_the_probe_and_the_doctor_find(sorted_by_hand, tmp_path):
    result = run(sorted_by_hand, tmp_path / "check", check=True)
    assert result.headline.startswith("40 images of 10 patients; 0 problems")
    data = run(sorted_by_hand, tmp_path / "out", question="abnormal-normal")
    assert {"groups", "problem"} <= set(data.facts["shortcuts"])


def test_patches_without_patients_are_all_taken(tmp_path):
    """A folder of 1,429 patches: no name tells a patient."""
    root, number = tmp_path / "patches", 0
    for name, count in {"benign": 700, "malignant": 729}.items():
        for _ in range(count):
            draw(root / name / f"patch ({number}).png", number)
            number += 1
    result = planned(root)
    assert result.facts["held"]["all"]["images"] == 1429
    assert result.facts["has_patients"] is False
    splits = result.facts["splits"]
    assert sum(splits[split]["images"] for split in splits) == 1429
    assert [splits[split]["malignant"] for split in ("test", "val")] == [146, 87]
    assert any("tells no patients" in note for note in result.notes)


def test_the_same_picture_stays_in_one_split(tmp_path):
    root = class_folders(tmp_path / "raw", count=20)
    for number in range(10):
        shutil.copy(root / "benign" / f"{number}.png", root / "benign" / f"copy {number}.png")
    result = run(root, tmp_path / "out", test_share=0.4)  # else the leak guard would refuse
    rows = {row.image_id: row for row in read_manifest(tmp_path / "out")}
    for number in range(10):
        first, second = rows[f"benign_{number}"], rows[f"copy_{number}"]
        assert (first.split, first.patient_id) == (second.split, second.patient_id)
    assert any("the same picture more than once: 20 files of 10" in note for note in result.notes)


def test_the_same_picture_in_two_of_its_own_splits_is_moved_and_said(tmp_path):
    root = tmp_path / "raw"
    for split in ("Training", "valid", "TEST"):
        class_folders(root / split, count=4)
    shutil.copy(root / "Training" / "benign" / "0.png", root / "TEST" / "benign" / "9.png")
    result = run(root, tmp_path / "out")
    assert {row.split for row in read_manifest(tmp_path / "out")
            if row.image_id in ("Training_benign_0", "9")} == {"test"}  # fmt: skip
    assert any("in two of its own splits: 1" in note for note in result.notes)


def test_the_same_picture_under_two_diagnoses_is_set_aside_and_nothing_else(tmp_path):
    root = class_folders(tmp_path / "raw")
    shutil.copy(root / "benign" / "3.png", root / "malignant" / "x.png")
    run(root, tmp_path / "out")
    assert aside(tmp_path / "out") == {
        "benign/3.png": "is benign, and the same picture as malignant/x.png, which is malignant",
        "malignant/x.png": "is malignant, and the same picture as benign/3.png, which is benign",
    }
    assert len(read_manifest(tmp_path / "out")) == 19


@pytest.mark.parametrize(
    ("name", "diagnosis"),
    [
        ("Benign Masses", "benign"), ("B", "benign"), ("BENIGN_WITHOUT_CALLBACK", "benign"),
        ("Malignant", "malignant"), ("cancer", "malignant"), ("m", "malignant"),
        ("Positive", "malignant"), ("1", "malignant"), ("NORMAL", "normal"), ("0", "normal"),
        ("negative", "normal"), ("no cancer", "normal"), ("Malignant (calcification)", "malignant"),
        # Left to the person:
        ("not malignant", ""), ("suspected cancer", ""), ("benign or malignant", ""),
        ("abnormal", "abnormal"), ("2", ""), ("BI-RADS 4", ""), ("", ""),
    ],
)  # fmt: skip
def test_names_of_classes(name, diagnosis):
    assert diagnosis_of(name) == diagnosis


def test_classes_that_are_not_known_are_named_with_their_counts(tmp_path):
    root = class_folders(tmp_path / "raw", ("benign", "ill", "odd"), count=6)
    with pytest.raises(UserError, match=r"benign: 6, ill: 6, odd: 6.*--classes \"ill=") as refused:
        run(root, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    result = run(root, tmp_path / "out", classes="ILL=malignant,odd=leave-out")
    assert diagnoses(tmp_path / "out") == {"benign": 6, "malignant": 6}
    assert "left out by --classes: 6 images of odd" in result.notes
    assert "classes: ill is malignant; --classes says otherwise" in result.notes


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("il=benign", "no class is called 'il'; there are benign, ill"),
        ("ill=bad", "ill=bad is no diagnosis; give one of normal, benign"),
        ("ill", "'ill' is not written like name=benign"),
        ("ill=benign,ill=normal", "ill stands there twice"),
    ],
)
def test_classes_that_cannot_be_are_refused(given, problem, tmp_path):
    root = class_folders(tmp_path / "raw", ("benign", "ill"), count=2)
    with pytest.raises(UserError, match=problem):
        planned(root, classes=given)


def test_numbers_are_understood_where_there_are_two(tmp_path):
    root = class_folders(tmp_path / "two", ("0", "1"))
    run(root, tmp_path / "out")
    assert diagnoses(tmp_path / "out") == {"normal": 10, "malignant": 10}
    root = class_folders(tmp_path / "three", ("0", "1", "2"))
    with pytest.raises(UserError, match="0: 10, 1: 10, 2: 10"):
        planned(root)


def test_damage_is_set_aside_by_name_and_nothing_else_is_lost(tmp_path):
    root = class_folders(tmp_path / "raw", ("benign", "malignant", "normal"))
    write_png(root / "benign" / "flat.png", np.full((9, 9), 777, np.uint16))
    (root / "benign" / "text.png").write_text("no picture at all\n" * 9)
    (root / "malignant" / "cut.png").write_bytes((root / "malignant" / "1.png").read_bytes()[:300])
    (root / "malignant" / "empty.png").write_bytes(b"")
    (root / "malignant" / "phone.heic").write_bytes(b"x" * 30)
    (root / "normal" / "moving.gif").write_bytes(b"GIF89a" + b"x" * 30)
    (root / "stray.png").write_bytes((root / "benign" / "1.png").read_bytes()[:-1] + b"\0")
    (root / "none of this").mkdir()
    (root / "benign" / "more.zip").write_bytes(b"PK")
    result = run(root, tmp_path / "out")
    reasons = aside(tmp_path / "out")
    assert reasons.pop("flat").endswith("is of one grey value")
    assert set(reasons) == {"text", "cut", "empty", "malignant/phone.heic", "normal/moving.gif",
                            "stray.png"}  # fmt: skip
    assert reasons["stray.png"] == "lies in no class folder"
    assert reasons["malignant/phone.heic"].startswith("is a .heic file, which cannot be read")
    assert "images of kinds that cannot be read: 1 .gif, 1 .heic" in result.notes
    assert "folders without an image: none of this" in result.notes
    assert "packed files are not looked into: 1 (benign/more.zip)" in result.notes
    assert diagnoses(tmp_path / "out") == {"benign": 10, "malignant": 10, "normal": 10}


def test_packed_classes_are_told_to_be_unpacked(tmp_path):
    for name in ("benign.zip", "malignant.zip"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(b"PK")
    for collection in ("auto", "folders"):
        with pytest.raises(
            UserError, match=r"benign\.zip, malignant\.zip.*unpack|unpack benign\.zip"
        ):
            run(tmp_path / "raw", tmp_path / "out", collection=collection)


def test_a_mask_beside_its_image_is_its_mask(tmp_path):
    root = class_folders(tmp_path / "raw", ("benign", "malignant"))
    white = np.zeros((24, 20), np.uint16)
    white[4:9, 5:9] = 65535
    write_png(root / "benign" / "2_mask.png", white)
    run(root, tmp_path / "out")
    assert len(read_manifest(tmp_path / "out")) == 20
    with (tmp_path / "out" / "masks.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["image_id"], line["fit"], line["area"]) == ("benign_2", "same size", "20")


def test_a_folder_of_dicom_without_suffix(tmp_path, collection):
    films = [path for path in sorted(collection.rglob("*.dcm")) if "full mammogram" in str(path)]
    files = films[:12]
    for number, path in enumerate(files):
        place = tmp_path / "raw" / ("cancer", "normal")[number % 2] / f"IM{number:06d}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    run(tmp_path / "raw", tmp_path / "out", test_share=0.3)
    assert diagnoses(tmp_path / "out") == {"normal": 6, "malignant": 6}


@pytest.mark.slow
def test_the_same_answer_twice(tmp_path):
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"))
    run(root, tmp_path / "a")
    run(root, tmp_path / "b")
    assert (tmp_path / "a/manifest.csv").read_bytes() == (tmp_path / "b/manifest.csv").read_bytes()


def test_pseudonyms_leave_no_name_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line.replace("w", "Erika").replace(",1,", ",Mustermann,")
             for line in women(tmp_path / "raw", place="Erika/Erika{}.png")]  # fmt: skip
    shutil.copy(tmp_path / "raw/Erika/Erikaw2_CC.png", tmp_path / "raw/Erika/Erikaw2_MLO.png")
    lines += ["Erika99.png,3,B,L,CC", "Erika1_CC.png,77,M,L,CC"]
    root = with_table(tmp_path / "raw", [line.replace("Erika", "Erikaw") for line in lines])
    (root / "Erika" / "Erikaw3_CC.png").write_bytes(b"damaged")
    (root / "Erika" / "Nothing").mkdir()
    result = run(root, tmp_path / "out", pseudonymize=True)
    assert result.set_aside == 3
    for path in (tmp_path / "out").rglob("*"):
        assert "Erika" not in path.name
        if path.suffix in (".csv", ".json") and path.name not in ("stage.json", "answers.json"):
            text = path.read_text()
            assert "Erika" not in text, path.name
            assert "Mustermann" not in text, path.name
    assert "Erika" not in " ".join(result.notes)


@pytest.mark.slow
def test_by_flags_from_the_folder_to_preprocess(sorted_by_hand, tmp_path, run_here):
    done = run_here("organize", "--source", sorted_by_hand, "--out", "data", "--batch")
    assert done.returncode == 0, done.stderr
    assert "40 of 40 images organised" in done.stdout
    done = run_here("preprocess", "--data", "data", "--out", "pre", "--size", "64", "--batch")
    assert done.returncode == 0, done.stderr
    assert len(read_manifest(tmp_path / "pre")) == 40


def test_its_questions_are_not_those_of_cbis_ddsm(tmp_path, sorted_by_hand):
    assert collection_of({"source": sorted_by_hand}) == "folders"
    (tmp_path / "empty").mkdir()
    assert collection_of({"source": tmp_path / "empty"}) == "cbis-ddsm"


def test_abnormal_against_normal_is_asked_where_nothing_says_what_a_finding_is(tmp_path):
    raw = class_folders(tmp_path / "raw", ("Abnormal", "Normal"), count=10)
    result = run(raw, tmp_path / "out")
    assert result.facts["question"] == "abnormal-normal"
    rows = read_manifest(tmp_path / "out")
    assert {(row.diagnosis, row.label) for row in rows} == {
        ("abnormal", "abnormal"), ("normal", "normal"),
    }  # fmt: skip
    with pytest.raises(UserError, match=r"no image is left|--question"):
        run(raw, tmp_path / "other", question="malignant-rest")


def test_class_folders_of_unknown_names_are_answered_with_the_option(tmp_path):
    raw = class_folders(tmp_path / "raw", ("ill", "fine"), count=10)
    wanted = r'folders of images .fine, ill. .*--classes "fine=normal,ill=malignant"'
    with pytest.raises(UserError, match=wanted):
        run(raw, tmp_path / "out")
    run(raw, tmp_path / "out", classes="fine=normal,ill=malignant")
    labels = {row.image_id.rpartition("_")[0]: row.label for row in read_manifest(tmp_path / "out")}
    assert set(labels.values()) == {"not_malignant", "malignant"}


def draw_smooth(path, seed):
    """Write a picture of a few grey spots."""
    coarse = np.random.default_rng(seed).integers(0, 60000, (6, 5), dtype=np.uint16)
    write_png(path, cv2.resize(coarse, (100, 120), interpolation=cv2.INTER_CUBIC))


def test_copies_that_were_saved_anew_under_other_patients_are_told_of(tmp_path):
    root = class_folders(tmp_path / "raw")
    for number in range(12):  # smooth, as films are
        draw_smooth(root / "benign" / f"s{number}.png", number)
    again = cv2.imread(str(root / "benign" / "s3.png"), cv2.IMREAD_UNCHANGED)
    copy = cv2.resize(again[:, ::-1], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(root / "benign" / "copy.jpg"), (copy // 257).astype(np.uint8))
    result = run(root, tmp_path / "out")
    (note,) = (note for note in result.notes if "look like one of another patient" in note)
    assert note.startswith("2 images")
    with (tmp_path / "out" / "near_duplicates.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["image_id"] for line in lines} == {"s3", "copy"}
    (root / "benign" / "copy.jpg").unlink()
    run(root, tmp_path / "out")
    assert not (tmp_path / "out" / "near_duplicates.csv").exists()
