"""Curves with 95 % bands from a bootstrap over patients, on a fixed grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interface.report.runs import Prediction
from models.bootstrap import enough_patients, patient_weights
from models.evaluation.decision_curve import net_benefit
from models.metrics import bin_of, cumulated

Floats = NDArray[np.float64]
REPLICATES = 500
GRID = np.linspace(0, 1, 100)


@dataclass(frozen=True)
class Band:
    """A curve's 95 % band.

    Attributes:
        x: (G,) places on the horizontal axis.
        low: (G,) of the band.
        high: (G,) of the band.
    """

    x: Floats
    low: Floats
    high: Floats

    @property
    def lower(self) -> list[tuple[float, float]]:
        """Its lower edge as points."""
        return list(zip(self.x.tolist(), self.low.tolist(), strict=True))

    @property
    def upper(self) -> list[tuple[float, float]]:
        """Its upper edge as points."""
        return list(zip(self.x.tolist(), self.high.tolist(), strict=True))


class Drawn:
    """The images of a split, and how often each was drawn in every bootstrap replicate."""

    def __init__(self, rows: Sequence[Prediction], seed: int) -> None:
        """Draw patients with replacement, `REPLICATES` times.

        Args:
            rows: One for each image.
            seed: Of the bootstrap.
        """
        self.targets = np.array([row.malignant for row in rows], bool)
        self.scores = np.array([row.probability for row in rows], np.float64)
        self.raw = np.array([row.raw for row in rows], np.float64)
        self._patients = np.array([row.patient_id for row in rows])
        self._seed = seed

    @property
    def enough(self) -> bool:
        """Whether both classes show enough patients for a bootstrap to say something."""
        return enough_patients(self.targets, self._patients)

    def weights(self) -> Iterator[Floats]:
        """Yield (r, N) weights in which both classes were drawn."""
        for weights in patient_weights(self._patients.tolist(), REPLICATES, self._seed):
            both = (weights @ self.targets > 0) & (weights @ ~self.targets > 0)
            yield weights[both]


def _band(x: Floats, curves: Sequence[Floats]) -> Band:
    """Return the band of curves (R, G), replicate by replicate; NaN counts not."""
    low, high = np.nanpercentile(np.concatenate(curves), (2.5, 97.5), axis=0)
    return Band(x, low, high)


def roc_band(drawn: Drawn) -> Band:
    """Return the band of the sensitivity at each false positive rate (Macskassy & Provost 2004)."""
    curves = []
    for weights in drawn.weights():
        _, positives, negatives = cumulated(drawn.targets, drawn.scores, weights)
        curves += [
            np.interp(GRID, np.append(0, false / false[-1]), np.append(0, true / true[-1]))[None]
            for true, false in zip(positives, negatives, strict=True)
        ]
    return _band(GRID, curves)


def precision_band(drawn: Drawn) -> Band:
    """Return the band of the precision at each sensitivity, in the steps of average precision."""
    curves = []
    for weights in drawn.weights():
        _, positives, negatives = cumulated(drawn.targets, drawn.scores, weights)
        for true, false in zip(positives, negatives, strict=True):
            place = np.searchsorted(true / true[-1], GRID[1:] - 1e-9)
            curves.append((true[place] / (true[place] + false[place]))[None])
    return _band(GRID[1:], curves)


def benefit_band(drawn: Drawn, thresholds: Floats) -> Band:
    """Return the band of the net benefit at each threshold."""
    curves = [
        net_benefit(drawn.targets, drawn.scores, thresholds, weights) for weights in drawn.weights()
    ]
    return _band(thresholds, curves)


@dataclass(frozen=True)
class Reliability:
    """The share of malignant images against the predicted probability.

    Attributes:
        means: (B,) mean probability of each bin that holds images.
        shares: (B,) share of malignant images in it.
        counts: (B,) images in it.
        low: (B,) of the share's 95 % interval, NaN where there is none.
        high: (B,) of the same.
    """

    means: Floats
    shares: Floats
    counts: NDArray[np.int_]
    low: Floats
    high: Floats


def reliability(drawn: Drawn, scores: Floats, intervals: bool) -> Reliability:
    """Sort images into equally wide bins of probability, those of the calibration error.

    Args:
        drawn: The images.
        scores: (N,) their probabilities, before or after calibration.
        intervals: Whether to bootstrap the shares.
    """
    index = bin_of(scores)
    used = np.unique(index)
    member = (index[:, None] == used).astype(np.float64)  # (N, B)
    counts = member.sum(axis=0)
    nan = np.full(len(used), np.nan)
    low, high = nan, nan
    if intervals and drawn.enough:
        drawn_shares = []
        for weights in drawn.weights():
            below = weights @ member
            above = weights @ (member * drawn.targets[:, None])
            share = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
            drawn_shares.append(share)
        band = _band(nan, drawn_shares)
        low, high = band.low, band.high
    return Reliability(
        means=scores @ member / counts,
        shares=drawn.targets @ member / counts,
        counts=counts.astype(int),
        low=low,
        high=high,
    )
