import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from models.evaluation.calibration import METHODS, Calibration, fit_calibration
from models.evaluation.operating_point import CHOICES, choose
from models.metrics import auc, measure


def logistic(logits):
    return 1 / (1 + np.exp(-logits))


def example(count=4000, temperature=1.0, seed=0):
    """Logits that are `temperature` times those of the true probabilities."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-0.3, 1.5, count)
    return generator.random(count) < logistic(logits), logits * temperature


def log_loss(targets, probabilities):
    return -np.mean(np.log(np.where(targets, probabilities, 1 - probabilities)))


def errors(targets, probabilities):
    found = measure(targets, probabilities, 0.5, np.ones((1, len(targets))))
    return found["ece"][0], found["brier"][0]


@pytest.mark.parametrize("temperature", [0.05, 0.4, 1.0, 3.0, 20.0])
def test_the_temperature_is_found(temperature):
    found = fit_calibration("temperature", *example(temperature=temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.1)


def test_the_temperature_has_the_smallest_log_loss():
    targets, logits = example(temperature=3)
    found = fit_calibration("temperature", targets, logits)
    least = min(log_loss(targets, logistic(logits / one)) for one in np.geomspace(1, 10, 2001))
    assert log_loss(targets, found.apply(logits)) == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_helps_on_other_images(method):
    targets, logits = example(temperature=4, seed=1)
    found = fit_calibration(method, *example(temperature=4))
    before, after = (errors(targets, one) for one in (logistic(logits), found.apply(logits)))
    assert after[0] < before[0] / 2
    assert after[1] < before[1]


def test_a_temperature_changes_no_ranks():
    targets, logits = example(temperature=4, seed=1)
    found = fit_calibration("temperature", *example(temperature=4))
    assert auc(targets, found.apply(logits)) == auc(targets, logits)


def test_perfectly_parted_classes_do_not_become_certain():
    targets = np.arange(40) % 2 > 0
    found = fit_calibration("temperature", targets, np.where(targets, 2.5, -2.5))
    # As if one image more of each class had been seen, of the other one: 21 of 22.
    np.testing.assert_allclose(found.apply(np.array([2.5, -2.5])), [21 / 22, 1 / 22], rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e4, 1e-6])
@pytest.mark.parametrize("method", METHODS)
def test_logits_that_are_all_alike_give_probabilities(value, method):
    targets = np.arange(30) % 3 == 0
    found = fit_calibration(method, targets, np.full(30, value, np.float32))
    probabilities = found.apply(np.array([value, value - 5, value + 5]))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if value == 0 and method == "temperature":
        assert found.temperature == 1  # nothing says another


def test_isotonic_equals_scikit_learn_within_and_beyond_what_was_seen():
    targets, logits = example(300)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    reference.fit(logistic(logits), targets)
    fresh = np.linspace(-12, 12, 501)
    found = fit_calibration("isotonic", targets, logits).apply(fresh)
    np.testing.assert_allclose(found, reference.predict(logistic(fresh)), atol=1e-12)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_facts_give_exactly_the_same_probabilities(method):
    targets, logits = example(300, temperature=2)
    found = fit_calibration(method, targets, logits.astype(np.float32))
    again = Calibration.of(json.loads(json.dumps(found.facts)))
    assert again == found
    assert set(found.facts) == {"method", "temperature", "x", "y"}
    assert again.apply(logits).tolist() == found.apply(logits).tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [np.ones(5, bool), np.zeros(5, bool), np.zeros(0, bool)])
def test_one_class_is_not_calibrated(method, targets):
    found = fit_calibration(method, targets, np.linspace(-1, 1, len(targets)))
    assert found == Calibration("none")
    np.testing.assert_allclose(found.apply(np.array([-1.0, 2.0])), logistic(np.array([-1.0, 2.0])))


def test_another_method_is_refused():
    with pytest.raises(ValueError, match="platt"):
        fit_calibration("platt", *example(10))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_labels_of_test_decide_nothing(method, choice):
    def judged(test_targets):
        """Calls of the test images, and how often they are right."""
        targets, logits = example(200, temperature=2)
        calibration = fit_calibration(method, targets, logits)
        point = choose(choice, 0.8, targets, calibration.apply(logits))
        scores = calibration.apply(example(200, seed=1)[1])
        right = measure(test_targets, scores, point.threshold, np.ones((1, 200)))["accuracy"][0]
        return calibration, point, scores.tolist(), right

    truth = example(200, seed=1)[0]
    first, second = judged(truth), judged(~truth)
    assert first[:3] == second[:3]
    assert first[3] == pytest.approx(1 - second[3])
