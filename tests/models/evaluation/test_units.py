import numpy as np
import pytest

from models.evaluation.units import UNITS, grouped
from pipeline.manifest import Row

IMAGES = (
    ("a", "P_2", "LEFT", "benign", 0.2),
    ("b", "P_2", "LEFT", "malignant", 0.6),
    ("c", "P_2", "RIGHT", "benign", 0.9),
    ("d", "P_1", "LEFT", "benign", 0.3),
    ("e", "P_1", "LEFT", "benign", 0.1),
)
SCORES = np.array([image[-1] for image in IMAGES])


def rows_of(images=IMAGES):
    return [
        Row(image_id=name, patient_id=patient, split="val", label=label, path="x.png",
            laterality=side)
        for name, patient, side, label, _ in images
    ]  # fmt: skip


def test_an_image_is_itself():
    unit = grouped(rows_of(), SCORES, "image", "max")
    assert unit.keys == list("abcde")
    assert unit.patients == ["P_2", "P_2", "P_2", "P_1", "P_1"]
    assert unit.targets.tolist() == [False, True, False, False, False]
    assert unit.scores.tolist() == SCORES.tolist()


@pytest.mark.parametrize(("how", "scores"), [("max", [0.6, 0.9, 0.3]), ("mean", [0.4, 0.9, 0.2])])
def test_a_breast_is_malignant_where_any_of_its_images_is(how, scores):
    unit = grouped(rows_of(), SCORES, "breast", how)
    assert unit.keys == ["P_2 LEFT", "P_2 RIGHT", "P_1 LEFT"]
    assert unit.patients == ["P_2", "P_2", "P_1"]
    assert unit.targets.tolist() == [True, False, False]
    assert unit.scores == pytest.approx(scores)


@pytest.mark.parametrize(("how", "scores"), [("max", [0.9, 0.3]), ("mean", [1.7 / 3, 0.2])])
def test_a_patient_is_malignant_where_any_of_the_images_is(how, scores):
    unit = grouped(rows_of(), SCORES, "patient", how)
    assert unit.keys == unit.patients == ["P_2", "P_1"]
    assert unit.targets.tolist() == [True, False]
    assert unit.scores == pytest.approx(scores)


def test_without_laterality_a_breast_is_a_patient():
    nameless = rows_of([(name, patient, "", label, 0) for name, patient, _, label, _ in IMAGES])
    breast, patient = (grouped(nameless, SCORES, unit, "mean") for unit in ("breast", "patient"))
    assert breast.keys == patient.keys == ["P_2", "P_1"]
    assert breast.scores.tolist() == patient.scores.tolist()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("how", ["max", "mean"])
def test_labels_say_nothing_about_scores(unit, how):
    other = {"benign": "malignant", "malignant": "benign"}
    swapped = rows_of([(*image[:3], other[image[3]], image[4]) for image in IMAGES])
    first, second = (grouped(rows, SCORES, unit, how) for rows in (rows_of(), swapped))
    assert first.keys == second.keys
    assert first.scores.tolist() == second.scores.tolist()
    assert first.targets.tolist() != second.targets.tolist()


def test_another_way_of_putting_scores_together_is_refused():
    with pytest.raises(ValueError, match="median"):
        grouped(rows_of(), SCORES, "breast", "median")
