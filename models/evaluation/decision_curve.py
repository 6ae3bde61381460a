"""The decision curve: what acting on a score is worth."""

import numpy as np
from numpy.typing import NDArray

from models.metrics import Floats


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
