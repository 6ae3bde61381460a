"""Measures of a classifier's scores, their operating point, and intervals over patients.

All of them take weights of the images, one row a bootstrap replicate, so that thousands of
replicates are a few array operations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METRICS = (
    "auc", "pr_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision",
    "f1", "mcc", "brier",
)  # fmt: skip
INTERVAL_PATIENTS = 3  # of each class, below which a bootstrap says nothing
CHUNK = 2_000_000  # weights in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A measure and its 95 % interval; NaN where it does not exist."""

    value: float
    low: float
    high: float


def cumulated(
    targets: NDArray[np.bool_], scores: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the weight of images at or above each distinct score, highest score first.

    Args:
        targets: (N,), true for malignant.
        scores: (N,), higher is more suspicious.
        weights: (R, N), at least 0.

    Returns:
        Thresholds (K,), weight of malignant images (R, K), weight of benign images (R, K).
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, sorted_targets = scores[order], targets[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    ordered = weights[:, order]  # (R, N)
    positives = np.cumsum(ordered * sorted_targets, axis=1)[:, ends]
    negatives = np.cumsum(ordered * ~sorted_targets, axis=1)[:, ends]
    return sorted_scores[ends], positives, negatives


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return result


def _auc(positives: Floats, negatives: Floats) -> Floats:
    """Area under the ROC curve by trapezoids, which counts ties half (Hanley & McNeil 1982)."""
    steps = np.diff(negatives, axis=1, prepend=0)
    heights = positives - np.diff(positives, axis=1, prepend=0) / 2
    area = (steps * heights).sum(axis=1)
    return _ratio(area, positives[:, -1] * negatives[:, -1])


def _average_precision(positives: Floats, negatives: Floats) -> Floats:
    """Area under the precision-recall curve as average precision, without interpolation."""
    gained = np.diff(positives, axis=1, prepend=0)
    flagged = positives + negatives
    precision = np.divide(positives, flagged, out=np.zeros_like(positives), where=flagged > 0)
    return _ratio((gained * precision).sum(axis=1), positives[:, -1])


def measure(
    targets: NDArray[np.bool_], scores: Floats, threshold: float, weights: Floats
) -> dict[str, Floats]:
    """Compute every measure for every row of weights.

    Args:
        targets: (N,), true for malignant.
        scores: (N,) probabilities in [0, 1].
        threshold: An image at or above it is called malignant.
        weights: (R, N), at least 0.

    Returns:
        For each of METRICS (R,); NaN where a class it needs has no weight. Precision and F1 are
        0 where no image is called malignant and MCC is 0 where all are called alike, as in
        scikit-learn.
    """
    _, positives, negatives = cumulated(targets, scores, weights)
    called = scores >= threshold
    tp, fn = weights @ (called & targets), weights @ (~called & targets)
    fp, tn = weights @ (called & ~targets), weights @ (~called & ~targets)
    total = tp + fn + fp + tn
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    known = tp + fn > 0
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    both = known & (tn + fp > 0)
    return {
        "auc": _auc(positives, negatives),
        "pr_auc": _average_precision(positives, negatives),
        "accuracy": _ratio(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": np.where(known, np.nan_to_num(_ratio(tp, tp + fp)), np.nan),
        "f1": np.where(known, _ratio(2 * tp, 2 * tp + fp + fn), np.nan),
        "mcc": np.where(both, np.nan_to_num(_ratio(tp * tn - fp * fn, spread)), np.nan),
        "brier": _ratio(weights @ (scores - targets) ** 2, total),  # Brier 1950
    }


def auc(targets: NDArray[np.bool_], scores: Floats) -> float:
    """Return the area under the ROC curve; NaN where a class is missing."""
    _, positives, negatives = cumulated(targets, scores, np.ones((1, len(scores))))
    return float(_auc(positives, negatives)[0])


def weighted_loss(
    targets: NDArray[np.bool_], logits: NDArray[Any], positive_weight: float
) -> float:
    """Return the mean binary cross-entropy of logits, malignant images weighted.

    The same figure as torch's BCEWithLogitsLoss with that pos_weight.
    """
    signed = np.where(targets, -logits, logits)
    return float(np.mean(np.where(targets, positive_weight, 1.0) * np.logaddexp(0, signed)))


def validation_figures(
    targets: NDArray[np.bool_], logits: NDArray[Any], positive_weight: float
) -> dict[str, float]:
    """Return what is watched during training, sensitivity and specificity at probability 0.5.

    Args:
        targets: (N,), true for malignant.
        logits: (N,).
        positive_weight: Of malignant images in the loss.
    """
    table = confusion(targets, logits.astype(np.float64), 0.0)
    malignant, benign = table["tp"] + table["fn"], table["tn"] + table["fp"]
    return {
        "val_loss": weighted_loss(targets, logits, positive_weight),
        "val_auc": auc(targets, logits.astype(np.float64)),
        "sensitivity": table["tp"] / malignant if malignant else float("nan"),
        "specificity": table["tn"] / benign if benign else float("nan"),
    }


def rank(figures: Mapping[str, Any]) -> tuple[float, float]:
    """Return what makes one state of a model better than another: AUC, then the smaller loss.

    Where validation lacks a class there is no AUC, and the loss decides alone.
    """
    area = figures["val_auc"]
    return (-1.0 if np.isnan(area) else area, -figures["val_loss"])


def confusion(targets: NDArray[np.bool_], scores: Floats, threshold: float) -> dict[str, int]:
    """Return the confusion matrix in images: tn, fp, fn, tp, malignant being positive."""
    called = scores >= threshold
    return {
        "tn": int((~called & ~targets).sum()),
        "fp": int((called & ~targets).sum()),
        "fn": int((~called & targets).sum()),
        "tp": int((called & targets).sum()),
    }


def youden_threshold(targets: NDArray[np.bool_], scores: Floats) -> float | None:
    """Return the threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    Between equals the one of highest sensitivity is taken. The threshold lies half way between
    the lowest score called malignant and the next one below.

    Returns:
        A threshold, or None where a class is missing.
    """
    thresholds, positives, negatives = cumulated(targets, scores, np.ones((1, len(scores))))
    if not positives[0, -1] or not negatives[0, -1]:
        return None
    index_j = positives[0] / positives[0, -1] - negatives[0] / negatives[0, -1]
    best = int(np.flatnonzero(index_j >= index_j.max() - 1e-12)[-1])
    called = float(thresholds[best])
    if best + 1 == len(thresholds):
        return called
    middle = (called + float(thresholds[best + 1])) / 2
    return middle if middle > thresholds[best + 1] else called  # neighbouring floats


def patient_weights(patients: Sequence[str], replicates: int, seed: int) -> Iterator[Floats]:
    """Yield bootstrap weights of images, drawing whole patients with replacement.

    Images of one patient are alike, so drawing images one by one would give intervals that are
    too narrow (the cluster bootstrap, Field & Welsh 2007).

    Args:
        patients: The patient of each image, N of them.
        replicates: How many rows in all.
        seed: The same gives the same weights.

    Yields:
        (r, N) float64, how often each image was drawn; few enough rows for little memory.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    shares = np.full(len(names), 1 / len(names))
    step = max(1, CHUNK // len(index))
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        counts = generator.multinomial(len(names), shares, size=rows)  # (r, P)
        yield counts[:, index].astype(np.float64)


def estimates(
    targets: NDArray[np.bool_],
    scores: Floats,
    threshold: float,
    patients: Sequence[str],
    replicates: int,
    seed: int,
) -> dict[str, Estimate]:
    """Return every measure with its 95 % percentile interval from a bootstrap over patients.

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
    names = np.asarray(patients)
    if min(len(np.unique(names[targets == label])) for label in (True, False)) < INTERVAL_PATIENTS:
        nan = float("nan")
        return {name: Estimate(float(values[name][0]), nan, nan) for name in METRICS}
    drawn = [
        measure(targets, scores, threshold, weights)
        for weights in patient_weights(patients, replicates, seed)
    ]
    return {
        name: _estimate(float(values[name][0]), np.concatenate([part[name] for part in drawn]))
        for name in METRICS
    }


def _estimate(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known, (2.5, 97.5))
    return Estimate(value, float(low), float(high))
