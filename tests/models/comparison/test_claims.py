"""Sentences on detectors follow from intervals: no claim without a plain score beaten."""

import numpy as np
import pytest

from models.bootstrap import Estimate
from models.comparison.claims import on_accuracy, on_cost, on_reliability, verdict
from models.comparison.costs import Costs
from models.comparison.seeds import Stability
from models.comparison.significance import Pair
from models.comparison.subjects import CLASSIFIER, DETECTOR, PLAIN, Subject
from models.evaluation.units import Unit
from pipeline.runs import Run

NOWHERE = Unit([], [], np.zeros(0, bool), np.zeros(0), np.zeros(0, bool))


def subject(name, kind, tmp_path, val=0.8):
    area = Estimate(0.8, 0.7, 0.9)
    run = None if kind == PLAIN else Run(tmp_path / name / "1")
    measured = {"splits": {"val": {"metrics": {"auc": {"value": val}}}}}
    return Subject(name, kind, NOWHERE, area, area, run, {}, {} if kind == PLAIN else measured)


def pair(first, second, low, high, p=0.001):
    return Pair(first, second, (low + high) / 2, low, high, p, p, p, p)


@pytest.fixture
def four(tmp_path):
    return [
        subject("CAE", DETECTOR, tmp_path), subject("ResNet18", CLASSIFIER, tmp_path),
        subject("Mean brightness", PLAIN, tmp_path), subject("Local contrast", PLAIN, tmp_path),
    ]  # fmt: skip


def said(four, *, plain=(0.1, 0.2), beside=(0.05, 0.1), p=0.001):
    labels = {one.name: one.name for one in four}
    pairs = [
        pair("CAE", "Mean brightness", 0.1, 0.2), pair("CAE", "Local contrast", *plain),
        pair("ResNet18", "Mean brightness", 0.1, 0.2), pair("ResNet18", "Local contrast", 0.1, 0.2),
        pair("CAE", "ResNet18", *beside, p),
    ]  # fmt: skip
    return " ".join(on_accuracy(four[:2], four, pairs, labels))


def test_a_plain_score_that_is_not_beaten_leaves_nothing_to_claim(four):
    found = said(four, plain=(-0.01, 0.2))
    assert found.startswith("No claim for CAE, which does not beat local contrast alone.")
    assert "CAE is more accurate" not in found


@pytest.mark.parametrize(
    ("beside", "p", "words"),
    [
        ((0.05, 0.1), 0.001, "CAE is more accurate than ResNet18 (+0.075 AUC, +0.050 to +0.100)."),
        ((-0.1, -0.05), 0.001, "CAE is less accurate than ResNet18"),
        ((-0.01, 0.1), 0.2, "CAE is equal in accuracy, as far as the intervals tell, to ResNet18"),
        ((0.01, 0.1), 0.08, "but not after correction for all tests: no claim."),
        ((np.nan, np.nan), np.nan, "cannot be compared"),
    ],
)
def test_what_is_said_of_accuracy_follows_from_the_interval(four, beside, p, words):
    found = said(four, beside=beside, p=p)
    assert found.startswith("CAE beats both plain scores.")
    assert words in found


def test_a_pair_reads_the_same_from_both_sides():
    pairs = [pair("A", "B", 0.1, 0.3)]
    assert verdict(pairs, "A", "B").word == "better"
    turned = verdict(pairs, "B", "A")
    assert turned.word == "worse"
    assert (turned.low, turned.high) == pytest.approx((-0.3, -0.1))


def test_reliability_needs_seeds_and_an_interval_that_leaves_out_one():
    wide = Stability("CAE", DETECTOR, (0.5, 0.6, 0.7, 0.8, 0.9), "")
    narrow = Stability("ResNet18", CLASSIFIER, (0.69, 0.70, 0.71, 0.70, 0.70), "")
    assert "CAE is less reliable than ResNet18" in " ".join(on_reliability([wide, narrow]))
    alike = Stability("ResNet18", CLASSIFIER, (0.5, 0.62, 0.7, 0.8, 0.88), "")
    assert "CAE is equally reliable" in " ".join(on_reliability([wide, alike]))
    once = Stability("ResNet18", CLASSIFIER, (0.7,), "")
    assert on_reliability([wide, once]) == [
        "How reliable is ResNet18? Not known: one seed was trained."
    ]


def test_cheaper_is_what_the_interval_of_rounds_says(four):
    points = {
        "c": {"step": {"256": [1.0, 1.1, 0.9]}, "forward": {"256": [1.0, 3.0, 0.5]}},
        "r": {"step": {"256": [4.0, 4.2, 3.9]}, "forward": {"256": [1.0, 1.0, 1.0]}},
    }
    labels = {one.name: one.name for one in four}
    (line,) = on_cost(four[:2], {"CAE": "c", "ResNet18": "r"}, Costs({}, points), labels)
    assert line.startswith("CAE is cheaper in a training step (0.25, ")
    assert "not cheaper nor dearer in a forward pass" in line
