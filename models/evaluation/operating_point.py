"""The score from which on an image is called malignant, chosen on validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import LEAST_NORMAL, logistic, logit
from models.metrics import SLACK, Floats, cumulated, threshold_after, youden_threshold

CHOICES = {
    "youden": "Youden's J on validation",
    "sensitivity": "sensitivity of at least {target} on validation",
    "specificity": "specificity of at least {target} on validation",
    "cost": "fewest false alarms + {target} x missed cancers on validation",
    "f1": "highest F1 on validation",
    "half": "a probability of 0.5",
}
BY_NORMALS = {  # these need no label of a lesion
    "normals": "mean + {target} standard deviations of normal validation images",
    "quantile": "quantile {target} of normal validation images",
}
HALF = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """Where scores are called malignant."""

    threshold: float  # A score at or above it is
    rule: str  # how it was found, as people read it


def choose(
    choice: str, target: float, targets: NDArray[np.bool_], scores: Floats
) -> OperatingPoint:
    """Choose the operating point, half way between two neighbouring scores of validation.

    Between equals the one of higher sensitivity is taken.

    Args:
        choice: One of `CHOICES`.
        target: For "sensitivity" the one to reach, in (0, 1], by the highest threshold that does;
            for "specificity" likewise, by the lowest; for "cost" how many false alarms a missed
            cancer is worth; else not looked at.
        targets: (N,) of validation, true for malignant.
        scores: (N,) probabilities of malignancy.

    Returns:
        The operating point: 0.5 where validation lacks a class.
    """
    if choice in ("sensitivity", "specificity") and not 0 < target <= 1:
        raise ValueError(f"a {choice} of {target} cannot be reached")
    rule = CHOICES[choice].format(target=_as_text(choice, target))
    if choice == "half":
        return OperatingPoint(HALF, rule)
    youden = youden_threshold(targets, scores)
    if youden is None:
        return OperatingPoint(HALF, f"{HALF}, because validation shows one class only")
    if choice == "youden":
        return OperatingPoint(youden, rule)
    thresholds, positives, negatives = cumulated(targets, scores, np.ones((1, len(scores))))
    last = _last_called(choice, target, positives[0], negatives[0])
    return OperatingPoint(threshold_after(thresholds, last), rule)


def choose_by_normals(
    choice: str, target: float, normal: NDArray[np.bool_], scores: Floats
) -> OperatingPoint:
    """Choose the operating point by the scores of normal validation images alone.

    Both rules are of the scores' logits, which for an anomaly detector are errors, in standard
    deviations from the mean of normal images.

    Args:
        choice: "normals" or "quantile".
        target: Of standard deviations above the mean; or the quantile, in (0, 1].
        normal: (N,) of validation, true for what is normal.
        scores: (N,) in [0, 1].

    Returns:
        The operating point: 0.5 where validation has no two normal items.
    """
    rule = BY_NORMALS[choice].format(target=f"{target:g}")
    known = scores[normal]
    if len(known) < LEAST_NORMAL:
        return OperatingPoint(HALF, f"{HALF}, because validation shows no two normal items")
    logits = logit(known)
    if choice == "quantile":
        reached = np.quantile(logits, target)
    else:
        reached = logits.mean() + target * logits.std(ddof=1)
    return OperatingPoint(float(logistic(np.array([reached]))[0]), rule)


def flagged_normals(metrics: Mapping[str, Any]) -> str:
    """Say how many normal test images an anomaly detector calls anomalous; empty where unknown.

    Args:
        metrics: Its metrics.json, or what an exported model says of it.
    """
    known = metrics.get("anomaly") or {"normals": {}, "flagged": {}}
    count, share = known["normals"].get("test"), known["flagged"].get("test")
    if not count or share is None:
        return ""
    return f"{round(share * count)} of {count} normal test images are called anomalous too"


def _as_text(choice: str, target: float) -> str:
    short = f"{target:g}"
    return short if choice == "cost" else max(f"{target:.2f}", short, key=len)


def _last_called(choice: str, target: float, tp: Floats, fp: Floats) -> int:
    """Return how many distinct scores are called malignant, less 1: -1 for none.

    Args:
        choice: "sensitivity", "specificity", "f1" or "cost".
        target: Of it.
        tp: (K,) malignant images at or above each score, highest score first.
        fp: (K,) benign ones.
    """
    if choice == "sensitivity":
        # The highest threshold that reaches it, as lower ones only cost specificity.
        return int(np.count_nonzero(tp < (target - SLACK) * tp[-1]))
    if choice == "specificity":
        return int(np.count_nonzero(fp <= (1 - target + SLACK) * fp[-1])) - 1
    if choice == "f1":
        found = 2 * tp / (tp + fp + tp[-1])
        return int(np.flatnonzero(found >= found.max() * (1 - SLACK))[-1])
    costs = np.append(0, fp) + target * (tp[-1] - np.append(0, tp))  # from calling none on
    return int(np.flatnonzero(costs <= costs.min() * (1 + SLACK))[-1]) - 1
