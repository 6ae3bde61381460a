import random
from collections import Counter
from dataclasses import dataclass

import pytest

from sources.cbis_ddsm.plan import strata_of
from sources.splits import assign_folds, assign_splits, validation_patients
from tests.sources.cbis_ddsm.test_cohort import cohort_of, lesion


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


def films(patients):
    dice = random.Random(5)
    lesions = [
        lesion(
            f"P_{number // 4:05d}",
            split="test" if number // 4 % 5 == 0 else "train",
            pathology=dice.choice(("BENIGN", "MALIGNANT")),
            laterality=("LEFT", "RIGHT")[number % 2],
            view=("CC", "MLO")[number // 2 % 2],
            density=number // 4 % 3 + 1,
        )
        for number in range(4 * patients)
    ]
    return cohort_of(lesions).images


def folds_of(images, folds, seed):
    strata = strata_of(images)
    return assign_folds(assign_splits(images, strata, 0.2, seed), strata, folds, seed)


def test_patients_are_never_divided_and_test_stays_test():
    images = films(100)
    splits = assign_splits(images, strata_of(images), 0.2, 42)
    assert len(splits) == 100
    assert {name for name, split in splits.items() if split == "test"} == {
        image.patient_id for image in images if image.split == "test"
    }
    assert Counter(splits.values())["val"] == pytest.approx(16, abs=1)


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_share_training_patients_evenly_in_all_and_by_label(folds):
    images = films(100)
    assigned = folds_of(images, folds, 42)
    test = {image.patient_id for image in images if image.split == "test"}
    assert assigned.keys() == {image.patient_id for image in images} - test
    malignant = {image.patient_id for image in images if image.label == "malignant"}
    for members in (assigned, assigned.keys() & malignant, assigned.keys() - malignant):
        sizes = Counter(assigned[patient] for patient in members)
        assert set(sizes) == set(range(1, folds + 1))
        assert max(sizes.values()) - min(sizes.values()) <= 1


def test_folds_depend_on_the_seed_and_not_on_the_order():
    images = films(60)
    shuffled = random.Random(3).sample(images, len(images))
    assert folds_of(shuffled, 5, 42) == folds_of(images, 5, 42)
    assert folds_of(images, 5, 43) != folds_of(images, 5, 42)


@dataclass(frozen=True)
class Image:
    image_id: str
    patient_id: str
    split: str
    label: str = "benign"
    breast: tuple = ()


def test_a_collection_without_a_test_set_gets_one_and_its_own_splits_stay():
    patients = strata(200)
    without = [Image(name, name, "") for name in patients]
    drawn = Counter(assign_splits(without, patients, 0.2, 42, test_share=0.25).values())
    assert drawn["test"] == pytest.approx(50, abs=1)
    assert drawn["val"] == pytest.approx(30, abs=1)
    own = [Image(name, name, ("train", "val", "test")[n % 3]) for n, name in enumerate(patients)]
    splits = assign_splits(own, patients, 0.2, 42, test_share=0.25)
    assert splits == {image.patient_id: image.split for image in own}
    # A share of the test set is not drawn where nothing asks for one.
    assert "test" not in assign_splits(without, patients, 0.2, 42).values()
