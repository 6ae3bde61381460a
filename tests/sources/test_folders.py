"""Plain folders: class folders and tables, as people have them, organised through the stage."""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from images.files import write_png
from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from sources.folders.classes import diagnosis_of
from sources.folders.table import columns_problem, suggested_columns
from sources.registry import collection_of, recognised
from sources.synthetic.stage import synthesize


def draw(path, seed=None):
    """Write a small picture of noise, the same for the same seed; by default its name's own."""
    noise = np.random.default_rng(hash_of(str(path)) if seed is None else seed)
    write_png(path, noise.integers(0, 60000, (24, 20), dtype=np.uint16))


def hash_of(text):
    return sum(ord(letter) * 31**place for place, letter in enumerate(text[-40:])) % 2**32


def class_folders(root, names=("benign", "malignant"), count=10, pattern="{}.png"):
    for name in names:
        for number in range(count):
            draw(root / name / pattern.format(number))
    return root


def with_table(root, lines, head="File,Patient,Class,Side,View", name="labels.csv"):
    (root / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return root


def women(root, count=12, place="images/{}.png"):
    """Write two pictures of each woman; return lines of a table about them."""
    lines = []
    for number in range(count):
        for view in ("CC", "MLO"):
            name = f"w{number}_{view}"
            draw(root / place.format(name))
            lines.append(f"{name}.png,{number},{'BM'[number % 2]},{'LR'[number // 2 % 2]},{view}")
    return lines


def run(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def planned(source, **options):
    return organize(Organize(source=source, dry_run=True, **options), Silent())


def aside(out):
    path = out / "set_aside.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def diagnoses(out):
    return Counter(row.diagnosis for row in read_manifest(out))


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
        ("abnormal", ""), ("2", ""), ("BI-RADS 4", ""), ("", ""),
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
    result = run(root, tmp_path / "out")
    reasons = aside(tmp_path / "out")
    assert reasons.pop("flat").endswith("is of one grey value")
    assert set(reasons) == {"text", "cut", "empty", "malignant/phone.heic", "normal/moving.gif",
                            "stray.png"}  # fmt: skip
    assert reasons["stray.png"] == "lies in no class folder"
    assert reasons["malignant/phone.heic"].startswith("is a .heic file, which cannot be read")
    assert "images of kinds that cannot be read: 1 .gif, 1 .heic" in result.notes
    assert "folders without an image: none of this" in result.notes
    assert diagnoses(tmp_path / "out") == {"benign": 10, "malignant": 10, "normal": 10}


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


# Tables


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


def test_a_folder_of_dicom_without_suffix(tmp_path, collection):
    films = [path for path in sorted(collection.rglob("*.dcm")) if "full mammogram" in str(path)]
    files = films[:12]
    for number, path in enumerate(files):
        place = tmp_path / "raw" / ("cancer", "normal")[number % 2] / f"IM{number:06d}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    run(tmp_path / "raw", tmp_path / "out", test_share=0.3)
    assert diagnoses(tmp_path / "out") == {"normal": 6, "malignant": 6}


def test_the_same_answer_twice_and_pseudonyms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = with_table(tmp_path / "raw", women(tmp_path / "raw"))
    run(root, tmp_path / "a")
    run(root, tmp_path / "b")
    assert (tmp_path / "a/manifest.csv").read_bytes() == (tmp_path / "b/manifest.csv").read_bytes()
    run(root, tmp_path / "c", pseudonymize=True)
    text = (tmp_path / "c" / "manifest.csv").read_text()
    assert "w1_CC" not in text
    assert text.count("\n") == 25


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
