"""The parts of a scanned film: the scanner's borders, the background, and the breast."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sources.film_frame import Box
from sources.film_steps import reduce_by_area
from sources.images import WHITE_16

BORDER_DETAIL, MASK_DETAIL = 1024, 512  # longer side in pixels at which the parts are sought

# Borders: where they are looked for, and what a bright strip is.
ZONE = 0.12  # share of a side
TILT = 0.015  # share of a side over which the inner edge of a tilted strip may spread
STRIP_LEVEL = 0.8  # of the brightest pixel
STRIP_STEP = 0.15  # of the brightest pixel: how much darker it is just inside the strip
STRIP_SHARE = 0.5  # of the side's length that shows that step
BLACK_SHARE = 0.98  # of the side's length that is darker than the film's own background

# The breast and what lies beside it. Lengths are shares of the longer side.
FITTED = 8000  # pixels of the background that are looked at
LEAST_SPREAD = 0.0005  # of the grey range, of the background about its plane
LEAST_CONTRAST = 0.02  # of the grey range, between background and breast
FAINTEST = 0.04  # of that contrast: the least that the skin line stands out of the background
NO_BACKGROUND = 0.35  # of the brightest part: where the darkest part is brighter, there is but one
EMPTY = 0.1  # of the grey range: tissue is brighter than a film without any
THICK = 0.042  # half the thickness below which something is no breast, unless it is a nipple
NIPPLE = 0.04  # how far it stands out of the breast
SKIN = 2  # pixels
CLEARANCE = 0.014  # kept from what touches the breast
SPOT, SPOT_LEVEL = 0.06, 0.5  # half the size of a label at most; of the brightest tissue
SPOT_SHARE = 0.4  # of a label's rim that lies in the background
SMALLEST_BREAST = 0.02  # of the image
MARGIN = 1  # pixel beyond the skin line, of about MASK_DETAIL along the longer side


def _whole_factor(shape: tuple[int, ...], longer: float) -> int:
    """Return the whole factor that brings the longer side of an image nearest to `longer`."""
    return max(1, min(round(max(shape) / longer), *shape))


def fixed_border_box(shape: tuple[int, int], margin: float) -> Box:
    """Return what is left of an image without a margin on each side.

    Args:
        shape: Height and width in pixels.
        margin: Share of the side, in [0, 0.5).
    """
    dy, dx = (int(side * margin) for side in shape)
    return Box(dx, dy, shape[1] - 2 * dx, shape[0] - 2 * dy)


def find_border_box(image: NDArray[np.uint16]) -> Box:
    """Find the film inside the bright and black strips that a scanner leaves at its edges.

    A bright strip runs along a side, is near the brightest grey value of the image, and ends in a
    step to something darker along at least half of the side: tissue at the chest wall has no such
    straight step, so it is not taken for one. Black strips are darker than half of the film's
    own background.

    Args:
        image: (H, W) uint16 in [0, 65535].

    Returns:
        The box to keep; all of the image where no border is found.
    """
    factor = _whole_factor(image.shape, BORDER_DETAIL)
    small = reduce_by_area(image, factor)
    grey = small.astype(np.float32) / WHITE_16
    if not grey.any():
        return fixed_border_box(image.shape, 0)
    bright = grey >= STRIP_LEVEL * float(grey.max())
    step = STRIP_STEP * float(grey.max())
    top, bottom, left, right = (
        _bright_strip(side, mask, step)
        for side, mask in zip(_sides(grey), _sides(bright), strict=True)
    )
    film = grey[top : grey.shape[0] - bottom, left : grey.shape[1] - right]
    dark = film < 0.5 * float(np.percentile(_inner(film), 1))
    more = [_black_strip(side) for side in _sides(dark)]
    # A reduced pixel across the edge of a bright strip may still be bright: it goes as well.
    y, lower, x, right = (
        factor * (first + second + (factor > 1 and first > 0))
        for first, second in zip((top, bottom, left, right), more, strict=True)
    )
    return Box(x, y, image.shape[1] - x - right, image.shape[0] - y - lower)


def _sides(image: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views with the upper, lower, left and right side of an image as their left side."""
    return image.T, image[::-1].T, image, image[:, ::-1]


def _inner(image: NDArray[Any]) -> NDArray[Any]:
    dy, dx = (int(side * ZONE) for side in image.shape)
    return image[dy : image.shape[0] - dy, dx : image.shape[1] - dx]


