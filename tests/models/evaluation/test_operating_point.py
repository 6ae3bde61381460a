import numpy as np
import pytest

from models.evaluation.operating_point import CHOICES, OperatingPoint, choose
from models.metrics import confusion, youden_threshold


def example(count=200, seed=0, decimals=2):
    generator = np.random.default_rng(seed)
    targets = generator.random(count) < 0.4
    scores = np.clip(generator.normal(0.4 + 0.2 * targets, 0.2), 0, 1).round(decimals)
    return targets, scores


def rates(targets, scores, threshold):
    table = confusion(targets, scores, threshold)
    sensitivity = table["tp"] / (table["tp"] + table["fn"])
    return sensitivity, table["tn"] / (table["tn"] + table["fp"])


def every_threshold(scores):
    return [*np.unique(scores), 2.0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.5, 0.9, 0.925, 1.0])
def test_a_sensitivity_is_reached_by_the_highest_threshold_that_does(seed, target):
    targets, scores = example(seed=seed)
    found = choose("sensitivity", target, targets, scores).threshold
    sensitivity, specificity = rates(targets, scores, found)
    assert sensitivity >= target
    assert specificity == max(
        rates(targets, scores, one)[1]
        for one in every_threshold(scores)
        if rates(targets, scores, one)[0] >= target
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.5, 0.9, 0.925, 1.0])
def test_a_specificity_is_reached_by_the_lowest_threshold_that_does(seed, target):
    targets, scores = example(seed=seed)
    found = choose("specificity", target, targets, scores).threshold
    sensitivity, specificity = rates(targets, scores, found)
    assert specificity >= target
    assert sensitivity == max(
        rates(targets, scores, one)[0]
        for one in every_threshold(scores)
        if rates(targets, scores, one)[1] >= target
    )


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0, 10.0, 1000.0])
def test_the_costs_are_least(ratio):
    def cost(threshold):
        table = confusion(targets, scores, threshold)
        return table["fp"] + ratio * table["fn"]

    targets, scores = example()
    found = choose("cost", ratio, targets, scores).threshold
    assert cost(found) == pytest.approx(min(cost(one) for one in every_threshold(scores)))


def test_youden_is_the_one_of_the_metrics():
    targets, scores = example()
    assert choose("youden", 0.0, targets, scores).threshold == youden_threshold(targets, scores)


@pytest.mark.parametrize(
    ("choice", "target", "expected"),
    [
        ("youden", 0.0, 0.45),
        ("sensitivity", 0.3, 0.85),
        ("sensitivity", 1.0, 0.45),
        ("specificity", 0.6, 0.45),
        ("specificity", 1.0, 0.7),
        ("cost", 0.5, 0.7),
        ("cost", 1.0, 0.45),
        ("half", 0.0, 0.5),
    ],
)
def test_thresholds_lie_half_way_between_neighbouring_scores(choice, target, expected):
    targets = np.array([True, True, False, True, False, False])
    scores = np.array([0.9, 0.8, 0.6, 0.5, 0.4, 0.1])
    assert choose(choice, target, targets, scores).threshold == pytest.approx(expected)


@pytest.mark.parametrize("highest", [0.9, 1.0])
def test_a_specificity_may_mean_that_nothing_is_called(highest):
    targets, scores = np.array([False, True, False]), np.array([highest, 0.5, 0.1])
    found = choose("specificity", 1.0, targets, scores).threshold
    assert confusion(targets, scores, found) == {"tn": 2, "fp": 0, "fn": 1, "tp": 0}
    assert found < 1 or highest == 1


@pytest.mark.parametrize(
    ("choice", "target", "rule"),
    [
        ("youden", 0.0, "Youden's J on validation"),
        ("sensitivity", 0.9, "sensitivity of at least 0.90 on validation"),
        ("sensitivity", 0.925, "sensitivity of at least 0.925 on validation"),
        ("specificity", 1.0, "specificity of at least 1.00 on validation"),
        ("cost", 10.0, "fewest false alarms + 10 x missed cancers on validation"),
        ("half", 0.0, "a probability of 0.5"),
    ],
)
def test_the_rule_says_how_it_was_chosen(choice, target, rule):
    assert choose(choice, target, *example()).rule == rule


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "half"])
@pytest.mark.parametrize("label", [True, False])
def test_one_class_is_called_at_one_half(choice, label):
    found = choose(choice, 0.9, np.full(4, label), np.linspace(0, 0.3, 4))
    assert found == OperatingPoint(0.5, "0.5, because validation shows one class only")


def test_a_sensitivity_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"sensitivity of 1\.5"):
        choose("sensitivity", 1.5, *example())


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_highest_and_of_equal_ones_the_most_sensitive(seed):
    def f1(threshold):
        table = confusion(targets, scores, threshold)
        return 2 * table["tp"] / (2 * table["tp"] + table["fp"] + table["fn"])

    targets, scores = example(seed=seed)
    found = choose("f1", 0, targets, scores)
    best = max(f1(one) for one in every_threshold(scores))
    assert f1(found.threshold) == pytest.approx(best)
    lower = [one for one in np.unique(scores) if one < found.threshold]
    assert all(f1(one) < best - 1e-12 for one in lower)
    assert found.rule == "highest F1 on validation"
