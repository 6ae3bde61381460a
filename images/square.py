"""An image of any shape -> the square that a network takes."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD


def fit_square(image: NDArray[np.uint16], size: int) -> NDArray[np.uint8]:
    """Scale an image into a square, keeping its aspect; the rest of the square is black.

    Shrinking averages over area, so that fine detail fades and does not alias.

    Args:
        image: (H, W) uint16 in [0, 65535].
        size: Side of the square in pixels.

    Returns:
        (size, size) uint8 in [0, 255]; an 8-bit image read as 16 bits comes back as it was.
    """
    height, width = image.shape
    scale = size / max(height, width)
    if scale != 1:
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, shape, interpolation=method).astype(np.uint16, copy=False)
    grey = cv2.convertScaleAbs(image, alpha=1 / SPREAD)
    # Padded, not stretched: the shape of a mass is one of its signs.
    square = np.zeros((size, size), np.uint8)
    top, left = (size - grey.shape[0]) // 2, (size - grey.shape[1]) // 2
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return square


def unfit_square(square: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Bring a map of a square that `fit_square` made back to the image: the inverse of it.

    Args:
        square: (size, size), uint8 or float32.
        shape: (H, W) of the image.

    Returns:
        (H, W) of the same dtype; what lies in the padding is left out.
    """
    size, (height, width) = square.shape[0], shape
    scale = size / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - rows) // 2, (size - columns) // 2
    shown = square[top : top + rows, left : left + columns]
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    return cv2.resize(shown, (width, height), interpolation=method)
