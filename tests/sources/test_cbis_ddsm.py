import csv
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.progress import Silent
from sources.cbis_ddsm import Lesion, read_case_csv, read_case_csvs
from sources.cbis_ddsm_cohort import assign_splits, plan_cohort, validation_patients
from sources.cbis_ddsm_files import index_files, is_mask
from sources.images import write_png

REAL = Path(__file__).parents[3] / "shared" / "real_cbis_ddsm"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real case descriptions are not here")
SHAPES = {"mass": ("mass shape", "mass margins"), "calc": ("calc type", "calc distribution")}
LONG = {"mass": "mass", "calc": "calcification"}


def row(finding="mass", split="Training", patient="P_00001", number=1, **changes):
    """One row of a case description as the official files have it, line break included."""
    film = f"{finding.capitalize()}-{split}_{patient}_LEFT_CC"
    uid = f"1.3.6.{int(patient[2:])}.{number}"
    values = {
        "patient_id": patient,
        "breast_density" if finding == "mass" else "breast density": "3",
        "left or right breast": "LEFT",
        "image view": "CC",
        "abnormality id": str(number),
        "abnormality type": LONG[finding],
        SHAPES[finding][0]: "IRREGULAR",
        SHAPES[finding][1]: "N/A",
        "assessment": "4",
        "pathology": "MALIGNANT",
        "subtlety": "0",
        "image file path": f"{film}/1.1/{uid}.1/000000.dcm",
        "cropped image file path": f"{film}_{number}/1.2/{uid}.2/000000.dcm",
        "ROI mask file path": f"{film}_{number}/1.2/{uid}.3/000001.dcm\n",
    }
    return values | changes


