"""What the shortcut probe looks at: groups of features that should not tell a label."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.thumbnails import Thumbnail
from models.metrics import Floats

Grids = NDArray[np.uint8]  # (N, GRID, GRID), [0, 255]

GRID = 64  # pixels of each side, to which all thumbnails are stretched for their grey values
STRIP, EDGE = 2, 8  # pixels of it: the outermost 3 %; where a breast that lies on that side is
BLACK, WHITE = 5, 250  # grey values at and beyond which a pixel counts as such
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def features_of(thumbnails: Sequence[Thumbnail], sides: Floats) -> dict[str, Floats]:
    """Return groups of features; none but "orientation" changes when an image is turned by 90.

    Args:
        thumbnails: N of them, (h, w) uint8, at least one.
        sides: (N, 2) height and width of the image files, in pixels.

    Returns:
        size, borders, orientation, histogram: (N, F) float64 each.
    """
    size = (GRID, GRID)
    grids: Grids = np.stack(
        [
            cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            for image in thumbnails
        ]
    )
    return {
        "size": np.column_stack([np.log(sides.max(1)), np.log(sides.min(1)), sides.prod(1)]),
        "borders": _borders(grids),
        "orientation": _orientation(grids, sides),
        "histogram": _histogram(grids),
    }


def one_hot(names: Sequence[str]) -> Floats:
    """Return (N, K) float64: 1 in the column of the name that each of N has, of K in order."""
    return np.array([[name == one for one in sorted(set(names))] for name in names], np.float64)


def _strips(grids: NDArray[Any], width: int) -> Floats:
    """Return (N, 4) means of what lies along the left, right, upper and lower side."""
    sides = (grids[:, :, :width], grids[:, :, -width:], grids[:, :width], grids[:, -width:])
    return np.column_stack([side.mean(axis=(1, 2)) for side in sides])


def _borders(grids: Grids) -> Floats:
    """Return the brightness of the borders, the same however an image is turned."""
    strips = _strips(grids, STRIP)
    return np.column_stack([strips.mean(1), strips.min(1), strips.max(1), strips.std(1)])


def _orientation(grids: Grids, sides: Floats) -> Floats:
    """Return how the image lies, and how the bright area in it.

    The area's axis is that of its second moments (Hu 1962, IRE Trans Inf Theory 8:179), given as
    cosine and sine of twice its angle, which have no jump.
    """
    bright = (grids > grids.mean(axis=(1, 2), keepdims=True)).astype(np.float32)
    area = np.maximum(bright.sum(axis=(1, 2)), 1)
    at = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID - 0.5  # from the middle, in sides
    across, down = bright.sum(axis=1), bright.sum(axis=2)  # (N, GRID)
    x, y = across @ at / area, down @ at / area
    high, wide = (sides / sides.max(axis=1, keepdims=True)).T
    xx, yy = (across @ at**2 / area - x**2) * wide**2, (down @ at**2 / area - y**2) * high**2
    xy = (bright @ at @ at / area - x * y) * wide * high
    spread = np.maximum(xx + yy, 1e-6)
    upright, tilt = (yy - xx) / spread, 2 * xy / spread
    lie = (np.log(wide / high), upright, tilt, x, y, np.abs(x), np.abs(y))
    return np.column_stack([*lie, _strips(bright, EDGE)]).astype(np.float64)


def _histogram(grids: Grids) -> Floats:
    """Return quantiles of the grey values, and the shares of black and of white."""
    flat = grids.reshape(len(grids), -1)
    shares = (flat <= BLACK).mean(axis=1), (flat >= WHITE).mean(axis=1)
    return np.column_stack([*np.quantile(flat, QUANTILES, axis=1), *shares])
