import random
from collections import Counter

import pytest

from sources.cbis_ddsm import Lesion
from sources.cbis_ddsm_cohort import assign_splits, plan_cohort, validation_patients


def lesion(patient="P_00001", split="train", pathology="BENIGN", **changes):
    values = {
        "patient_id": patient, "laterality": "LEFT", "view": "CC", "finding": "mass", "number": 1,
        "split": split, "pathology": pathology, "density": 2, "assessment": 4, "subtlety": 3,
        "shape": "OVAL", "margins": "OBSCURED", "subject": "", "mammogram_series": "1.1",
        "crop_series": "1.2", "mask_series": "1.2",
    }  # fmt: skip
    return Lesion(**values | changes)


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
