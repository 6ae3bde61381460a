"""Intervals of measures, by a bootstrap that draws whole patients."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from models.metrics import METRICS, PF1, Floats, measure, measure_sorted

Counts = NDArray[np.unsignedinteger[Any]]
TAIL = 0.025  # on either side of a 95 % interval
INTERVAL_PATIENTS = 3  # of each class, below which a bootstrap says nothing
CHUNK = 80_000  # weights at a time: few enough for the processor's cache
KEPT = 4_000_000  # counts of patients that are not drawn again for the next run, 8 MB at most


@dataclass(frozen=True)
class Estimate:
    """A measure and its 95 % interval; NaN where it does not exist."""

    value: float
    low: float
    high: float


def patient_counts(patients: int, replicates: int, seed: int, step: int) -> Iterator[Counts]:
    """Yield how often each patient is drawn, as many draws a replicate as there are patients.

    The draws depend on these arguments alone: runs on the same patients see the same ones.

    Args:
        patients: How many there are, P.
        replicates: How many rows in all.
        seed: The same gives the same draws.
        step: Rows at a time; it changes nothing about them.

    Yields:
        (step, P) counts, fewer rows at the end; not to be written to.
    """
    if patients * replicates <= KEPT:
        drawn = _kept_counts(patients, replicates, seed)
        yield from (drawn[start : start + step] for start in range(0, replicates, step))
    else:
        yield from _drawn_counts(patients, replicates, seed, step)


@lru_cache(maxsize=4)
def _kept_counts(patients: int, replicates: int, seed: int) -> Counts:
    drawn = np.concatenate(list(_drawn_counts(patients, replicates, seed, CHUNK // patients + 1)))
    drawn.setflags(write=False)
    return drawn


def _drawn_counts(patients: int, replicates: int, seed: int, step: int) -> Iterator[Counts]:
    generator = np.random.default_rng(seed)
    smallest = np.min_scalar_type(patients)  # a patient is drawn as often as all at most
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        drawn = generator.integers(patients, size=(rows, patients))
        drawn += np.arange(rows)[:, None] * patients
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).astype(smallest)
        yield counts.reshape(drawn.shape)


def patient_weights(patients: Sequence[str], replicates: int, seed: int) -> Iterator[Floats]:
    """Yield bootstrap weights of images, drawing whole patients with replacement.

    Images of one patient are correlated, so drawing images one by one would give intervals that are
    too narrow (the cluster bootstrap, Field & Welsh 2007).

    Args:
        patients: The patient of each image, N of them.
        replicates: How many rows in all.
        seed: The same gives the same weights.

    Yields:
        (r, N) float64, how often each image was drawn; few enough rows for little memory. How
        many at a time changes nothing about them.
    """
    for counts in _image_counts(patients, replicates, seed):
        yield counts.astype(np.float64)


def _image_counts(
    patients: Sequence[str], replicates: int, seed: int
) -> Iterator[NDArray[np.int32]]:
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    step = max(1, CHUNK // len(index))
    for counts in patient_counts(len(names), replicates, seed, step):
        yield np.take(counts.astype(np.int32), index, axis=1)


def estimates(
    targets: NDArray[np.bool_],
    scores: Floats,
    threshold: float,
    patients: Sequence[str],
    replicates: int,
    seed: int,
) -> dict[str, Estimate]:
    """Return every measure with its 95 % interval from a bootstrap over patients.

    It is the expanded percentile interval (see `tail_of`).

    Replicates in which a measure does not exist (no malignant image drawn) do not count. With
    fewer than `INTERVAL_PATIENTS` patients of either class there is no interval (NaN): drawing
    the same one or two again and again would show no spread, or next to none.

    Args:
        targets: (N,), true for malignant.
        scores: (N,) probabilities in [0, 1].
        threshold: The operating point; held fixed in all replicates.
        patients: The patient of each image.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
    """
    values = measure(targets, scores, threshold, np.ones((1, len(scores))))
    measures, names = (*METRICS, PF1), np.asarray(patients)
    if not enough_patients(targets, names):
        nan = float("nan")
        return {name: Estimate(float(values[name][0]), nan, nan) for name in measures}
    order = np.argsort(-scores, kind="stable")  # once, not for every chunk
    drawn = [
        measure_sorted(targets[order], scores[order], threshold, weights)
        for weights in _image_counts(names[order].tolist(), replicates, seed)
    ]
    # The class with fewer patients limits what the replicates can show of the spread.
    tail = tail_of(fewest_patients(targets, names))
    return {
        name: with_interval(
            float(values[name][0]), np.concatenate([part[name] for part in drawn]), tail
        )
        for name in measures
    }


def fewest_patients(targets: NDArray[np.bool_], patients: NDArray[np.str_]) -> int:
    """Return how many patients the class with fewer of them has."""
    return min(len(np.unique(patients[targets == label])) for label in (True, False))


def enough_patients(targets: NDArray[np.bool_], patients: NDArray[np.str_]) -> bool:
    """Return whether each class has the patients that an interval takes."""
    return fewest_patients(targets, patients) >= INTERVAL_PATIENTS


def tail_of(patients: int) -> float:
    """Return the share of replicates to leave out at each end for a 95 % interval.

    Percentiles of few patients lie too close together: the spread of replicates is that of n - 1
    values, and their shape the normal one instead of Student's. Hesterberg 2015, The American
    Statistician 69:371, section 4.2, widens them by both: 2.3 % at 100 patients, 1.9 % at 30.

    Args:
        patients: Of the class with fewer of them, at least 2.
    """
    return float(ndtr(stdtrit(patients - 1, TAIL) * math.sqrt(patients / (patients - 1))))


def with_interval(value: float, drawn: Floats, tail: float = TAIL) -> Estimate:
    """Return a value with the interval of its replicates (R,), some maybe NaN.

    Args:
        value: Of all images.
        drawn: Of each replicate.
        tail: The share of replicates beyond each end.
    """
    # A replicate without one of the classes has no AUC; leaving it out conditions on both.
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, (tail, 1 - tail))
    return Estimate(value, float(low), float(high))
