"""The plan: both classes everywhere, every trap, nothing but the lesion predicts the label."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from sources.synthetic.files import CROP, MAMMOGRAM, MASK, file_path, plan_files
from sources.synthetic.plan import CALC, MASS, SPLITS, plan_collection

LAYOUTS = (
    "descriptive", "descriptive-2023", "descriptive-old", "classic", "csv", "rest", "kaggle",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("patients", [8, 12, 30])
def test_every_case_description_has_both_classes_and_is_clean_by_patient(seed, patients):
    films = plan_collection(seed, patients)
    assert len({film.patient_id for film in films}) == patients
    label = defaultdict(lambda: defaultdict(bool))
    for film in films:
        for finding, split in film.splits.items():
            malignant = any(
                one.pathology == "MALIGNANT" for one in film.lesions if one.finding == finding
            )
            label[finding, split][film.patient_id] |= malignant
    for finding in (MASS, CALC):
        train, test = label[finding, "train"], label[finding, "test"]
        assert not set(train) & set(test)
        least = 2 if finding == MASS and patients >= 12 else 1
        assert min(Counter(train.values())[flag] for flag in (True, False)) >= least
        assert min(Counter(test.values())[flag] for flag in (True, False)) >= 1
    assert set(label[MASS, "train"]) & set(label[CALC, "test"])


def test_a_larger_collection_holds_every_trap():
    films = plan_collection(3, 60)
    listings = plan_files(3, films)
    lesions = [one for film in films for one in film.lesions]
    assert {one.pathology for one in lesions} == {
        "MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"
    }  # fmt: skip
    assert any(len(film.splits) == 2 for film in films)
    assert any(len({one.pathology == "MALIGNANT" for one in film.lesions}) == 2 for film in films)
    assert 0 in {one.assessment for one in lesions}
    assert "N/A" in {one.margins for one in listings}
    assert {film.laterality + film.view for film in films} == {
        "LEFTCC", "LEFTMLO", "RIGHTCC", "RIGHTMLO"
    }  # fmt: skip
    views = Counter((film.patient_id, film.laterality) for film in films)
    assert set(views.values()) == {1, 2}
    assert sum(one.density == 0 for one in listings) == 1
    (swapped,) = (one for one in listings if one.swapped)
    assert (swapped.finding, swapped.split) == (CALC, "train")
    assert swapped.crop.series_uid != swapped.mask.series_uid
    together = [one for one in listings if one.crop.series_uid == one.mask.series_uid]
    assert len(listings) > len(together) > 0.9 * len(listings)
    assert {one.crop.position for one in together} == {1, 2}
    assert all({one.crop.position, one.mask.position} == {1, 2} for one in together)
    assert {one.crop.series_name for one in listings} == {CROP, MASK}
    assert {one.crop.description for one in listings} == {CROP, ""}
    assert {one.mask.description for one in listings} == {MASK, ""}
    assert {one.mammogram.description for one in listings} <= {MAMMOGRAM, ""}
    assert 1 <= sum(one.mask.mask_stretch != (1, 1) for one in listings) <= 4


def test_what_is_not_the_lesion_says_nothing_about_the_label():
    films = [film for film in plan_collection(11, 1500) if MASS in film.splits]
    masses = [[one for one in film.lesions if one.finding == MASS] for film in films]
    malignant = np.array([any(one.pathology == "MALIGNANT" for one in some) for some in masses])
    facts = {
        "right": [film.laterality == "RIGHT" for film in films],
        "view": [film.view == "CC" for film in films],
        "density": [film.density for film in films],
        "lesions": [len(some) for some in masses],
        "radius": [some[0].radius for some in masses],
        "subtlety": [some[0].subtlety for some in masses],
    }
    for name, values in facts.items():
        assert abs(np.corrcoef(np.array(values, float), malignant)[0, 1]) < 0.07, name


def test_assessment_predicts_the_label_about_as_well_as_in_reality():
    masses = [
        one for film in plan_collection(5, 1500) for one in film.lesions if one.finding == MASS
    ]
    malignant = [one.assessment for one in masses if one.pathology == "MALIGNANT"]
    benign = np.array([one.assessment for one in masses if one.pathology != "MALIGNANT"])
    auc = np.mean([np.mean(one > benign) + np.mean(one == benign) / 2 for one in malignant])
    assert 0.79 < auc < 0.87


def test_the_mass_split_is_about_80_to_20_and_balanced_like_the_real_one():
    listings = plan_files(1, plan_collection(1, 1500))
    patients = {
        split: {
            one.film.patient_id
            for one in listings
            if (one.finding, one.split) == (MASS, split)
        }
        for split in SPLITS
    }  # fmt: skip
    share = len(patients["test"]) / sum(map(len, patients.values()))
    assert 0.18 < share < 0.24
    train = [one for one in listings if (one.finding, one.split) == (MASS, "train")]
    films = {one.film.film_id for one in train}
    malignant = {one.film.film_id for one in train if one.lesion.pathology == "MALIGNANT"}
    assert 0.44 < len(malignant) / len(films) < 0.54


def test_paths_are_unique_in_every_layout():
    listings = plan_files(2, plan_collection(2, 300))
    files = {
        file.instance_uid: file for one in listings for file in (one.mammogram, one.crop, one.mask)
    }
    for layout in LAYOUTS:
        assert len({file_path(file, layout) for file in files.values()}) == len(files)
