"""AUCs of many models in the replicates of one bootstrap over patients.

A replicate is how often each patient was drawn. The AUC of a model in it counts the pairs of a
malignant and a benign image that the model puts in order (Hanley & McNeil 1982): patient by patient
that is a product of matrices, many times as quick as going through the sorted images.
"""

import ctypes
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import CHUNK, Counts, patient_counts
from models.metrics import EQUAL, Floats, aucs
from pipeline.progress import Advance

Flags = NDArray[np.bool_]
# Gives the pairs in order, as in `Replicates`, of some models: from counts (r, P), pairs (r,) and
# the places of the models.
Reach = Callable[[Counts, Floats, NDArray[np.intp]], NDArray[Any]]
Couples = Sequence[tuple[int, int]]  # of models, each by its place
EXACT = 2**24  # below it float32 holds every whole number
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 2**28
BLOCK = 1024  # replicates at a time
# Pairs of patients of all models together, one byte each. Above it the sorted images are gone
# through, which takes no more memory for more models.
PAIRS = 200_000_000
PAIRS_OF_ONE = 2_000_000  # of one model, above which the sorted images are quicker


@dataclass(frozen=True)
class Replicates:
    """What models reach in some replicates of the same draws."""

    # (M, r) pairs of a malignant and a benign image in order, twice; ties count once. Whole
    # numbers, so that equal models have equal ones.
    ordered: NDArray[np.floating[Any]]
    pairs: Floats  # (r,) all such pairs, twice; 0 where a class was not drawn

    @property
    def areas(self) -> Floats:
        """AUCs (r, M); NaN where a class was not drawn."""
        known = np.where(self.pairs > 0, self.pairs, np.nan)
        areas: Floats = (self.ordered / known).T
        return areas


def one_blas_thread() -> AbstractContextManager[Any]:
    """Let numpy's products of matrices run on one thread each while the block runs.

    They are small here: where another program holds a core, threads that wait for each other take
    up to fifty times as long.
    """
    return _blas().limit(limits=1, user_api="blas")  # type: ignore[no-any-return]


def keep_memory(kept: int = KEPT_BYTES) -> None:
    """Let this process keep the memory of large arrays, in bytes, for the next ones.

    glibc gives it back to the kernel and takes it again, page by page, which costs up to half of a
    training step or of measuring a run. mallopt(3) makes it keep them.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, kept)
            libc.mallopt(M_TRIM_THRESHOLD, kept)


@cache  # to look for the library takes longer than a block of few models
def _blas() -> Any:
    # It comes with scikit-learn.
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def replicates_of(
    targets: Flags,
    scores: Floats,
    patients: Sequence[str],
    replicates: int,
    seed: int,
    workers: int = 1,
) -> Iterator[Replicates]:
    """Yield what every model reaches in every replicate, some at a time.

    All models see the same draws, those of `models.bootstrap.estimates` with the same seed.

    Args:
        targets: (N,), true for malignant.
        scores: (M, N), higher is more suspicious.
        patients: The patient of each image; whole patients are drawn.
        replicates: How many draws in all.
        seed: The same gives the same draws.
        workers: Threads.
    """
    names, index = np.unique(np.asarray(patients, np.str_), return_inverse=True)
    malignant, benign = _Images.of(targets, index), _Images.of(~targets, index)
    size = len(malignant.patients) * len(benign.patients)
    if 0 < size <= PAIRS_OF_ONE and size * len(scores) <= PAIRS:
        reach, block = _by_patient(scores, malignant, benign), BLOCK
    else:
        reach, block = _by_image(targets, scores, index), max(1, CHUNK // len(index))
    shares = np.array_split(np.arange(len(scores)), min(workers, len(scores)))
    with ThreadPoolExecutor(workers) as pool:
        for counts in patient_counts(len(names), replicates, seed, block):
            pairs = 2 * malignant.total(counts) * benign.total(counts)
            with one_blas_thread():
                ordered = list(pool.map(partial(reach, counts, pairs), shares))
            yield Replicates(np.concatenate(ordered), pairs)


@dataclass(frozen=True)
class _Images:
    """The images of one class, patient by patient."""

    places: NDArray[np.intp]  # which of the N images they are
    patients: NDArray[np.intp]  # (A,) who has any
    first: NDArray[np.intp]  # (A,) the first image of each in `places`
    each: NDArray[np.intp]  # (A,) how many images each has

    @classmethod
    def of(cls, members: Flags, index: NDArray[np.intp]) -> "_Images":
        places = np.flatnonzero(members)
        places = places[np.argsort(index[places], kind="stable")]
        return cls(places, *np.unique(index[places], return_index=True, return_counts=True))

    def drawn(self, counts: Counts) -> NDArray[np.float32]:
        """Return how often each patient was drawn (A, r), of all patients' counts (r, P)."""
        return np.ascontiguousarray(counts[:, self.patients].T, np.float32)

    def total(self, counts: Counts) -> Floats:
        """Return how many images were drawn (r,)."""
        return counts[:, self.patients].astype(np.float64) @ self.each


def _by_patient(scores: Floats, malignant: _Images, benign: _Images) -> Reach:
    tables = [_ordered_pairs(row, malignant, benign) for row in scores]

    def reach(counts: Counts, pairs: Floats, models: NDArray[np.intp]) -> NDArray[Any]:
        left, right = malignant.drawn(counts), benign.drawn(counts)
        kind = np.float32 if pairs.max(initial=0) < EXACT else np.float64
        ordered = np.empty((len(models), len(counts)), kind)
        for place, model in enumerate(models.tolist()):
            found = tables[model].astype(np.float32) @ right  # (A, B) @ (B, r)
            found *= left
            np.sum(found, axis=0, dtype=kind, out=ordered[place])
        return ordered

    return reach