def _bright_strip(grey: NDArray[np.float32], bright: NDArray[np.bool_], step: float) -> int:
    """Return the width of the bright strip at the left side.

    Args:
        grey: (H, W) in [0, 1].
        bright: (H, W): where that is as bright as a strip.
        step: How much darker it is just inside of a strip.
    """
    zone, reach = _reach(grey.shape[1])
    fall = grey[:, :zone] - grey[:, reach : reach + zone] >= step
    edge = (bright[:, :zone] & fall).mean(axis=0) >= STRIP_SHARE  # (zone,)
    if not edge.any():
        return 0
    return _past_wedge(bright, int(np.flatnonzero(edge)[-1]) + 1, reach)


def _black_strip(dark: NDArray[np.bool_]) -> int:
    """Return the width of the black strip at the left side of an (H, W) mask of what is black."""
    zone, reach = _reach(dark.shape[1])
    black = dark[:, :zone].mean(axis=0) >= BLACK_SHARE
    if not black.any() or not black[0]:
        return 0
    return _past_wedge(dark, zone if black.all() else int(np.argmin(black)), reach)


def _reach(width: int) -> tuple[int, int]:
    return int(width * ZONE), max(3, round(width * TILT))


def _past_wedge(strip: NDArray[np.bool_], cut: int, reach: int) -> int:
    """Return where a tilted strip has ended for good, at most `reach` beyond `cut`."""
    share = strip[:, cut : cut + 2 * reach].mean(axis=0)
    settled = share[:reach] <= share[reach:].min() + 0.01
    return cut + (int(np.argmax(settled)) if settled.any() else reach)