def save(path, rows, columns=None, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        names = columns or list(rows[0])
        writer = csv.DictWriter(file, names, delimiter=delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def lesion(patient="P_00001", split="train", pathology="BENIGN", **changes):
    values = {
        "patient_id": patient, "laterality": "LEFT", "view": "CC", "finding": "mass", "number": 1,
        "split": split, "pathology": pathology, "density": 2, "assessment": 4, "subtlety": 3,
        "shape": "OVAL", "margins": "OBSCURED", "subject": "", "mammogram_series": "1.1",
        "crop_series": "1.2", "mask_series": "1.2",
    }  # fmt: skip
    return Lesion(**values | changes)


# --- the case descriptions


@pytest.mark.parametrize("finding", ["mass", "calc"])
@pytest.mark.parametrize(("folder", "split"), [("Training", "train"), ("Test", "test")])
def test_which_of_the_four_it_is_follows_from_its_content_and_not_its_name(
    tmp_path, finding, folder, split
):
    save(tmp_path / "deep" / "er" / "renamed.CSV", [row(finding, folder)])
    (table,) = read_case_csvs(tmp_path, None)
    assert (table.finding, table.split) == (LONG[finding], split)
    assert table.lesions == (
        Lesion(
            patient_id="P_00001", laterality="LEFT", view="CC", finding=LONG[finding], number=1,
            split=split, pathology="MALIGNANT", density=3, assessment=4, subtlety=0,
            shape="IRREGULAR", margins="N/A",
            subject=f"{finding.capitalize()}-{folder}_P_00001_LEFT_CC",
            mammogram_series="1.3.6.1.1.1", crop_series="1.3.6.1.1.2", mask_series="1.3.6.1.1.3",
        ),
    )  # fmt: skip


def test_csvs_beside_the_source_are_found_and_a_copy_counts_once(tmp_path):
    save(tmp_path / "mass.csv", [row()])
    save(tmp_path / "raw" / "csv" / "copy.csv", [row()])
    save(tmp_path / "calc.csv", [row("calc", "Test")])
    found = read_case_csvs(tmp_path / "raw", None)
    assert [(table.finding, table.split) for table in found] == [
        ("mass", "train"),
        ("calcification", "test"),
    ]


def test_a_given_folder_is_the_only_one_looked_in(tmp_path):
    save(tmp_path / "raw" / "mass.csv", [row()])
    save(tmp_path / "other" / "calc.csv", [row("calc")])
    (table,) = read_case_csvs(tmp_path / "raw", tmp_path / "other")
    assert table.finding == "calcification"
    (table,) = read_case_csvs(tmp_path / "raw", tmp_path / "raw" / "mass.csv")
    assert table.finding == "mass"


def test_other_tables_of_a_download_are_passed_over(tmp_path):
    save(tmp_path / "metadata.csv", [{"Series UID": "1.2", "Subject ID": "x", "Modality": "MG"}])
    save(tmp_path / "dicom_info.csv", [{"file_path": "x", "Laterality": "L", "PatientID": "y"}])
    save(tmp_path / "case.csv", [row()])
    (table,) = read_case_csvs(tmp_path, None)
    assert table.path.name == "case.csv"


def test_two_that_differ_are_refused(tmp_path):
    save(tmp_path / "a.csv", [row()])
    save(tmp_path / "b.csv", [row(pathology="BENIGN")])
    with pytest.raises(UserError, match=r"a\.csv and .*b\.csv: both describe the mass train"):
        read_case_csvs(tmp_path, None)


def test_an_edited_header_is_named_with_file_and_columns(tmp_path):
    values = row()
    values["left/right"] = values.pop("left or right breast")
    save(tmp_path / "edited.csv", [values])
    with pytest.raises(
        UserError, match=r"edited\.csv: .*lacks the columns left or right breast.*left/right"
    ):
        read_case_csvs(tmp_path, None)


def test_a_spreadsheets_semicolons_are_named(tmp_path):
    save(tmp_path / "case.csv", [row()], delimiter=";")
    with pytest.raises(UserError, match=r"case\.csv: has its columns separated by semicolons"):
        read_case_csvs(tmp_path, None)


def test_no_csv_at_all_says_which_and_where_from(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"mass_case_description_train_set\.csv.*Imaging Archive"):
        read_case_csvs(tmp_path / "raw", None)


def test_a_given_csv_that_is_another_table_is_refused(tmp_path):
    path = save(tmp_path / "metadata.csv", [{"Series UID": "1.2", "Modality": "MG"}])
    with pytest.raises(UserError, match=r"metadata\.csv: is not a case description.*Series UID"):
        read_case_csvs(tmp_path, path)
    with pytest.raises(UserError, match=r"other columns: metadata\.csv"):
        read_case_csvs(tmp_path, tmp_path)


def test_a_given_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read_case_csvs(tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pathology": "BENIGN?"}, r"row 2: pathology is 'BENIGN\?'"),
        ({"image view": ""}, "row 2: image view is ''"),
        ({"patient_id": "1"}, "row 2: patient id is '1'"),
        ({"assessment": "high"}, "row 2: assessment is 'high', not a whole number"),
        ({"image file path": "x.dcm"}, "row 2: image file path is 'x.dcm', not a path of four"),
        ({"abnormality type": "calcification"}, "row 2: abnormality type is 'calcification'"),
        (
            {"image file path": "Calc-Training_P_00001_LEFT_CC/1/2/3.dcm"},
            "row 2: image file path is .*, not one of a mass",
        ),
        (
            {"image file path": "Mass-Test_P_00001_LEFT_CC/1/2/3.dcm"},
            "holds mass test and mass train rows",
        ),
    ],
)
def test_a_value_that_the_collection_does_not_have_is_refused(tmp_path, changes, reason):
    path = save(tmp_path / "case.csv", [row(), row(**changes)])
    with pytest.raises(UserError, match=rf"case\.csv: {reason}"):
        read_case_csv(path)


def test_a_csv_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"case\.csv: holds no rows"):
        read_case_csv(save(tmp_path / "case.csv", [], columns=list(row())))


def test_the_synthetic_csvs_say_the_same_to_a_plain_reader(collection):
    for table in read_case_csvs(collection, None):
        with table.path.open(newline="", encoding="utf-8") as file:
            plain = list(csv.DictReader(file))
        assert [x.patient_id for x in table.lesions] == [x["patient_id"] for x in plain]
        assert [x.mask_series for x in table.lesions] == [
            x["ROI mask file path"].split("/")[2] for x in plain
        ]
        assert not any("\n" in str(vars(x)) for x in table.lesions)


