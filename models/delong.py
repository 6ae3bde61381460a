"""DeLong's covariance of AUCs on the same images, which is in no required library."""

import math

import numpy as np
from numpy.typing import NDArray

from models.metrics import EQUAL, Floats

Flags = NDArray[np.bool_]
NAN = float("nan")


def delong(targets: Flags, scores: Floats) -> tuple[Floats, Floats]:
    """Return the AUCs of models on the same images and the covariance of these AUCs.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44:837), by midranks as in Sun & Xu 2014
    (IEEE Signal Process Lett 21:1389), so in O(N log N) for each model.

    Args:
        targets: (N,), true for malignant.
        scores: (M, N), higher is more suspicious.

    Returns:
        AUCs (M,), NaN where a class is missing, and their covariance (M, M), NaN with fewer than
        two images of either class.
    """
    models, positives, negatives = len(scores), int(targets.sum()), int((~targets).sum())
    if not positives or not negatives:
        return np.full(models, NAN), np.full((models, models), NAN)
    ranks = _midranks(scores)
    # The share of the other class that each image is on the right side of; ties count half.
    over = (ranks[:, targets] - _midranks(scores[:, targets])) / negatives
    under = 1 - (ranks[:, ~targets] - _midranks(scores[:, ~targets])) / positives
    if min(positives, negatives) < 2:
        return over.mean(axis=1), np.full((models, models), NAN)
    covariance = np.cov(over) / positives + np.cov(under) / negatives
    return over.mean(axis=1), covariance.reshape(models, models)


def _midranks(scores: Floats) -> Floats:
    """Return the rank of each score in its row (M, N), from 1; ties share their mean."""
    # Those of scipy.stats, which takes seconds to load.
    found = np.empty(scores.shape)
    for place, row in enumerate(scores):
        ordered = np.sort(row)
        found[place] = np.searchsorted(ordered, row) + np.searchsorted(ordered, row, "right")
    return (found + 1) / 2


def delong_test(areas: Floats, covariance: Floats, first: int, second: int) -> tuple[float, float]:
    """Test whether two of the AUCs of `delong` differ.

    Args:
        areas: (M,) AUCs.
        covariance: (M, M), of these.
        first: Which of the M.
        second: Which is subtracted from it.

    Returns:
        z, the difference in standard errors, and its two-sided p: 0 and 1 where the two AUCs are
        equal; both NaN where they differ without any variance, as those of two classifiers
        without a mistake in opposite directions do.
    """
    value = float(areas[first] - areas[second])
    if abs(value) <= EQUAL:
        return 0.0, 1.0
    alone = float(covariance[first, first] + covariance[second, second])
    variance = alone - 2 * float(covariance[first, second])
    # Below this, rounding is all that is left of the variance.
    z = value / math.sqrt(variance) if variance > EQUAL * alone else NAN
    return z, math.erfc(abs(z) / math.sqrt(2))
