"""Measures of a classifier's scores and their operating point.

All of them take weights of the images, one row a bootstrap replicate, so that thousands of
replicates are a few array operations.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float64] | NDArray[np.int32]
METRICS = (
    "auc", "partial_auc", "pr_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
    "precision", "f1", "mcc", "sensitivity_at_specificity", "specificity_at_sensitivity", "brier",
    "ece",
)  # fmt: skip
PF1 = "pf1"  # probabilistic F1: measured always, told of where few images are positive
# What leads there, in this order; accuracy comes last, as guessing has one that looks good.
WHERE_RARE = ("pr_auc", PF1, "f1", *(one for one in METRICS if one not in ("pr_auc", "f1",
              "accuracy")), "accuracy")  # fmt: skip
OF_PROBABILITIES = ("brier", "ece", PF1)  # of no meaning for scores that are none
FIXED_RATE = 0.90  # the specificity that sensitivity is given at, and the other way round
FALSE_ALARMS = 0.20  # the highest false positive rate that the partial AUC looks at
BINS = 10  # of equal width, of the calibration error and of reliability diagrams
EQUAL = 1e-12  # differences of AUC below it are rounding
SLACK = 1e-9  # a share of 0.9 in floating point must not miss 9 of 10 images


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
    return _cumulated(targets[order], scores[order], np.take(weights, order, axis=1))


def _cumulated(
    targets: NDArray[np.bool_], scores: Floats, weights: Weights
) -> tuple[Floats, Floats, Floats]:
    """Do the same for images in the order of falling scores; the weights are written over."""
    positives = weights * targets
    weights -= positives
    # Sums of whole numbers take a seventh of the time of sums of floats.
    np.cumsum(positives, axis=1, out=positives)
    np.cumsum(weights, axis=1, out=weights)
    above, below = positives.astype(np.float64, copy=False), weights.astype(np.float64, copy=False)
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    if len(ends) == len(scores):  # no ties
        return scores, above, below
    return scores[ends], above[:, ends], below[:, ends]


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return result


def _at(cumulative: Floats, count: NDArray[np.intp]) -> Floats:
    """Return what the first `count` (R,) of the scores in (R, K) hold together, (R,)."""
    last = np.clip(count - 1, 0, cumulative.shape[1] - 1)
    return np.where(count > 0, cumulative[np.arange(len(cumulative)), last], 0.0)


def _area(positives: Floats, negatives: Floats) -> Floats:
    """Area (R,) under the curve of malignant over benign weight (R, K), from the origin on.

    By trapezoids, which count ties half (Hanley & McNeil 1982). Their sum is written as in the
    shoelace formula, which needs no differences of neighbours.
    """
    crossed = np.vecdot(negatives[:, 1:], positives[:, :-1])
    crossed -= np.vecdot(negatives[:, :-1], positives[:, 1:])
    area: Floats = (negatives[:, -1] * positives[:, -1] + crossed) / 2
    return area


def _auc(positives: Floats, negatives: Floats) -> Floats:
    return _ratio(_area(positives, negatives), positives[:, -1] * negatives[:, -1])


def _partial_auc(positives: Floats, negatives: Floats) -> Floats:
    """Area under the ROC curve up to `FALSE_ALARMS`, from 0.5 for guessing to 1 (McClish 1989)."""
    limit = FALSE_ALARMS * negatives[:, -1]
    within = np.count_nonzero(negatives <= limit[:, None], axis=1)
    area = _area(positives, np.minimum(negatives, limit[:, None]))
    # Cutting the curve off left the trapezoid across the limit as high as at its far end.
    run = limit - _at(negatives, within)
    width = _at(negatives, within + 1) - _at(negatives, within)
    height = _at(positives, within + 1) - _at(positives, within)
    inside = np.divide(run, width, out=np.zeros_like(run), where=width > 0)
    area -= run * height * (1 - inside) / 2
    share = _ratio(area, positives[:, -1] * negatives[:, -1])
    least, most = FALSE_ALARMS**2 / 2, FALSE_ALARMS
    standardised: Floats = (1 + (share - least) / (most - least)) / 2
    return standardised


def _average_precision(positives: Floats, negatives: Floats) -> Floats:
    """Area under the precision-recall curve as average precision, without interpolation."""
    precision = positives + negatives
    np.maximum(precision, np.finfo(np.float64).tiny, out=precision)
    np.divide(positives, precision, out=precision)
    gained = positives[:, 1:] - positives[:, :-1]
    area = positives[:, 0] * precision[:, 0] + np.vecdot(gained, precision[:, 1:])
    return _ratio(area, positives[:, -1])


def _sensitivity_at(positives: Floats, negatives: Floats, specificity: float) -> Floats:
    """Highest sensitivity of a threshold with at least this specificity; no interpolation."""
    malignant, benign = positives[:, -1], negatives[:, -1]
    allowed = (1 - specificity + SLACK) * benign
    reached = _at(positives, np.count_nonzero(negatives <= allowed[:, None], axis=1))
    return np.where(benign > 0, _ratio(reached, malignant), np.nan)


def _specificity_at(positives: Floats, negatives: Floats, sensitivity: float) -> Floats:
    """Highest specificity of a threshold with at least this sensitivity; no interpolation."""
    malignant, benign = positives[:, -1], negatives[:, -1]
    needed = (sensitivity - SLACK) * malignant
    alarms = _at(negatives, np.count_nonzero(positives < needed[:, None], axis=1) + 1)
    return np.where(malignant > 0, _ratio(benign - alarms, benign), np.nan)


def bin_of(scores: Floats) -> NDArray[np.intp]:
    """Return the bin, 0 to `BINS` - 1, of probabilities (N,); each holds its lower end."""
    return np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)


def _mass(targets: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return (N, 2): the probability of each image where it is malignant, and of any image."""
    return np.column_stack([scores * targets, scores])


