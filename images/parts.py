"""The parts of a scanned film: the scanner's borders, the background, and the breast."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import WHITE_16
from images.frame import Box
from images.steps import reduce_by_area

BORDER_DETAIL, MASK_DETAIL = 1024, 512  # longer side in pixels at which the parts are sought

# Borders: where they are looked for, and what a bright strip is.
ZONE = 0.12  # share of a side
TILT = 0.015  # share of a side over which the inner edge of a tilted strip may spread
STRIP_LEVEL = 0.8  # of the brightest pixel
STRIP_STEP = 0.15  # of the brightest pixel: how much darker it is just inside the strip
STRIP_SHARE = 0.5  # of the side's length that shows that step
BLACK_SHARE = 0.98  # of the side's length that is darker than the film's own background
BAR_SPREAD, DARKEST_BAR = 0.006, 0.2  # of the grey range, within a bar; how light one is at most
BAR_STEP = 0.5  # of the side's length that is lighter where a bar ends

# The breast and what lies beside it. Lengths are shares of the longer side.
FITTED = 8000  # pixels of the background that are looked at
LEAST_SPREAD = 0.0005  # of the grey range, of the background about its surface
LEAST_CONTRAST = 0.02  # of the grey range, between background and breast
FAINTEST = 0.04  # of that contrast: the least that the skin line stands out of the background
NO_BACKGROUND = 0.35  # of the brightest part: where the darkest part is brighter, there is but one
EVEN_SHARE = 0.4  # of the film: unless so much of it is even
EVEN_SPREAD = 0.05  # of the contrast: even
THIN = 0.02  # half the thickness of what a scanner may have left black
EMPTY = 0.1  # of the grey range: tissue is brighter than a film without any
THICK = 0.042  # half the thickness below which something is no breast, unless it is a nipple
NIPPLE = 0.04  # how far it stands out of the breast
FOLD = 0.08  # how far armpit and belly go on thinly along the film's upper and lower edge
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
    own background. Even dark bars of any width go first: some collections fill films up to squares.

    Args:
        image: (H, W) uint16 in [0, 65535].

    Returns:
        The box to keep; all of the image where no border is found.
    """
    factor = _whole_factor(image.shape, BORDER_DETAIL)
    small = reduce_by_area(image, factor)
    grey = small.astype(np.float32) / WHITE_16
    bars = _bars(grey)
    grey = bars.of(grey)
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
    upper, lower = bars.y, small.shape[0] - bars.y - bars.height
    before = upper, lower, bars.x, small.shape[1] - bars.x - bars.width
    y, lower, x, right = (
        factor * (bar + first + second + (factor > 1 and bar + first > 0))
        for bar, first, second in zip(before, (top, bottom, left, right), more, strict=True)
    )
    return Box(x, y, image.shape[1] - x - right, image.shape[0] - y - lower)


