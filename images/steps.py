"""The preprocessing steps: functions on 16-bit arrays; the last one converts to 8 bits.

Images (`Grey`) are (H, W) uint16 in [0, 65535] and masks (`Mask`) (H, W) bool, in and out.
"""

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD, WHITE_16
from images.frame import CENTRE, LEFT, RIGHT

Grey = NDArray[np.uint16]  # (H, W), [0, 65535]
Mask = NDArray[np.bool_]  # (H, W)

BINS = 256  # of a CLAHE histogram, for any depth
ROWS = 256  # worked on at a time: they stay in cache, and a film takes little memory beside it
COLUMNS = 16384  # the same; OpenCV's remap takes less than 32,767
SMALL_KERNEL = 5  # side up to which OpenCV blurs such rows four times as fast as a whole film
MEDIANS = (3, 5)  # sides that OpenCV takes for 16 bits
TURNED = 128  # pixels of each side that a film is reduced to, to see how it lies
UPSIDE_DOWN = 0.75  # of the brightness below: a film with less at the top stands on its head
GRAIN = 0.03  # of the grey range: two to three deviations of film grain, below a calcification


def whole_factor(shape: tuple[int, ...], longer: float) -> int:
    """Return the whole factor that brings the longer side of an image nearest to `longer`."""
    return max(1, min(round(max(shape) / longer), *shape))


def reduce_by_area(image: Grey, factor: int) -> Grey:
    """Shrink an image by a whole factor in [1, min(H, W)]: several times faster than by others.

    Returns:
        (H // factor, W // factor) uint16 of mean grey values; the last rows and columns that do
        not make up a whole pixel are left out.
    """
    if factor == 1:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    whole = image[: size[1] * factor, : size[0] * factor]
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint16)


def remove_annotations(image: Grey, mask: Mask) -> Grey:
    """Set everything outside the breast to 0, with a hard edge; the mask is from `breast_mask`."""
    # The mask ends in the background beyond the skin line, so the edge cuts through nothing bright.
    # Not blended: a soft edge would be a pattern that a network could learn.
    return np.multiply(image, mask)