@needs_real
def test_the_real_mass_csvs_have_their_known_counts():
    train, test = read_case_csvs(REAL, None)
    assert (len(train.lesions), len(test.lesions)) == (1318, 378)
    assert Counter(x.pathology for x in train.lesions) == {
        "MALIGNANT": 637, "BENIGN": 577, "BENIGN_WITHOUT_CALLBACK": 104,
    }  # fmt: skip
    images = plan_cohort([*train.lesions, *test.lesions], "mammogram", False).images
    assert Counter((x.split, x.label) for x in images) == {
        ("train", "malignant"): 602, ("train", "benign"): 629,
        ("test", "malignant"): 145, ("test", "benign"): 216,
    }  # fmt: skip


# --- the cohort


def test_a_film_is_malignant_where_any_lesion_is_and_lesions_are_in_order():
    shown = [
        lesion(finding="calcification", mammogram_series="1.9"),
        lesion(number=2),
        lesion(number=1, pathology="MALIGNANT"),
    ]
    (image,) = plan_cohort(shown, "mammogram", False).images
    assert image.image_id == "P_00001_LEFT_CC"
    assert image.label == "malignant"
    assert [(x.finding, x.number) for x in image.lesions] == [
        ("mass", 1),
        ("mass", 2),
        ("calcification", 1),
    ]
    assert image.series == ("1.1", "1.9")


def test_crops_are_one_image_for_each_lesion():
    shown = [lesion(), lesion(number=2, pathology="MALIGNANT"), lesion(finding="calcification")]
    images = plan_cohort(shown, "crop", False).images
    assert {x.image_id: x.label for x in images} == {
        "P_00001_LEFT_CC_mass_1": "benign",
        "P_00001_LEFT_CC_mass_2": "malignant",
        "P_00001_LEFT_CC_calc_1": "benign",
    }


def test_a_film_in_test_for_one_finding_is_a_test_image_with_all_that_is_known_of_it():
    shown = [
        lesion(split="test"),
        lesion(split="train", finding="calcification", pathology="MALIGNANT"),
        lesion(split="train", finding="calcification", view="MLO"),
        lesion("P_00002"),
    ]
    cohort = plan_cohort(shown, "mammogram", False)
    assert {(x.image_id, x.split, x.label) for x in cohort.images} == {
        ("P_00001_LEFT_CC", "test", "malignant"),
        ("P_00002_LEFT_CC", "train", "benign"),
    }
    assert (cohort.pooled_patients, cohort.pooled_images) == (1, 1)
    crops = plan_cohort(shown, "crop", False)
    assert [x.image_id for x in crops.images] == [
        "P_00001_LEFT_CC_mass_1",
        "P_00002_LEFT_CC_mass_1",
    ]
    assert (crops.pooled_patients, crops.pooled_images) == (1, 2)


def test_without_callback_is_left_out_before_films_are_formed():
    shown = [
        lesion(),
        lesion(number=2, pathology="BENIGN_WITHOUT_CALLBACK"),
        lesion("P_00002", pathology="BENIGN_WITHOUT_CALLBACK"),
    ]
    assert len(plan_cohort(shown, "mammogram", False).images) == 2
    cohort = plan_cohort(shown, "mammogram", True)
    assert [(x.image_id, len(x.lesions)) for x in cohort.images] == [("P_00001_LEFT_CC", 1)]
    assert (cohort.lesions_without_callback, cohort.images_without_callback) == (2, 1)


# --- the split


def strata(count, seed=0):
    dice = random.Random(seed)
    return {
        f"P_{number:05d}": (
            dice.choice(("benign", "malignant")),
            dice.choice(("mass", "calcification")),
            dice.choice("1234"),
        )
        for number in range(count)
    }