def _sides(image: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views with the upper, lower, left and right side of an image as their left side."""
    return image.T, image[::-1].T, image, image[:, ::-1]


def _bars(grey: NDArray[np.floating]) -> Box:
    """Return what lies between even dark bars, of any width, that an image was filled up with.

    Film may be as dark and even, but does not become lighter along a straight line.

    Args:
        grey: (H, W) in [0, 1].
    """
    top, bottom, left, right = (_bar(side) for side in _sides(grey))
    return Box(left, top, grey.shape[1] - left - right, grey.shape[0] - top - bottom)


def _bar(grey: NDArray[np.floating]) -> int:
    """Return the width of the even dark bar at the left side of (H, W) grey values in [0, 1]."""
    level = min(float(np.median(grey[:, 0])), DARKEST_BAR) + BAR_SPREAD
    if (grey[:, 0] <= level).mean() < BLACK_SHARE:
        return 0
    share = (grey <= level).mean(axis=0)
    width = int(np.argmin(share >= BLACK_SHARE))
    end = _past_wedge(share, width, _reach(grey.shape[1])[1])
    return end if width and share[end : end + 2].min(initial=1) <= 1 - BAR_STEP else 0


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
    until = max(0, min(zone + 2 * reach, grey.shape[1] - reach))
    fall = grey[:, :until] - grey[:, reach : reach + until] >= step
    edge = (bright[:, :until] & fall).mean(axis=0)  # (until,)
    found = np.flatnonzero(edge[:zone] >= STRIP_SHARE)
    # What is as bright beyond the strip, such as the muscle, does not fall off with it.
    return _past_wedge(edge, int(found[-1]) + 1, reach) if found.size else 0


def _black_strip(dark: NDArray[np.bool_]) -> int:
    """Return the width of the black strip at the left side of an (H, W) mask of what is black."""
    zone, reach = _reach(dark.shape[1])
    black = dark[:, :zone].mean(axis=0) >= BLACK_SHARE
    if not black.any() or not black[0]:
        return 0
    return _past_wedge(dark.mean(axis=0), zone if black.all() else int(np.argmin(black)), reach)


def _reach(width: int) -> tuple[int, int]:
    return int(width * ZONE), max(3, round(width * TILT))


def _past_wedge(share: NDArray[np.floating], cut: int, reach: int) -> int:
    """Return where a tilted strip has ended for good, at most `reach` beyond `cut`.

    Args:
        share: (W,): of each column, how much is strip.
        cut: Where most of it has ended.
        reach: How far its end may spread.
    """
    beyond = share[cut + reach : cut + 2 * reach]
    settled = share[cut : cut + reach] <= (float(beyond.max()) if beyond.size else 0.0) + 0.01
    return cut + (int(np.argmax(settled)) if settled.any() else min(reach, settled.size))


def breast_mask(image: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the breast, with pectoral muscle and nipple, without letters, labels and tape.

    Otsu's threshold (N. Otsu 1979, IEEE Trans. SMC 9(1):62-66) gives a first background, a surface
    is fitted to it, and what stands out of that is opened with a disc; the largest piece is
    the breast, so that the dim skin line belongs to it and tape that touches it does not. Bright
    spots that stand for the most part in the background are labels, even where they touch the
    breast; small pieces that sit on the breast are the nipple, or armpit and belly where they run
    out thinly along the film's upper and lower edge.

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
    brightest = float(np.percentile(grey, 99))
    rest = grey - level
    contrast = float(np.median(rest[light])) if light.any() else 0.0
    if float(np.median(level)) > NO_BACKGROUND * brightest and (
        spread >= EVEN_SPREAD * contrast or (np.abs(rest) <= 3 * spread).mean() < EVEN_SHARE
    ):
        return np.full(grey.shape, bool(np.median(grey) > EMPTY))  # tissue everywhere, or nowhere
    if contrast < max(LEAST_CONTRAST, 5 * spread):
        return np.zeros(grey.shape, bool)
    # Where the muscle is white, what it takes to stand out is measured at the rest of the breast.
    typical = min(contrast, float(np.median(rest[rest > 4 * spread])))
    bright = (rest > max(4 * spread, FAINTEST * typical)).astype(np.uint8)
    bright[_labels(rest, bright)] = 0
    unit = max(grey.shape)
    body = _largest(_opened(bright, THICK * unit))
    if body.mean() < SMALLEST_BREAST:
        return np.zeros(grey.shape, bool)
    # Opening also took skin and nipple: give back what does not reach further than they do.
    body |= bright & (_distance(body) <= SKIN).astype(np.uint8)
    body |= _small_parts(bright & (1 - body), _distance(body))
    others = bright & (1 - body)
    body[_distance(others) <= CLEARANCE * unit] = 0
    mask = (_distance(body) <= MARGIN) & (others == 0)
    return _without_holes(mask.astype(np.uint8)).astype(bool)


def _small_parts(rest: NDArray[np.uint8], away: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the pieces of a mask of 0 and 1 that are small and sit on the breast.

    Args:
        rest: (H, W): what is bright and not yet breast.
        away: (H, W): distance from the breast in pixels.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(rest)
    there = rest > 0
    number = pieces[there].astype(np.intp)
    nearest, farthest = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(nearest, number, away[there])
    np.maximum.at(farthest, number, away[there])
    at_edge = np.isin(np.arange(count), pieces[[0, -1]])  # the upper or lower one
    reach = np.where(at_edge, FOLD, NIPPLE) * max(rest.shape)  # (count,)
    wanted = (nearest <= 1.5) & (farthest <= reach)
    wanted &= stats[:, cv2.CC_STAT_AREA] <= 1.25 * reach**2
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
    """Fit a surface of second order to the background: few films are evenly dark.

    Args:
        grey: (H, W) in [0, 1].

    Returns:
        The surface, (H, W); the standard deviation of the background about it; and what Otsu's
        threshold takes for brighter than background, (H, W).
    """
    # The square root spreads the dark end, where the background and the skin line are.
    root = np.round(np.sqrt(grey) * 255).astype(np.uint8)
    otsu, _ = cv2.threshold(root, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    light = np.greater(root, otsu)
    if light.all():  # one even grey
        return grey, 0.0, light
    first, black = _darkest(grey, ~light)
    some = np.flatnonzero(~light & ~black)
    some = some[:: max(1, some.size // FITTED)]
    y, x = (place / max(grey.shape) for place in np.divmod(some, grey.shape[1]))
    fitted = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # (n, 6)
    values = grey.ravel()[some]
    seen = grey[first]
    counts, edges = np.histogram(seen, bins=128)
    peak = counts.argmax()
    commonest = seen[(seen >= edges[peak]) & (seen <= edges[peak + 1])]
    factors, spread = np.zeros(6), np.inf
    factors[0] = np.median(commonest)
    lowest = highest = factors[0]
    for _ in range(8):
        rest = values - fitted @ factors
        # Tissue lies above the background only, so the spread is taken below; and it may not grow,
        # or the surface would climb the skin line.
        below = -rest[(rest <= 0) & (rest >= -3 * spread)]
        if not below.size:
            break
        spread = min(spread, 1.4826 * float(np.median(below)) + LEAST_SPREAD)
        kept = np.abs(rest) <= 2.5 * spread
        chosen = fitted[kept]
        factors = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ values[kept])[0]
        lowest, highest = values[kept].min(), values[kept].max()
    # Under the breast nothing holds the surface: it may not leave what it was fitted to.
    y, x = (np.arange(side, dtype=np.float32) / max(grey.shape) for side in grey.shape)
    even, along, down, *second = factors.astype(np.float32)
    level = even + x * (along + second[0] * x) + (y * (down + second[2] * y))[:, None]
    level += (second[1] * y)[:, None] * x
    return np.clip(level, lowest, highest).astype(np.float32), spread, light


def _darkest(
    grey: NDArray[np.float32], dark: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell background from dim tissue and from what a scanner left black at the edges.

    Args:
        grey: (H, W) in [0, 1].
        dark: (H, W): not empty; what is dark enough for background.

    Returns:
        What is background rather than tissue; and what is neither, (H, W) each.
    """
    while True:
        black = dark & (grey < 0.5 * float(np.median(grey[dark])))
        framed = np.pad(black.astype(np.uint8), 1)  # strips at the edges are thin, too
        if cv2.distanceTransform(framed, cv2.DIST_L2, 5).max() <= THIN * max(grey.shape):
            return dark & ~black, black
        dark = black


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
