"""What tells a mammogram from other pictures, in a few figures of its thumbnail."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.thumbnails import thumbnail

Floats = NDArray[np.float64]
Grey = NDArray[Any]  # (H, W) float, [0, 1]

DARK = 0.1  # of the bright end of the grey range: background
BLACK = 1  # grey value at most: emptier than a film, whose base is never quite clear
STRIP = 0.04  # of a side, along the image's edges
COARSE = 12  # side of the coarsest image in pixels
LEAST = 8  # pixels: of a smaller image no figure would mean anything
STATISTICS = (
    "mean", "spread", "percentile 10", "percentile 50", "percentile 90", "percentile 99",
    "dark share", "chest edge", "nipple edge", "upper edge", "lower edge", "sides differ",
    "mirror correlation", "aspect", "detail", "coarse share", "solidity", "foreground share",
    "pieces", "direction", "black share",
)  # fmt: skip


def film_statistics(image: NDArray[np.uint8]) -> Floats:
    """Return the figures named by STATISTICS of a thumbnail, whichever side the breast lies on.

    Args:
        image: (H, W) uint8 in [0, 255], a thumbnail from `images.thumbnails.thumbnail`, or a
            network's input, which is reduced likewise.

    Returns:
        (21,) float64.
    """
    small = thumbnail(image)
    if min(small.shape) < LEAST:
        shape = max(LEAST, small.shape[1]), max(LEAST, small.shape[0])
        small = cv2.resize(small, shape).astype(np.uint8, copy=False)
    grey = small.astype(np.float32) / 255
    levels = np.percentile(grey, (10, 50, 90, 99))
    bright = float(levels[-1]) + 1e-3  # of a black image too
    dark = grey < DARK * bright
    means = [float(grey.mean()), float(grey.std()), *levels, float(dark.mean())]
    parts = [*means, *_edges(grey, bright), *_structure(grey), *_shape(small)]
    return np.array(parts, np.float64)


def _edges(grey: Grey, bright: float) -> list[float]:
    """Return the means along the edges, that of the chest wall first, relative to bright tissue."""
    high, wide = (max(1, round(STRIP * side)) for side in grey.shape)
    sides = sorted((grey[:, :wide].mean(), grey[:, -wide:].mean()), reverse=True)
    third = max(1, grey.shape[1] // 3)
    left, right = float(grey[:, :third].mean()), float(grey[:, -third:].mean())
    values = [*sides, grey[:high].mean(), grey[-high:].mean(), abs(left - right)]
    return [float(value) / bright for value in values]


def _structure(grey: Grey) -> list[float]:
    mirrored = _correlation(grey, grey[:, ::-1])
    aspect = float(np.log(grey.shape[0] / grey.shape[1]))
    smooth = cv2.GaussianBlur(grey, (3, 3), 0)
    detail = float(np.abs(grey - smooth).mean()) / (float(grey.std()) + 1e-3)
    coarse = cv2.resize(grey, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    share = float(coarse.std()) / (float(grey.std()) + 1e-3)
    return [mirrored, aspect, detail, share]


def _correlation(one: Grey, other: NDArray[Any]) -> float:
    first, second = one - one.mean(), other - other.mean()
    return float((first * second).mean()) / (float(one.std()) * float(other.std()) + 1e-6)


def _shape(small: NDArray[np.uint8]) -> list[float]:
    """Return figures of what stands out of the background, by Otsu's threshold."""
    _, mask = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea, default=None)
    hull = 0.0 if largest is None else float(cv2.contourArea(cv2.convexHull(largest)))
    area = 0.0 if largest is None else float(cv2.contourArea(largest))
    grey = small.astype(np.float32)
    across, down = np.abs(np.diff(grey, axis=1)).mean(), np.abs(np.diff(grey, axis=0)).mean()
    return [
        area / hull if hull else 0.0,
        float(mask.mean()),
        float(np.log1p(len(outlines))),
        float(across / (across + down + 1e-6)),
        float((small <= BLACK).mean()),
    ]
