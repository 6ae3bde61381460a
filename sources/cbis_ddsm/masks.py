"""CBIS-DDSM: is an image of 8 bits a mask? Told by its pixels, as JPEG leaves them."""

import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD

ROWS = 512  # looked at at a time, so that it takes little memory
MASK_TOLERANCE = 32  # of 255: how far JPEG moves the black and white of a mask
MASK_GREY = 0.02  # share of pixels between the two that JPEG's ringing may make


def is_mask(image: NDArray[np.uint16], grey: float = MASK_GREY) -> bool:
    """Return whether an image of 8 bits shows a mask: black and white, and nothing else.

    Args:
        image: (H, W) uint16 in [0, 65535], from a file of 8 bits (values times 257), which JPEG
            may have blurred.
        grey: Share of the pixels that may lie between black and white.
    """
    black, white = _tones(image)
    return bool(black and white and image.size - black - white < grey * image.size)


def is_flat(image: NDArray[np.uint16]) -> bool:
    """Return whether an 8-bit image has next to no grey: a mask, even one without a lesion."""
    return image.size - sum(_tones(image)) < MASK_GREY * image.size


def _tones(image: NDArray[np.uint16]) -> tuple[int, int]:
    """Count black and white pixels, as JPEG leaves them."""
    low, high = MASK_TOLERANCE * SPREAD, (255 - MASK_TOLERANCE) * SPREAD
    blocks = [image[top : top + ROWS] for top in range(0, len(image), ROWS)]
    black = sum(int(np.count_nonzero(rows <= low)) for rows in blocks)
    return black, sum(int(np.count_nonzero(rows >= high)) for rows in blocks)