def breast_mask(image: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the breast, with pectoral muscle and nipple, without letters, labels and tape.

    Otsu's threshold (N. Otsu 1979, IEEE Trans. SMC 9(1):62-66) gives a first background, a plane
    is fitted to it, and what stands out of that plane is opened with a disc; the largest piece is
    the breast, so that the dim skin line belongs to it and tape that touches it does not. Bright
    spots that stand for the most part in the background are labels, even where they touch the
    breast; small pieces that sit on the breast are the nipple.

    Args:
        image: (H, W) uint16 in [0, 65535], without scanner borders.

    Returns:
        (H, W) bool: True in the breast and a little beyond the skin line; nowhere where no breast
        is found; everywhere where there is no background.
    """
    small = reduce_by_area(image, _whole_factor(image.shape, MASK_DETAIL))
    grey = cv2.GaussianBlur(small.astype(np.float32) / WHITE_16, (5, 5), 0)
    found = _breast(grey.astype(np.float32, copy=False))
    if found.all() or not found.any():
        return np.full(image.shape, bool(found.all()))
    size = (image.shape[1], image.shape[0])
    shade = cv2.resize(found.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    return shade > 127


def _breast(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the breast in (H, W) smoothed grey values in [0, 1]; see `breast_mask`."""
    level, spread, light = _background(grey)
    if float(np.median(level)) > NO_BACKGROUND * float(np.percentile(grey, 99)):
        return np.full(grey.shape, bool(np.median(grey) > EMPTY))  # tissue everywhere, or nowhere
    grey = grey - level
    contrast = float(np.median(grey[light])) if light.any() else 0.0
    if contrast < max(LEAST_CONTRAST, 8 * spread):
        return np.zeros(grey.shape, bool)
    bright = (grey > max(4 * spread, FAINTEST * contrast)).astype(np.uint8)
    bright[_labels(grey, bright)] = 0
    unit = max(grey.shape)
    body = _largest(_opened(bright, THICK * unit))
    if body.mean() < SMALLEST_BREAST:
        return np.zeros(grey.shape, bool)
    # Opening also took skin and nipple: give back what does not reach further than they do.
    body |= bright & (_distance(body) <= SKIN).astype(np.uint8)
    body |= _nipples(bright & (1 - body), _distance(body), NIPPLE * unit)
    others = bright & (1 - body)
    body[_distance(others) <= CLEARANCE * unit] = 0
    mask = (_distance(body) <= MARGIN) & (others == 0)
    return _without_holes(mask.astype(np.uint8)).astype(bool)


def _nipples(rest: NDArray[np.uint8], away: NDArray[np.float32], reach: float) -> NDArray[np.uint8]:
    """Return the pieces of a mask of 0 and 1 that are small and sit on the breast.

    Args:
        rest: (H, W): what is bright and not yet breast.
        away: (H, W): distance from the breast in pixels.
        reach: How far such a piece reaches at most, in pixels.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(rest)
    there = rest > 0
    number = pieces[there].astype(np.intp)
    nearest, farthest = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(nearest, number, away[there])
    np.maximum.at(farthest, number, away[there])
    small = stats[:, cv2.CC_STAT_AREA] <= 1.25 * reach**2
    wanted = (nearest <= 1.5) & (farthest <= reach) & small
    found = np.zeros_like(rest)
    found[there] = wanted[number]
    return found


def _opened(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Open a mask of 0 and 1 with a disc, as if it went on beyond the chest wall."""
    reach = int(2 * radius) + 2
    edge = max(1, mask.shape[1] // 50)
    left, right = float(mask[:, :edge].mean()), float(mask[:, -edge:].mean())
    sides = (reach * (left >= min(right, 0.5)), reach * (right >= min(left, 0.5)))
    wide = cv2.copyMakeBorder(mask, 0, 0, *sides, cv2.BORDER_REPLICATE)
    wide = cv2.copyMakeBorder(wide, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    core = (cv2.distanceTransform(wide, cv2.DIST_L2, 5) > radius).astype(np.uint8)
    grown = (_distance(core) <= radius).astype(np.uint8)
    return grown[1:-1, 1 + sides[0] : grown.shape[1] - 1 - sides[1]] & mask


def _distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the distance of every pixel from a mask of 0 and 1, in pixels."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5).astype(np.float32)


def _background(
    grey: NDArray[np.float32],
) -> tuple[NDArray[np.float32], float, NDArray[np.bool_]]:
    """Fit a plane to the background, since few films are evenly dark.

    Args:
        grey: (H, W) in [0, 1].

    Returns:
        The plane, (H, W); the standard deviation of the background about it; and what Otsu's
        threshold takes for brighter than background, (H, W).
    """
    # The square root spreads the dark end, where the background and the skin line are.
    root = np.round(np.sqrt(grey) * 255).astype(np.uint8)
    otsu, _ = cv2.threshold(root, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    light = np.greater(root, otsu)
    y, x = np.indices(grey.shape, np.float32) / max(grey.shape)
    terms = np.stack([np.ones_like(grey), x, y], axis=-1)  # (H, W, 3)
    if light.all():  # one even grey
        return grey, 0.0, light
    dark = ~light & (grey >= 0.5 * np.median(grey[~light]))  # without what a scanner left black
    some = np.flatnonzero(dark)
    some = some[:: max(1, some.size // FITTED)]
    fitted, values = terms.reshape(-1, 3)[some], grey.ravel()[some]
    counts, edges = np.histogram(values, bins=128)
    peak = counts.argmax()
    commonest = values[(values >= edges[peak]) & (values <= edges[peak + 1])]
    factors, spread = np.array([np.median(commonest), 0, 0], np.float32), np.inf
    for _ in range(8):
        rest = values - fitted @ factors
        # Tissue lies above the background only, so the spread is taken below; and it may not grow,
        # or the plane would climb the skin line.
        below = -rest[(rest <= 0) & (rest >= -3 * spread)]
        if not below.size:
            break
        spread = min(spread, 1.4826 * float(np.median(below)) + LEAST_SPREAD)
        kept = np.abs(rest) <= 2.5 * spread
        factors = np.linalg.lstsq(fitted[kept], values[kept])[0]
    return (terms @ factors).astype(np.float32), spread, light


def _labels(grey: NDArray[np.float32], bright: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find bright spots that stand for the most part in the background."""
    size = 2 * round(max(grey.shape) * SPOT) + 1
    hat = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((size, size), np.uint8))
    level = SPOT_LEVEL * float(np.percentile(grey, 99.5))
    count, spots = cv2.connectedComponents((hat > level).astype(np.uint8), ltype=cv2.CV_16U)
    near = cv2.dilate(spots, _disc(2))
    ring = np.where(near > 0, 0, cv2.dilate(spots, _disc(4)))  # number of the spot it is around
    around = np.bincount(ring.ravel(), minlength=count)
    dark = np.bincount(ring.ravel(), weights=1.0 - bright.ravel(), minlength=count)
    found: NDArray[np.bool_] = (dark >= SPOT_SHARE * np.maximum(around, 1))[near] & (near > 0)
    return found


def _disc(radius: int) -> NDArray[np.uint8]:
    side = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)


def _largest(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest connected piece of an (H, W) mask of 0 and 1."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.equal(pieces, largest).astype(np.uint8)


def _without_holes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill what a mask of 0 and 1 encloses; what touches the image's edge is not enclosed."""
    outside = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(outside, None, (0, 0), 2)
    return np.not_equal(outside[1:-1, 1:-1], 2).astype(np.uint8)
