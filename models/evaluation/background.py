"""What an image shows beside the breast, as features that should not predict its label."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from images.borders import find_border_box
from images.breast import breast_mask
from images.files import SPREAD
from models.metrics import Floats
from pipeline.progress import Advance
from pipeline.work import worker_count

Image = NDArray[np.uint8]  # (S, S), [0, 255]

CELLS = 16  # along each side
LEAST = 0.25  # of a cell's pixels: fewer are too few to tell its grey value from
MARGIN = 0.03  # of the side, beyond the skin line, that is masked out as well


def backgrounds(images: Iterable[Image], workers: int, advance: Advance) -> Floats:
    """Return the features of the backgrounds of many images.

    Args:
        images: (N, S, S) uint8 in [0, 255], N at least 1.
        workers: Threads; 0 for one for each core.
        advance: Called with the number of images done.

    Returns:
        (N, 512) float64; see `background_features`.
    """
    found = []
    pool = ThreadPoolExecutor(worker_count(workers))
    try:
        for features in pool.map(background_features, images):
            found.append(features)
            advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return np.stack(found)


def background_features(image: Image) -> Floats:
    """Return what an image shows beside the breast, in a grid of 16 by 16 cells.

    A cell counts the pixels outside the breast alone. One that the breast fills, or nearly, gets
    the mean of the others, so that the breast's outline, which is anatomy and not background,
    hardly shows.

    Args:
        image: (S, S) uint8 in [0, 255], S a multiple of 16.

    Returns:
        (512,) float64: of each cell the mean of the grey values in [0, 1], then their standard
        deviation; 0 throughout where there is no background, or where no breast is found and any
        pixel may be one of its.
    """
    outside = _outside_breast(image).astype(np.float64)
    shown = image / 255 * outside
    cells, side = (CELLS, image.shape[0] // CELLS) * 2, (1, 3)
    count, total, squares = (
        one.reshape(cells).sum(axis=side).ravel() for one in (outside, shown, shown**2)
    )
    seen = count >= LEAST * (image.shape[0] // CELLS) ** 2
    mean, spread = np.zeros(CELLS**2), np.zeros(CELLS**2)
    if seen.any():
        mean[seen] = total[seen] / count[seen]
        spread[seen] = np.sqrt(np.maximum(squares[seen] / count[seen] - mean[seen] ** 2, 0))
        mean[~seen], spread[~seen] = mean[seen].mean(), spread[seen].mean()
    return np.concatenate([mean, spread])


def _outside_breast(image: Image) -> NDArray[np.bool_]:
    """Return where an (S, S) uint8 image shows anything but the breast and a margin around it."""
    import cv2

    grey = image.astype(np.uint16) * SPREAD
    box = find_border_box(grey)  # what fills the image up to a square is no part of the film
    breast = np.zeros(image.shape, np.uint8)
    box.of(breast)[...] = breast_mask(np.ascontiguousarray(box.of(grey)))
    if not breast.any():
        return np.zeros(image.shape, np.bool_)
    away = cv2.distanceTransform(1 - breast, cv2.DIST_L2, 5)
    outside: NDArray[np.bool_] = np.greater(away, MARGIN * image.shape[0])
    return outside
