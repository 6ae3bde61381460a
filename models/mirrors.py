"""Test-time augmentation: the mean logit over mirror images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIRRORS: dict[str, tuple[tuple[int, ...], ...]] = {  # axes of (N, S, S) that are turned round
    "none": ((),),
    "flips": ((), (2,), (1,), (1, 2)),
}


def mean_over_mirrors(
    score: Callable[[NDArray[np.uint8]], NDArray[Any]], images: NDArray[np.uint8], tta: str
) -> NDArray[np.float64]:
    """Return (N,) float64 logits, the mean over mirror images.

    Args:
        score: Gives (N,) logits of (N, S, S) images.
        images: (N, S, S) uint8.
        tta: A key of MIRRORS.
    """
    found = [score(np.flip(images, axes)) for axes in MIRRORS[tta]]
    mean: NDArray[np.float64] = np.mean(found, axis=0, dtype=np.float64)
    return mean
