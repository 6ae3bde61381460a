import csv
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import plan_cohort
from sources.cbis_ddsm.tables import Lesion, read_case_csv, read_case_csvs

REAL = Path(__file__).parents[4] / "shared" / "real_cbis_ddsm"
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_a_spreadsheet_saved_says_the_same(tmp_path, delimiter, encoding):
    rows = [row(), row(patient="P_00002")]
    plain = save(tmp_path / "plain" / "case.csv", rows)
    saved = save(tmp_path / "saved" / "case.csv", rows, delimiter=delimiter)
    saved.write_bytes(saved.read_text().encode(encoding) + "\n;;\n".replace(";", delimiter).encode(
        encoding.replace("-sig", "").replace("16", "16-le")))  # fmt: skip
    assert read_case_csvs(saved.parent, None)[0].lesions == read_case_csv(plain).lesions


@pytest.mark.parametrize(
    "changes",
    [
        {"patient_id": "P_00071"},
        {"left or right breast": "RIGHT"},
        {"image view": "MLO"},
        {"cropped image file path": "Mass-Training_P_00003_LEFT_CC_1/1.2/1.3/000000.dcm"},
        {"ROI mask file path": "Mass-Training_P_00001_LEFT_MLO_1/1.2/1.3/000000.dcm"},
    ],
)
def test_a_row_that_its_own_path_contradicts_is_named(tmp_path, changes):
    path = save(tmp_path / "case.csv", [row(), row(number=2, **changes)])
    with pytest.raises(UserError, match=r"case\.csv: row 2: is of P_.*, but its .* of P_000"):
        read_case_csv(path)


def test_equal_rows_count_once(tmp_path):
    path = save(tmp_path / "case.csv", [row(), row(number=2), row(), row()])
    found = read_case_csv(path)
    assert [lesion.number for lesion in found.lesions] == [1, 2]
    assert found.repeated == (3, 4)


def test_rows_that_contradict_each_other_about_one_lesion_are_refused(tmp_path):
    path = save(tmp_path / "case.csv", [row(number=2), row(), row(pathology="BENIGN")])
    with pytest.raises(UserError, match=r"case\.csv: rows 2 and 3 say different things of one"):
        read_case_csv(path)


def test_distinct_lesions_that_share_a_number_stay(tmp_path):
    crop = "Mass-Training_P_00001_LEFT_CC_1/1.2/1.3.6.9/000000.dcm"
    rows = [row(), row(pathology="BENIGN", **{"cropped image file path": crop})]
    assert len(read_case_csv(save(tmp_path / "case.csv", rows)).lesions) == 2


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


def test_a_csv_that_broke_off_inside_a_row_is_refused(tmp_path):
    path = save(tmp_path / "case.csv", [row(), row(number=2)])
    path.write_bytes(path.read_bytes().removesuffix(b'"\r\n'))
    with pytest.raises(UserError, match=r"case\.csv: line \d+: unexpected end"):
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
    images = plan_cohort([*train.lesions, *test.lesions], Organize()).images
    assert Counter((x.split, x.label) for x in images) == {
        ("train", "malignant"): 602, ("train", "benign"): 629,
        ("test", "malignant"): 145, ("test", "benign"): 216,
    }  # fmt: skip