def chest_wall_side(image: Grey) -> str:
    """Return the side of an (H, W) film on which the breast lies: the brighter third of it."""
    third = max(1, image.shape[1] // 3)
    # The breast lies at the chest wall; the opposite side of the film is background.
    left, right = cv2.mean(image[:, :third])[0], cv2.mean(image[:, -third:])[0]
    return LEFT if left >= right else RIGHT


def quarter_turns(image: Grey) -> int:
    """Return how many quarter turns, counter-clockwise, bring a film upright.

    Upright, the chest wall is at the left or right, and the muscle, which is the brightest tissue
    there, at the top. Where that says little (a CC view is as bright below), the film stays.

    Args:
        image: (H, W) uint16 in [0, 65535], without the scanner's borders.

    Returns:
        0 to 3, as `numpy.rot90` takes it.
    """
    small = cv2.resize(image, (TURNED, TURNED), interpolation=cv2.INTER_AREA)
    grey = cv2.GaussianBlur((small // SPREAD).astype(np.uint8), (0, 0), TURNED / 85)
    otsu, _ = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # Half of Otsu's threshold parts the fat, too, from the background.
    _, areas, stats, _ = cv2.connectedComponentsWithStats((grey > otsu / 2).astype(np.uint8))
    if len(stats) < 2:
        return 0
    breast = areas == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    strip = TURNED // 40
    left, right, top, bottom = (
        float(side.mean())
        for side in (breast[:, :strip], breast[:, -strip:], breast[:strip], breast[-strip:])
    )
    # An upright film is higher than wide, which decides where the breast fills a corner.
    lies = abs(top - bottom) + 0.5 * math.log(image.shape[1] / image.shape[0]) > abs(left - right)
    turned = np.rot90(np.where(breast, grey, 0), int(lies))
    near_left = (top if lies else left) >= (bottom if lies else right)
    wall = turned[:, : TURNED // 3] if near_left else turned[:, -TURNED // 3 :]
    upper, lower = wall[: TURNED // 2].mean(), wall[TURNED // 2 :].mean()
    upside_down = upper < (lower if lies else UPSIDE_DOWN * lower)
    return int(lies) + 2 * int(upside_down)


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
    # Area averaging keeps a calcification's share of grey; linear would skip pixels.
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, (wide, high), interpolation=interpolation)
    y = (size - high) // 2 if place == CENTRE else 0
    x = {LEFT: 0, RIGHT: size - wide, CENTRE: (size - wide) // 2}[place]
    square = np.zeros((size, size), image.dtype)
    square[y : y + high, x : x + wide] = small
    return square, scale


def blur(image: Grey, kernel: int) -> Grey:
    """Smooth film grain with a Gaussian; the kernel's side in pixels is odd.

    Sides of 3, 5 and 7 are OpenCV's small binomial-like kernels ((1, 2, 1) / 4 for 3); beyond, the
    standard deviation is 0.3 ((kernel - 1) / 2 - 1) + 0.8 pixels.
    """
    if kernel > SMALL_KERNEL:
        return _gaussian(image, kernel)
    return _in_rows(image, kernel // 2, lambda rows: _gaussian(rows, kernel))


def _gaussian(image: Grey, kernel: int) -> Grey:
    return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), 0), np.uint16)


def bilateral(image: Grey, kernel: int) -> Grey:
    """Smooth film grain and keep edges: the mean of near pixels of near grey values.

    After C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images", ICCV (1998),
    839-846. The deviation in space is that of `blur` for the same side, 0.3 ((kernel - 1) / 2 - 1)
    + 0.8 pixels; that in grey is 3 % of the range: grain is smoothed, calcifications stay. The
    kernel is the diameter in pixels, odd.
    """
    grey, space = GRAIN * WHITE_16, 0.3 * (kernel // 2 - 1) + 0.8

    def smooth(rows: Grey) -> Grey:
        mean = cv2.bilateralFilter(rows.astype(np.float32), kernel, grey, space)
        return np.rint(mean).astype(np.uint16)

    return _in_rows(image, kernel // 2, smooth)


def median(image: Grey, kernel: int) -> Grey:
    """Replace each pixel by the median of a square of 3 or 5 pixels: specks go, edges stay.

    After T. Huang, G. Yang and G. Tang, "A fast two-dimensional median filtering algorithm", IEEE
    Trans. Acoustics, Speech, and Signal Processing 27 (1979), 13-18.

    Raises:
        ValueError: The kernel has another side.
    """
    if kernel not in MEDIANS:
        raise ValueError(f"{kernel}: the side of a median of 16 bits must be 3 or 5")
    return np.asarray(cv2.medianBlur(image, kernel), np.uint16)


def flip(image: Grey) -> Grey:
    """Return an (H, W) image mirrored left to right, as an array of its own."""
    return np.asarray(cv2.flip(image, 1), image.dtype)


def _in_rows(image: Grey, reach: int, smooth: Callable[[Grey], Grey]) -> Grey:
    """Apply a filter to blocks of rows; the result is that of the whole image.

    The filter maps (n, W) to (n, W) and looks at `reach` rows above and below each row.
    """
    result = np.empty_like(image)
    for top in range(0, len(image), ROWS):
        first = max(0, top - reach)
        rows = smooth(image[first : top + ROWS + reach].copy())  # near each other in memory
        result[top : top + ROWS] = rows[top - first : top - first + ROWS]
    return result


def clahe(image: Grey, mask: Mask, clip: float, tiles: int) -> Grey:
    """Contrast-limited adaptive histogram equalisation inside a mask; outside becomes 0.

    After K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV
    (1994), 474-485. The histograms have 256 bins as for 8 bits, so that the clip limit means the
    same (OpenCV takes 65,536 bins for 16 bits, over which a tile's few thousand pixels are spread
    too thin to be limited), but grey values are mapped between the bins and stay 16-bit. Only
    pixels of the mask count; what a tile lacks is made up from the histogram of the whole mask, so
    that tiles at the skin line are not stretched to their few pixels.

    The clip limit is the most that a bin may hold, in multiples of an even histogram's; there are
    `tiles` x `tiles` tiles.
    """
    result = np.zeros_like(image)
    if not mask.any():
        return result
    curves = _curves(image, mask, clip, tiles)  # (tiles * tiles, BINS + 1)
    x, y = (
        np.clip((np.arange(side, dtype=np.float32) + 0.5) * (tiles / side) - 0.5, 0, tiles - 1)
        for side in image.shape[::-1]
    )
    above = np.floor(y)  # x and y count tiles from the centre of the first one
    weight = (y - above)[:, None]
    for there in _blocks(mask, 0, len(image)):
        rows, columns = there
        level = image[there].astype(np.float32) * np.float32(BINS / (WHITE_16 + 1))
        # Between the two nearest bins and tiles of the row of tiles above; and of that below.
        column, first = x[columns], above[rows, None]
        second = np.minimum(first + 1, tiles - 1)
        upper = _interpolated(curves, level, first * np.float32(tiles) + column)
        lower = _interpolated(curves, level, second * np.float32(tiles) + column)
        lower -= upper
        lower *= weight[rows]
        upper += lower
        upper *= WHITE_16
        np.multiply(np.rint(upper, out=upper).astype(np.uint16), mask[there], out=result[there])
    return result


def _interpolated(
    table: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.asarray(cv2.remap(table, x, y, cv2.INTER_LINEAR), np.float32)


def _blocks(mask: Mask, top: int, bottom: int) -> Iterator[tuple[slice, slice]]:
    """Yield, some rows after another, the rows and columns that the mask lies in."""
    for first in range(top, bottom, ROWS):
        rows = slice(first, min(first + ROWS, bottom))
        x, _, width, _ = cv2.boundingRect(mask[rows].view(np.uint8))
        for left in range(x, x + width, COLUMNS):
            yield rows, slice(left, min(left + COLUMNS, x + width))


def _curves(image: Grey, mask: Mask, clip: float, tiles: int) -> NDArray[np.float32]:
    """Return each tile's cumulative clipped histogram in [0, 1], tiles in rows."""
    height, width = image.shape
    counts = _counts(image, mask, tiles)
    area = height * width / tiles**2
    # Pixels outside the mask are replaced by the mask's overall distribution, as a prior.
    lacking = np.maximum(area - counts.sum(axis=1, keepdims=True), 0)
    counts += lacking * counts.sum(axis=0) / counts.sum()
    clipped = np.minimum(counts, clip * area / BINS)
    # The excess is spread once and evenly, as in OpenCV: bins may end a little above the limit.
    clipped += (counts - clipped).sum(axis=1, keepdims=True) / BINS
    curves = np.zeros((tiles * tiles, BINS + 1), np.float32)
    curves[:, 1:] = np.cumsum(clipped, axis=1) / clipped.sum(axis=1, keepdims=True)
    return np.minimum(curves, 1)  # rounding above 1 would wrap white to black in uint16


def _counts(image: Grey, mask: Mask, tiles: int) -> NDArray[np.float64]:
    """Return each tile's histogram inside the mask, (tiles * tiles, BINS), tiles in rows."""
    height, width = image.shape
    counts = np.zeros((tiles, tiles, BINS))
    column = np.tile((np.arange(width) * tiles // width).astype(np.uint8), (ROWS, 1))
    edges = [-(-row * height // tiles) for row in range(tiles + 1)]
    for row in range(tiles):
        for there in _blocks(mask, edges[row], edges[row + 1]):
            # A joint histogram of tile column and grey: one pass for a whole row of tiles.
            bins = (image[there] >> 8).astype(np.uint8)
            counts[row] += cv2.calcHist(
                [column[: len(bins), there[1]], bins],
                [0, 1],
                mask[there].view(np.uint8),
                [tiles, BINS],
                [0, tiles, 0, BINS],
            )
    return counts.reshape(tiles * tiles, BINS)


def to_uint8(image: Grey) -> NDArray[np.uint8]:
    """Return (H, W) uint16 in [0, 65535] as uint8 in [0, 255], rounded; white stays white."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=1 / SPREAD), np.uint8)
