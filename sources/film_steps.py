"""What preprocessing does to a film, step by step: array functions of 16 bits until the last."""

import cv2
import numpy as np
from numpy.typing import NDArray

from sources.film_frame import CENTRE, LEFT, RIGHT
from sources.images import SPREAD, WHITE_16

Grey = NDArray[np.uint16]  # (H, W), [0, 65535]
Mask = NDArray[np.bool_]  # (H, W)

BINS = 256  # of a CLAHE histogram, for any depth


def reduce_by_area(image: Grey, factor: int) -> Grey:
    """Shrink an image by a whole factor: several times faster than by any other.

    Args:
        image: (H, W) uint16 in [0, 65535].
        factor: At least 1, at most H and W.

    Returns:
        (H // factor, W // factor) uint16 of mean grey values; the last rows and columns that do
        not make up a whole pixel are left out.
    """
    if factor == 1:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    whole = image[: size[1] * factor, : size[0] * factor]
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.uint16)


def remove_annotations(image: Grey, mask: Mask) -> Grey:
    """Set everything outside the breast to 0, with a hard edge.

    Args:
        image: (H, W) uint16 in [0, 65535].
        mask: (H, W) bool, from `breast_mask`: it ends in the background beyond the skin line, so
            that the edge cuts through nothing bright.

    Returns:
        (H, W) uint16 in [0, 65535].
    """
    return np.where(mask, image, np.uint16(0))


def chest_wall_side(image: Grey) -> str:
    """Return the side of an (H, W) film on which the breast lies: the brighter third of it."""
    third = max(1, image.shape[1] // 3)
    left, right = float(image[:, :third].mean()), float(image[:, -third:].mean())
    return LEFT if left >= right else RIGHT


def resize_and_pad(image: Grey, size: int, place: str) -> tuple[Grey, float]:
    """Resize to a square with the aspect ratio kept, and fill the rest with black.

    Args:
        image: (H, W) uint16 in [0, 65535], or a uint8 mask.
        size: Side of the square in pixels.
        place: The chest wall's side, LEFT or RIGHT, at which the breast stays (and at the
            top, where the image is wider than high), or CENTRE.

    Returns:
        (size, size) in the image's dtype and range, and output pixels for one input pixel.
    """
    scale = size / max(image.shape)
    high, wide = (max(1, round(side * scale)) for side in image.shape)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, (wide, high), interpolation=way)
    y = (size - high) // 2 if place == CENTRE else 0
    x = {LEFT: 0, RIGHT: size - wide, CENTRE: (size - wide) // 2}[place]
    square = np.zeros((size, size), image.dtype)
    square[y : y + high, x : x + wide] = small
    return square, scale


def blur(image: Grey, kernel: int) -> Grey:
    """Smooth film grain with a Gaussian.

    Args:
        image: (H, W) uint16 in [0, 65535].
        kernel: Side in pixels, odd. Sides of 3, 5 and 7 are OpenCV's small binomial-like kernels
            ((1, 2, 1) / 4 for 3); beyond, the deviation is 0.3 ((kernel - 1) / 2 - 1) + 0.8 pixels.

    Returns:
        (H, W) uint16 in [0, 65535].
    """
    return cv2.GaussianBlur(image, (kernel, kernel), 0).astype(np.uint16)


def clahe(image: Grey, mask: Mask, clip: float, tiles: int) -> Grey:
    """Contrast-limited adaptive histogram equalisation inside a mask; outside becomes 0.

    After K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV
    (1994), 474-485. The histograms have 256 bins as for 8 bits, so that the clip limit means the
    same (OpenCV takes 65,536 bins for 16 bits, over which a tile's few thousand pixels are spread
    too thin to be limited), but grey values are mapped between the bins and stay 16-bit. Only
    pixels of the mask count; what a tile lacks is made up from the histogram of the whole mask, so
    that tiles at the skin line are not stretched to their few pixels.

    Args:
        image: (H, W) uint16 in [0, 65535].
        mask: (H, W) bool.
        clip: The most that a bin may hold, in multiples of an even histogram's.
        tiles: Number of tiles along each side.

    Returns:
        (H, W) uint16 in [0, 65535].
    """
    if not mask.any():
        return np.zeros_like(image)
    curves = _curves(image, mask, clip, tiles)  # (tiles * tiles, BINS + 1)
    height, width = image.shape
    x = np.clip((np.arange(width, dtype=np.float32) + 0.5) * (tiles / width) - 0.5, 0, tiles - 1)
    y = np.clip((np.arange(height, dtype=np.float32) + 0.5) * (tiles / height) - 0.5, 0, tiles - 1)
    above = np.floor(y)
    level = image.astype(np.float32) * np.float32(BINS / (WHITE_16 + 1))
    upper, lower = (
        # Between the two nearest bins and the two nearest tiles of that row of tiles.
        cv2.remap(curves, level, row[:, None] * np.float32(tiles) + x, cv2.INTER_LINEAR)
        for row in (above, np.minimum(above + 1, tiles - 1))
    )
    weight = (y - above)[:, None]
    result = upper + (lower - upper) * weight
    return np.where(mask, np.rint(result * WHITE_16), 0).astype(np.uint16)


def _curves(image: Grey, mask: Mask, clip: float, tiles: int) -> NDArray[np.float32]:
    """Return each tile's cumulative clipped histogram in [0, 1], tiles in rows."""
    height, width = image.shape
    row, column = (np.arange(side) * tiles // side for side in (height, width))
    tile = (row[:, None] * tiles + column)[mask]
    bins = image[mask] >> 8
    counts = np.bincount(tile * BINS + bins, minlength=tiles * tiles * BINS).astype(np.float64)
    counts = counts.reshape(tiles * tiles, BINS)
    area = height * width / tiles**2
    lacking = np.maximum(area - counts.sum(axis=1, keepdims=True), 0)
    counts += lacking * counts.sum(axis=0) / counts.sum()
    clipped = np.minimum(counts, clip * area / BINS)
    clipped += (counts - clipped).sum(axis=1, keepdims=True) / BINS
    curves = np.zeros((tiles * tiles, BINS + 1), np.float32)
    curves[:, 1:] = np.cumsum(clipped, axis=1) / clipped.sum(axis=1, keepdims=True)
    return np.minimum(curves, 1)


def to_uint8(image: Grey) -> NDArray[np.uint8]:
    """Return (H, W) uint16 in [0, 65535] as uint8 in [0, 255], rounded; white stays white."""
    return ((image.astype(np.uint32) + SPREAD // 2) // SPREAD).astype(np.uint8)
