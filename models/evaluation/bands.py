"""95 % bands of curves, from a bootstrap over patients on a fixed grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import enough_patients, patient_weights
from models.evaluation.units import Unit
from models.metrics import Floats, bin_of, cumulated

REPLICATES = 500  # fewer than for figures in a table: a band is read by eye
GRID = np.linspace(0, 1, 100)


@dataclass(frozen=True)
class Band:
    """A curve's 95 % band: `low` and `high` (G,) at places `x` (G,) of the horizontal axis."""

    x: Floats
    low: Floats
    high: Floats


def enough(unit: Unit) -> bool:
    """Return whether both classes have enough patients for a bootstrap to say something."""
    return enough_patients(unit.targets, np.array(unit.patients))


def bootstrap_weights(unit: Unit, seed: int) -> Iterator[Floats]:
    """Yield (r, N) weights of replicates in which both classes were drawn."""
    for weights in patient_weights(unit.patients, REPLICATES, seed):
        both = (weights @ unit.targets > 0) & (weights @ ~unit.targets > 0)
        yield weights[both]


def _band(x: Floats, curves: Sequence[Floats]) -> Band:
    """Return the band of curves (R, G), one for each replicate; NaN is left out."""
    # Pointwise percentiles: each place on the axis is covered with 95 %, not the whole curve.
    low, high = np.nanpercentile(np.concatenate(curves), (2.5, 97.5), axis=0)
    return Band(x, low, high)


def roc_band(unit: Unit, seed: int) -> Band:
    """Return the band of the sensitivity at each false positive rate (Macskassy & Provost 2004)."""
    curves = []
    for weights in bootstrap_weights(unit, seed):
        _, positives, negatives = cumulated(unit.targets, unit.scores, weights)
        curves += [
            np.interp(GRID, np.append(0, false / false[-1]), np.append(0, true / true[-1]))[None]
            for true, false in zip(positives, negatives, strict=True)
        ]
    return _band(GRID, curves)


def precision_band(unit: Unit, seed: int) -> Band:
    """Return the band of the precision at each sensitivity, in the steps of average precision."""
    curves = []
    for weights in bootstrap_weights(unit, seed):
        _, positives, negatives = cumulated(unit.targets, unit.scores, weights)
        for true, false in zip(positives, negatives, strict=True):
            place = np.searchsorted(true / true[-1], GRID[1:] - 1e-9)
            curves.append((true[place] / (true[place] + false[place]))[None])
    return _band(GRID[1:], curves)


def benefit_band(unit: Unit, thresholds: Floats, seed: int) -> Band:
    """Return the band of the net benefit at each threshold."""
    curves = [
        net_benefit(unit.targets, unit.scores, thresholds, weights)
        for weights in bootstrap_weights(unit, seed)
    ]
    return _band(thresholds, curves)


@dataclass(frozen=True)
class Reliability:
    """The share of malignant images in each bin of predicted probability that holds images."""

    means: Floats  # (B,) mean probability
    shares: Floats  # (B,) share of malignant images
    counts: NDArray[np.int_]  # (B,) images
    low: Floats  # (B,) of the share's 95 % interval, NaN where there is none
    high: Floats  # (B,) of the same


def reliability(unit: Unit, scores: Floats, seed: int | None = None) -> Reliability:
    """Sort images into equally wide bins, those of the calibration error.

    Args:
        unit: The images.
        scores: (N,) their probabilities, before or after calibration.
        seed: Of the bootstrap; None for no intervals.
    """
    index = bin_of(scores)
    used = np.unique(index)
    member = (index[:, None] == used).astype(np.float64)  # (N, B)
    counts = member.sum(axis=0)
    low = high = np.full(len(used), np.nan)
    if seed is not None and enough(unit):
        drawn = []
        for weights in bootstrap_weights(unit, seed):
            images, malignant = weights @ member, weights @ (member * unit.targets[:, None])
            # A replicate may draw no patient of a bin.
            drawn.append(np.divide(malignant, images, out=np.full_like(images, np.nan),
                                   where=images > 0))  # fmt: skip
        band = _band(low, drawn)
        low, high = band.low, band.high
    return Reliability(
        means=scores @ member / counts,
        shares=unit.targets @ member / counts,
        counts=counts.astype(int),
        low=low,
        high=high,
    )


def net_benefit(
    targets: NDArray[np.bool_], scores: Floats, thresholds: Floats, weights: Floats
) -> Floats:
    """Return the net benefit of acting at each threshold (Vickers & Elkin 2006).

    It is TP / n - FP / n * t / (1 - t): true positives, less the false ones at the odds at which
    someone who acts at probability t takes them for worth it.

    Args:
        targets: (N,), true for malignant.
        scores: (N,) probabilities in [0, 1].
        thresholds: (T,) in [0, 1).
        weights: (R, N), at least 0.

    Returns:
        (R, T), at most the share of malignant images.
    """
    called = scores[:, None] >= thresholds  # (N, T)
    true, false = weights @ (called & targets[:, None]), weights @ (called & ~targets[:, None])
    odds = thresholds / (1 - thresholds)
    benefit: Floats = (true - false * odds) / weights.sum(axis=1, keepdims=True)
    return benefit