def _ordered_pairs(scores: Floats, malignant: _Images, benign: _Images) -> NDArray[Any]:
    """Return (A, B), twice the pairs in order of each malignant patient with each benign one."""
    left, right = scores[malignant.places][:, None], scores[benign.places]
    smallest = np.min_scalar_type(int(2 * malignant.each.max() * benign.each.max()))
    found: NDArray[Any] = (left > right).astype(smallest)
    found += left >= right
    found = np.add.reduceat(found, malignant.first, axis=0, dtype=smallest)
    return np.add.reduceat(found, benign.first, axis=1, dtype=smallest)


def _by_image(targets: Flags, scores: Floats, index: NDArray[np.intp]) -> Reach:
    def reach(counts: Counts, pairs: Floats, models: NDArray[np.intp]) -> NDArray[Any]:
        weights = np.take(counts.astype(np.float64), index, axis=1)  # (r, N)
        areas = [aucs(targets, scores[model], weights) for model in models.tolist()]
        # They are whole numbers but for rounding.
        return np.rint(np.nan_to_num(np.stack(areas)) * pairs)

    return reach


class Tally:
    """What is needed of all replicates to compare models, in memory that their number leaves alone.

    Each pair's replicates are counted by the sign of its difference; only the first of them are
    kept, for intervals.
    """

    def __init__(self, couples: Couples, keep: int) -> None:
        """Begin.

        Args:
            couples: Which models are compared.
            keep: How many replicates are kept.
        """
        self.couples = couples
        self._known = 0  # replicates so far with both classes
        self._keep = keep
        self._kept: list[Floats] = []
        # How often the first of two models is not above the other one, and not below it.
        self._not_above = np.zeros(len(couples), np.int64)
        self._not_below = np.zeros(len(couples), np.int64)
        self._others: list[tuple[int, slice, NDArray[np.intp]]] = []
        for first, some in itertools.groupby(enumerate(couples), lambda item: item[1][0]):
            places = [(place, other) for place, (_, other) in some]
            where = slice(places[0][0], places[-1][0] + 1)
            self._others.append((first, where, np.array([other for _, other in places])))

    def add_all(
        self,
        targets: Flags,
        scores: Floats,
        patients: Sequence[str],
        replicates: int,
        seed: int,
        workers: int,
        advance: Advance,
    ) -> None:
        """Draw and count replicates; the arguments are those of `replicates_of`.

        Args:
            targets: (N,), true for malignant.
            scores: (M, N), higher is more suspicious.
            patients: The patient of each image.
            replicates: How many draws in all.
            seed: Of the draws.
            workers: Threads.
            advance: Told how many were drawn.
        """
        for part in replicates_of(targets, scores, patients, replicates, seed, workers):
            self.add(part)
            advance(len(part.pairs))

    def add(self, part: Replicates) -> None:
        """Count some more replicates."""
        if self._keep > 0:
            self._kept.append(part.areas[: self._keep])
            self._keep -= len(self._kept[-1])
        ordered = part.ordered[:, part.pairs > 0]
        self._known += ordered.shape[1]
        for first, where, others in self._others:
            own, other = ordered[first], ordered[others]
            self._not_above[where] += np.count_nonzero(own <= other, axis=1)
            self._not_below[where] += np.count_nonzero(own >= other, axis=1)

    def kept(self) -> Floats:
        """Return the AUCs (R, M) of the first replicates; NaN where a class was not drawn."""
        return np.concatenate(self._kept)

    def p_values(self) -> list[float]:
        """Return the two-sided p-value of each pair.

        It is twice the share of replicates on the rarer side of 0, the data as they are counted
        as one more replicate (Davison & Hinkley 1997, section 4.2), so at least 2 / (R + 1).
        """
        rarer = np.minimum(self._not_above, self._not_below)
        found: list[float] = np.minimum(1, 2 * (rarer + 1) / (self._known + 1)).tolist()
        return found


def p_of_choice(areas: Floats, drawn: Floats, couples: Couples) -> list[float]:
    """Return p-values that allow for the choice of the best model on the same images.

    The best of many equal models is ahead of the worst by more than two models chosen beforehand
    ever are: of 60, Holm's correction over the 59 pairs of the best lets some pair differ in 46 %
    of studies, not in 5 %. So the lead in standard errors is set against the largest difference of
    any two models in each replicate (the single-step maxT of Westfall & Young 1993, section 2.3).

    Args:
        areas: (M,) AUCs.
        drawn: (R, M), of replicates on the same draws; NaN ones do not count.
        couples: The best model with others.
    """
    shifts = drawn[~np.isnan(drawn).any(axis=1)] - areas
    covariance = np.cov(shifts.T)
    own = np.diag(covariance)
    errors = np.sqrt(np.maximum(own[:, None] + own - 2 * covariance, 0))
    firsts, others = np.array(couples).T
    # Two models that are nearly equal differ by a few images: in their own tiny standard errors
    # that can be a large number. Any fixed scale is valid, so none is smaller than most.
    errors = np.maximum(errors, max(float(np.median(errors[firsts, others])), EQUAL))
    largest = np.zeros(len(shifts))
    for model in range(len(areas) - 1):
        found = np.abs(shifts[:, [model]] - shifts[:, model + 1 :]) / errors[model, model + 1 :]
        np.maximum(largest, found.max(axis=1), out=largest)
    leads = np.abs(areas[firsts] - areas[others]) / errors[firsts, others]
    beyond = len(largest) - np.searchsorted(np.sort(largest), leads - EQUAL)
    result: list[float] = ((beyond + 1) / (len(largest) + 1)).tolist()
    return result
