import csv
import os
from pathlib import Path

import pytest

from pipeline.options import defaults
from pipeline.stages.data import Organize
from sources.cbis_ddsm.collection import describe, live_counts
from sources.cbis_ddsm.plan import plan_dataset
from sources.cbis_ddsm.tables import CaseCsv, read_case_csvs
from tests.organize_data.reading import REAL, case_rows, film_of, needs_real, series_of
from tests.sources.cbis_ddsm.test_cohort import lesion


def tables(*lesions):
    kinds = sorted({(one.finding, one.split) for one in lesions}, reverse=True)
    return [
        CaseCsv(Path(), *kind, tuple(x for x in lesions if (x.finding, x.split) == kind))
        for kind in kinds
    ]


def calc(patient="P_00001", **changes):
    return lesion(patient, finding="calcification", **changes)


def test_a_film_stored_twice_counts_twice_as_stored_and_once_merged():
    facts = describe(
        tables(
            lesion(pathology="MALIGNANT", mammogram_series="1.1", crop_series="1.2"),
            calc(mammogram_series="2.1", crop_series="2.2", mask_series="2.2"),
            calc("P_00002", mammogram_series="2.3", crop_series="2.4", mask_series="2.5"),
        )
    )
    everything = facts["case_descriptions"]["all"]
    assert (everything["mammograms"], facts["mammograms"], everything["patients"]) == (3, 2, 2)
    assert facts["twins"] == {
        "all": 1, "both train": 1, "both test": 0, "train and test": 0, "with different labels": 1,
    }  # fmt: skip
    assert facts["mixed_mammograms"] == {"as stored": 0, "twins merged": 1}
    assert (facts["series"], facts["files"]) == (7, 9)


@pytest.mark.parametrize(
    ("mass", "other", "expected"),
    [
        ("train", "train", ("both train", 0, 0)),
        ("test", "test", ("both test", 0, 0)),
        ("train", "test", ("train and test", 1, 0)),
        ("test", "train", ("train and test", 0, 1)),
    ],
)
def test_twins_and_pooled_patients_are_told_by_where_their_copies_are(mass, other, expected):
    facts = describe(tables(lesion(split=mass), calc(split=other)))
    kind, forth, back = expected
    assert [name for name, count in facts["twins"].items() if count] == ["all", kind]
    assert facts["pooled_patients"] == {
        "all": forth + back,
        "mass train, calc test": forth,
        "mass test, calc train": back,
    }


def test_a_patient_may_be_pooled_without_a_film_in_common():
    facts = describe(tables(lesion(split="test"), calc(view="MLO")))
    assert (facts["pooled_patients"]["all"], facts["twins"]["all"]) == (1, 0)


def test_the_synthetic_collection_counts_as_a_plain_reader_counts_it(collection):
    counts = describe(read_case_csvs(collection, None))["case_descriptions"]
    for finding in ("mass", "calc"):
        for split in ("train", "test"):
            lines = [x for x in case_rows(collection, finding) if x["split"] == split]
            films = {series_of(line, "image file path") for line in lines}
            malignant = {
                series_of(x, "image file path") for x in lines if x["pathology"] == "MALIGNANT"
            }
            found = counts[f"{finding} {split}"]
            assert found["rows"] == len(lines)
            assert found["patients"] == len({line["patient_id"] for line in lines})
            assert (found["mammograms"], found["malignant"]) == (len(films), len(malignant))
            assert found["benign"] == len(films - malignant)


@needs_real
def test_the_real_mass_counts_and_the_original_cohort():
    facts = describe(read_case_csvs(REAL, None))
    assert facts["case_descriptions"]["mass train"] == {
        "rows": 1318, "patients": 691, "mammograms": 1231, "malignant": 602, "benign": 629,
        "mixed": 6, "MALIGNANT": 637, "BENIGN": 577, "BENIGN_WITHOUT_CALLBACK": 104,
    }  # fmt: skip
    assert facts["case_descriptions"]["mass test"]["mixed"] == 2
    options = Organize(source=REAL, dry_run=True, cohort="original")
    splits = plan_dataset(options).facts()["planned"]
    assert splits["train"]["images"] + splits["val"]["images"] == 1152
    assert splits["test"]["images"] == 329


# --- live counts


def answers(source, **given):
    return defaults(Organize) | {"source": source} | given


def test_each_choice_says_what_would_be_left(collection):
    counts = live_counts("finding", answers(collection))
    lines = case_rows(collection, "mass")
    films, patients = {film_of(x) for x in lines}, {x["patient_id"] for x in lines}
    test = {film_of(x) for x in lines if x["split"] == "test"}
    assert counts["mass"] == f"{len(films)} images ({len(test)} test), {len(patients)} patients"
    assert counts.keys() == {"mass", "calc", "both"}
    crops = live_counts("finding", answers(collection, unit="crop"))
    assert crops["mass"].startswith(f"{len(lines)} images")
    patches = live_counts("unit", answers(collection))["patch"]
    assert patches.startswith(f"{2 * len(lines)} images")


def test_counts_follow_an_edited_csv_and_are_absent_without_one(copy_of_csvs):
    before = live_counts("unit", answers(copy_of_csvs))
    (table,) = copy_of_csvs.glob("mass_case_description_train*")
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines[:-1])
    assert live_counts("unit", answers(copy_of_csvs)) != before
    table.unlink()
    for path in copy_of_csvs.glob("*.csv"):
        path.unlink()
    assert live_counts("unit", answers(copy_of_csvs)) == {}


@pytest.fixture
def copy_of_csvs(collection, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in collection.glob("*_case_description_*.csv"):
        (folder / path.name).write_bytes(path.read_bytes())
        os.utime(folder / path.name, (1, 1))
    return folder