def _probabilistic_f1(mass: Floats, malignant: Floats) -> Floats:
    """Return F1 (R,) without a threshold: each image counts as called by its probability.

    Yacouby & Axman 2020 (Eval4NLP, p. 79), as Kaggle's RSNA Screening Mammography took it:
    precision is the probability on malignant images over that on all, recall the same over the
    number of malignant images. Written as 2 TP / (2 TP + FP + FN), which needs neither.

    Args:
        mass: (R, 2) weighted sums of `_mass`.
        malignant: (R,) weight of malignant images.
    """
    found, said = mass.T
    return np.where(malignant > 0, _ratio(2 * found, said + malignant), np.nan)


def _errors(targets: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return (N, 1 + BINS): the squared error of each image, and its error in its bin's column."""
    table = np.zeros((len(scores), 1 + BINS))
    table[:, 0] = (scores - targets) ** 2
    table[np.arange(len(scores)), 1 + bin_of(scores)] = scores - targets
    return table


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
        For each of METRICS, and for PF1, (R,); NaN where a class it needs has no weight. Precision
        and F1 are 0 where no image is called malignant and MCC is 0 where all get the same call,
        as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = np.take(np.asarray(weights, np.float64), order, axis=1)
    return measure_sorted(targets[order], scores[order], threshold, ordered)


def measure_sorted(
    targets: NDArray[np.bool_], scores: Floats, threshold: float, weights: Weights
) -> dict[str, Floats]:
    """Do the same for images in the order of falling scores; the weights are written over."""
    errors = weights @ _errors(targets, scores)  # (R, 1 + BINS)
    mass = weights @ _mass(targets, scores)  # (R, 2)
    thresholds, positives, negatives = _cumulated(targets, scores, weights)
    # The operating point stays fixed in all replicates: it was chosen on other patients.
    called = np.full(len(weights), np.count_nonzero(thresholds >= threshold))
    tp, fp = _at(positives, called), _at(negatives, called)
    fn, tn = positives[:, -1] - tp, negatives[:, -1] - fp
    total = tp + fn + fp + tn
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    # 0 / 0 is 0 for precision, as in scikit-learn, but only where there is a malignant image.
    known = tp + fn > 0
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    both = known & (tn + fp > 0)
    return {
        "auc": _auc(positives, negatives),
        "partial_auc": _partial_auc(positives, negatives),
        "pr_auc": _average_precision(positives, negatives),
        "accuracy": _ratio(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": np.where(known, np.nan_to_num(_ratio(tp, tp + fp)), np.nan),
        "f1": np.where(known, _ratio(2 * tp, 2 * tp + fp + fn), np.nan),
        "mcc": np.where(both, np.nan_to_num(_ratio(tp * tn - fp * fn, spread)), np.nan),
        "sensitivity_at_specificity": _sensitivity_at(positives, negatives, FIXED_RATE),
        "specificity_at_sensitivity": _specificity_at(positives, negatives, FIXED_RATE),
        "brier": _ratio(errors[:, 0], total),  # Brier 1950
        # Each bin's |share malignant - mean probability|, by its images (Naeini et al. 2015).
        "ece": _ratio(np.abs(errors[:, 1:]).sum(axis=1), total),
        PF1: _probabilistic_f1(mass, positives[:, -1]),
    }


def aucs(targets: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Return the area under the ROC curve for every row of weights (R, N); NaN as in `measure`."""
    _, positives, negatives = cumulated(targets, scores, weights)
    return _auc(positives, negatives)


def auc(targets: NDArray[np.bool_], scores: Floats) -> float:
    """Return the area under the ROC curve; NaN where a class is missing."""
    return float(aucs(targets, scores, np.ones((1, len(scores))))[0])


def weighted_loss(
    targets: NDArray[np.bool_], logits: NDArray[Any], positive_weight: float
) -> float:
    """Return the mean binary cross-entropy of logits, malignant images weighted.

    The same figure as torch's BCEWithLogitsLoss with that pos_weight.
    """
    # logaddexp(0, x) is log(1 + exp(x)) without overflow for large logits.
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
    return threshold_after(thresholds, best)


def threshold_after(thresholds: Floats, last: int) -> float:
    """Return what parts scores: half way between one of them and the next one below.

    Args:
        thresholds: (K,) distinct scores, falling.
        last: The index of the lowest score to be called malignant; -1 for none of them.
    """
    if last + 1 == len(thresholds):
        return float(thresholds[last])
    below = float(thresholds[last + 1])
    # Above the highest score the next that a probability can have is 1, if not just above it.
    called = float(thresholds[last]) if last >= 0 else max(1.0, float(np.nextafter(below, 2)))
    middle = (called + below) / 2
    return middle if middle > below else called  # neighbouring floats
