"""Bands, reliability and net benefit against figures that are known."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from models.evaluation.bands import (
    REPLICATES,
    bootstrap_weights,
    enough,
    net_benefit,
    precision_band,
    reliability,
    roc_band,
)
from models.evaluation.units import Unit
from models.metrics import measure


def unit(patients=60, images=2, seed=0, apart=1.0):
    """Images of patients of whom every second has cancer; malignant patients score higher."""
    noise = np.random.default_rng(seed)
    keys, names, targets, scores = [], [], [], []
    for patient in range(patients):
        malignant = bool(patient % 2)
        own = noise.normal()
        for view in range(images):
            score = 1 / (1 + np.exp(-(apart * malignant + own + 0.3 * noise.normal())))
            keys.append(f"I{patient}{view}")
            names.append(f"P{patient}")
            targets.append(malignant)
            scores.append(score)
    found = np.array(targets)
    return Unit(keys, names, found, np.array(scores), ~found.astype(bool))


def test_net_benefit_is_that_of_the_published_example():
    # Vickers & Elkin 2006: sensitivity and specificity at a threshold of 10 %, 40 % prevalence.
    targets = np.arange(1000) < 400
    scores = np.where(np.arange(1000) % 10 < 7, 0.5, 0.05)
    tp, fp = (scores[targets] > 0.1).sum(), (scores[~targets] > 0.1).sum()
    expected = tp / 1000 - fp / 1000 * 0.1 / 0.9
    (found,) = net_benefit(targets, scores, np.array([0.1]), np.ones((1, 1000)))
    assert found[0] == pytest.approx(expected)


def test_net_benefit_of_calling_all_malignant_crosses_zero_at_the_prevalence():
    targets = np.arange(50) < 15
    found = net_benefit(targets, np.ones(50), np.array([0.0, 0.3, 0.5]), np.ones((1, 50)))[0]
    assert found == pytest.approx([0.3, 0.0, 0.3 - 0.7])


def test_reliability_is_scikit_learns():
    images = unit(200)
    found = reliability(images, images.scores, seed=1)
    share, mean = calibration_curve(images.targets, images.scores, n_bins=10)
    assert found.shares == pytest.approx(share)
    assert found.means == pytest.approx(mean)
    assert (found.low <= found.shares).all()
    assert (found.shares <= found.high).all()


def test_roc_band_is_of_patients_not_of_images():
    once = unit(80, 1)
    twice = Unit(once.keys * 2, once.patients * 2, np.tile(once.targets, 2),
                 np.tile(once.scores, 2), np.tile(once.normal, 2))  # fmt: skip
    for make in (roc_band, precision_band):
        one, two = make(once, 3), make(twice, 3)
        assert two.low == pytest.approx(one.low)
        assert two.high == pytest.approx(one.high)


def test_roc_band_has_the_spread_of_the_auc():
    images = unit(100, seed=4)
    band = roc_band(images, 5)
    curve = roc_auc_score(images.targets, images.scores)
    weights = np.concatenate(list(bootstrap_weights(images, 5)))
    assert len(weights) <= REPLICATES
    areas = measure(images.targets, images.scores, 0.5, weights)["auc"]
    assert np.trapezoid(band.low, band.x) < np.percentile(areas, 2.5) + 0.01 < curve
    assert curve < np.percentile(areas, 97.5) - 0.01 < np.trapezoid(band.high, band.x)
    assert (np.diff(band.low) >= 0).all()


def test_there_is_no_band_over_a_handful_of_patients():
    assert not enough(unit(4))
    assert enough(unit(6))
