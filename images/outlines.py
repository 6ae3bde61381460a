"""Outlines of lesions: from their masks, and as thin lines on an image."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]  # (N, 2) points x, y, closed

# A dark line under a bright one shows on bright and on dark tissue; blue, green, red.
STROKES = (((0, 0, 0), 3), ((0, 214, 255), 1))  # color and width in pixels
SHIFT = 4  # binary digits of a pixel's fraction, as OpenCV draws them


def outlines_of(mask: NDArray[np.bool_]) -> list[Outline]:
    """Return the outer borders of what an (H, W) mask marks.

    Returns:
        One for each connected part: (N, 2) float64 in pixels, with (0, 0) at the upper left corner
        of the upper left pixel, as `images.frame.Frame` maps them.
    """
    ones = np.ascontiguousarray(mask).view(np.uint8)
    found, _ = cv2.findContours(ones, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [points[:, 0].astype(np.float64) + 0.5 for points in found]


def draw_outlines(image: NDArray[np.uint8], outlines: Sequence[Outline]) -> NDArray[np.uint8]:
    """Draw outlines that are given in pixels of an image.

    Args:
        image: (H, W) grey or (H, W, 3) in the order blue, green, red; uint8 in [0, 255].
        outlines: As `outlines_of` gives them.

    Returns:
        (H, W, 3) uint8 in the order blue, green, red; the image itself stays as it is.
    """
    drawn = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    lines = [np.rint((one - 0.5) * (1 << SHIFT)).astype(np.int32) for one in outlines]
    for color, width in STROKES:
        cv2.polylines(drawn, lines, True, color, width, cv2.LINE_AA, SHIFT)
    return drawn.astype(np.uint8, copy=False)
