import json
import time

import numpy as np
import pytest

from models.bootstrap import estimates, patient_weights, tail_of
from models.evaluation.strata import FEW, strata
from models.metrics import auc, aucs
from pipeline.manifest import Row


def row(number, **columns):
    given = {"label": "malignant" if number % 2 else "benign", "patient_id": f"P_{number // 2}"}
    return Row(image_id=f"i{number}", split="test", path="x.png", **(given | columns))


def levels(rows, factor):
    """Images in each level of a factor, in the order of the table."""
    found = strata(rows, np.linspace(0, 1, len(rows)), 10, 1)
    return [(one["level"], one["images"]) for one in found if one["factor"] == factor]


def many(count):
    generator = np.random.default_rng(0)
    shapes, margins = ["ROUND", "OVAL", "IRREGULAR", "LOBULATED"], ["ILL_DEFINED", "SPICULATED"]
    return [
        row(number, finding="mass" if number % 3 else "calcification", view="CC",
            patient_id=f"P_{number // 4}", label=str(generator.choice(["benign", "malignant"])),
            laterality=("LEFT", "RIGHT")[number // 2 % 2], density=number % 4 + 1,
            subtlety=str(number % 5 + 1), assessment=str(generator.integers(6)),
            shape=str(generator.choice(shapes)), margins=str(generator.choice(margins)))
        for number in range(count)
    ]  # fmt: skip


def test_the_sources_of_a_merged_dataset_are_a_factor():
    rows = [row(number, collection="one" if number < 3 else "two") for number in range(8)]
    assert levels(rows, "collection") == [("one", 3), ("two", 5)]
    assert levels([row(number) for number in range(8)], "collection") == []


def test_an_image_with_different_values_counts_as_several():
    rows = [row(0, subtlety="3|3"), row(1, subtlety="3|4"), row(2, subtlety="3"), row(3)]
    assert levels(rows, "subtlety") == [("3", 2), ("several", 1), ("not stated", 1)]
    both = [row(0, finding="mass|calcification"), row(1, finding="mass")]
    assert levels(both, "finding") == [("mass", 1), ("several", 1)]


def test_shapes_are_those_of_masses_and_types_those_of_calcifications():
    rows = [
        row(0, finding="mass", shape="OVAL", margins="SPICULATED"),
        row(1, finding="calcification", shape="PUNCTATE", margins="CLUSTERED"),
        row(2, finding="mass|calcification", abnormality="mass 1|calcification 1|mass 2",
            shape="OVAL|PUNCTATE|OVAL", margins="SPICULATED|LINEAR|OBSCURED"),
    ]  # fmt: skip
    assert levels(rows, "mass shape") == [("OVAL", 2)]
    assert levels(rows, "mass margins") == [("SPICULATED", 1), ("several", 1)]
    assert levels(rows, "calcification type") == [("PUNCTATE", 2)]
    assert levels(rows, "calcification distribution") == [("CLUSTERED", 1), ("LINEAR", 1)]


def test_where_how_and_of_whom_an_image_was_taken_are_factors():
    ages = [39, 40, 49, 50, 79, 80, 93, None]
    rows = [row(number, age=age, site="12"[number % 2], implant="no" if number else "yes",
                machine=("170", "21")[number % 2])
            for number, age in enumerate(ages)]  # fmt: skip
    assert levels(rows, "age") == [
        ("39 and under", 1), ("40 to 49", 2), ("50 to 59", 1), ("70 to 79", 1), ("80 and over", 2),
        ("not stated", 1),
    ]  # fmt: skip
    assert levels(rows, "site") == [("1", 4), ("2", 4)]
    assert levels(rows, "machine") == [("21", 4), ("170", 4)]
    assert levels(rows, "implant") == [("no", 7), ("yes", 1)]


@pytest.mark.parametrize("labels", [("normal", "abnormal"), ("not_malignant", "malignant")])
def test_the_positive_label_is_that_of_the_question(labels):
    rows = [row(number, view="CC", label=labels[number % 2]) for number in range(40)]
    (found,) = strata(rows, np.arange(40) % 2, 10, 1)
    assert (found["malignant"], found["auc"]["value"]) == (20, 1.0)


def test_what_no_image_states_is_no_factor():
    found = strata([row(number, density=number + 1) for number in range(2)], np.zeros(2), 10, 1)
    assert [(one["factor"], one["level"]) for one in found] == [("density", "1"), ("density", "2")]
    assert strata([row(0), row(1)], np.zeros(2), 10, 1) == []


def test_a_stratum_of_all_images_has_the_figures_of_the_whole():
    rows = many(200)
    scores = np.random.default_rng(1).random(200)
    targets = np.array([one.label == "malignant" for one in rows])
    whole = estimates(targets, scores, 0.5, [one.patient_id for one in rows], 500, 3)["auc"]
    (view,) = (one for one in strata(rows, scores, 500, 3) if one["factor"] == "view")
    assert view == {
        "factor": "view", "level": "CC", "images": 200, "patients": 50,
        "malignant": int(targets.sum()), "small": False,
        "auc": {"value": whole.value, "low": whole.low, "high": whole.high},
    }  # fmt: skip


def test_every_stratum_has_the_auc_of_its_images_when_all_patients_are_drawn():
    rows = many(300)
    scores = np.random.default_rng(1).random(300)
    targets = np.array([one.label == "malignant" for one in rows])
    weights = np.concatenate(list(patient_weights([one.patient_id for one in rows], 300, 1)))
    found = [one for one in strata(rows, scores, 300, 1) if one["factor"] == "density"]
    assert [one["level"] for one in found] == ["1", "2", "3", "4"]
    for number, one in enumerate(found):
        inside = np.arange(300) % 4 == number
        areas = aucs(targets[inside], scores[inside], weights[:, inside])
        tail = tail_of(min(targets[inside].sum(), (~targets[inside]).sum()))
        low, high = np.quantile(areas, (tail, 1 - tail))
        value = auc(targets[inside], scores[inside])
        assert one["auc"] == pytest.approx({"value": value, "low": low, "high": high})
        assert one["patients"] == one["images"] == 75


@pytest.mark.parametrize(("malignant", "small"), [(FEW - 1, True), (FEW, False)])
def test_few_images_of_a_class_make_a_small_stratum(malignant, small):
    rows = [
        row(number, view="CC", label="malignant" if number < malignant else "benign")
        for number in range(40)
    ]
    (found,) = strata(rows, np.linspace(0, 1, 40), 10, 1)
    assert found["small"] is small
    assert found["malignant"] == malignant


def test_what_does_not_exist_is_null():
    one_class = [row(number, view="CC", label="benign") for number in range(20)]
    (found,) = strata(one_class, np.linspace(0, 1, 20), 10, 1)
    assert found["auc"] == {"value": None, "low": None, "high": None}
    few = [row(number, view="CC") for number in range(4)]
    (found,) = strata(few, np.linspace(0, 1, 4), 10, 1)
    assert found["auc"] == {"value": 0.75, "low": None, "high": None}
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_two_thousand_replicates_of_all_strata_of_three_thousand_images_are_quick():
    rows, scores = many(3000), np.random.default_rng(1).random(3000)
    started = time.process_time()
    found = strata(rows, scores, 2000, 1)
    assert time.process_time() - started < 5
    assert len(found) > 25