def test_the_choice_is_the_same_for_any_order_and_another_for_another_seed():
    patients = strata(200)
    shuffled = list(patients.items())
    random.Random(1).shuffle(shuffled)
    chosen = validation_patients(patients, 0.15, 42)
    assert validation_patients(dict(shuffled), 0.15, 42) == chosen
    assert validation_patients(patients, 0.15, 43) != chosen


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_each_label_gives_its_share_and_each_stratum_its_own_within_one(share):
    patients = strata(400)
    chosen = validation_patients(patients, share, 42)
    for label in ("benign", "malignant"):
        members = [name for name, stratum in patients.items() if stratum[0] == label]
        assert len(chosen & set(members)) == round(share * len(members))
    for stratum, count in Counter(patients.values()).items():
        taken = sum(patients[name] == stratum for name in chosen)
        assert abs(taken - share * count) < 1.1


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(("benign", "malignant"), [(2, 2), (1, 5), (0, 3), (1, 1), (50, 2)])
def test_no_label_is_emptied_and_two_patients_suffice_for_both_sides(share, benign, malignant):
    patients = {f"B{number}": ("benign", str(number)) for number in range(benign)}
    patients |= {f"M{number}": ("malignant", str(number)) for number in range(malignant)}
    chosen = validation_patients(patients, share, 7)
    for letter, count in (("B", benign), ("M", malignant)):
        held_out = sum(name.startswith(letter) for name in chosen)
        assert held_out < max(count, 1)
        assert bool(held_out) == (count >= 2)


def test_patients_are_never_divided_and_test_stays_test():
    dice = random.Random(5)
    lesions = [
        lesion(
            f"P_{number // 4:05d}",
            split="test" if number // 4 % 5 == 0 else "train",
            pathology=dice.choice(("BENIGN", "MALIGNANT")),
            laterality=("LEFT", "RIGHT")[number % 2],
            view=("CC", "MLO")[number // 2 % 2],
        )
        for number in range(400)
    ]
    images = plan_cohort(lesions, "mammogram", False).images
    splits = assign_splits(images, 0.2, 42)
    assert len(splits) == 100
    assert {name for name, split in splits.items() if split == "test"} == {
        x.patient_id for x in lesions if x.split == "test"
    }
    assert Counter(splits.values())["val"] == pytest.approx(16, abs=1)


# --- the files


def test_files_are_known_by_their_headers_whatever_their_names(collection, tmp_path):
    plain = index_files(collection, 1, Silent())
    moved = tmp_path / "moved"
    files = sorted(collection.rglob("*.dcm"))
    random.Random(1).shuffle(files)
    for number, file in enumerate(files):
        target = moved / f"a {number % 7}" / ("film" if number % 2 else "") / f"{number:06d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    index = index_files(moved, 1, Silent())
    assert index.unreadable == ()
    assert sizes(index) == sizes(plain)
    assert len(sizes(index)) > 30


def sizes(index):
    return {uid: sorted((x.bits, x.size) for x in held) for uid, held in index.series.items()}


def test_what_is_no_image_is_passed_over_and_what_should_be_one_is_told(tmp_path):
    for name in ("LICENSE", "notes.txt", "x.lnk", "._1-1.dcm", "__MACOSX/1-1.dcm", ".DS_Store"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\n" * 100)
    write_png(tmp_path / "thumbnails" / "film.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "1-1.dcm").write_text("text\n" * 100)
    (tmp_path / "1-2.DCM").write_bytes(b"")
    index = index_files(tmp_path, 1, Silent())
    assert index.series == {}
    assert index.unreadable == (
        ("1-1.dcm", "is a text file, not DICOM"),
        ("1-2.DCM", "is empty"),
    )


def test_a_jpeg_copy_is_known_by_its_folder(tmp_path):
    uid = "1.3.6.1.4.1.9590.100.1.2.1"
    write_png(tmp_path / "jpeg" / uid / "1-172.png", np.zeros((4, 4), np.uint8))
    index = index_files(tmp_path, 1, Silent())
    assert [x.name for x in index.series[uid]] == [f"jpeg/{uid}/1-172.png"]


def test_16_bit_files_come_first_among_the_candidates(collection):
    index = index_files(collection, 1, Silent())
    pairs = [members for members in index.series.values() if len(members) == 2]
    assert len(pairs) > 5
    for members in pairs:
        assert [x.bits for x in index.candidates([members[0].series])] == [16, 8]


def test_a_mask_is_black_and_white_even_after_jpeg():
    mask = np.zeros((200, 200), np.uint16)
    mask[50:80, 60:90] = 65535
    assert is_mask(mask)
    ringing = mask.copy()
    ringing[50:80, 58:60] = 90 * 257
    assert is_mask(np.maximum(ringing, 8 * 257))
    assert not is_mask(np.linspace(0, 65535, 40_000).astype(np.uint16).reshape(200, 200))
