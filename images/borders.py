"""The borders that a scanner leaves around a film: where they are found and cropped."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.files import WHITE_16
from images.frame import Box
from images.steps import reduce_by_area, whole_factor

DETAIL = 1024  # longer side in pixels at which borders are sought
ZONE = 0.12  # share of a side
TILT = 0.015  # share of a side over which the inner edge of a tilted strip may spread
STRIP_LEVEL = 0.8  # of the brightest pixel
STRIP_STEP = 0.15  # of the brightest pixel: how much darker it is just inside the strip
STRIP_SHARE = 0.5  # of the side's length that shows that step
BLACK_SHARE = 0.98  # of the side's length that is darker than the film's own background
BAR_SPREAD, DARKEST_BAR = 0.006, 0.2  # of the grey range, within a bar; how light one is at most
BAR_STEP = 0.5  # of the side's length that is lighter where a bar ends


def fixed_border_box(shape: tuple[int, int], margin: float) -> Box:
    """Return the (height, width) image's box without a margin, a share in [0, 0.5) of each side."""
    dy, dx = (int(side * margin) for side in shape)
    return Box(dx, dy, shape[1] - 2 * dx, shape[0] - 2 * dy)


def find_border_box(image: NDArray[np.uint16]) -> Box:
    """Find the film inside the bright and black strips that a scanner leaves at its edges.

    A bright strip runs along a side, is near the brightest grey value of the image, and ends in a
    step to something darker along at least half of the side: tissue at the chest wall has no such
    straight step, so it is not taken for one. Black strips are darker than half of the film's
    own background. Even dark bars of any width go first: some collections fill films up to squares.

    Returns:
        The box to keep of the (H, W) image in [0, 65535]; all of it where no border is found.
    """
    factor = whole_factor(image.shape, DETAIL)
    small = reduce_by_area(image, factor)
    grey = small.astype(np.float32) / WHITE_16
    # Bars first: their even black would pass for the film's own background below.
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
    # Relative to the film's own background: how dark unexposed film is differs by scanner.
    # The first percentile of the inner part: single dead pixels and dust do not set the level.
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
    """Return what of (H, W) grey values in [0, 1] lies between the even dark bars of a padding.

    Film may be as dark and even, but does not become lighter along a straight line.
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
    # Only a step across most of the side is the end of a bar; film fades without one.
    end = _past_wedge(share, width, _reach(grey.shape[1])[1])
    return end if width and share[end : end + 2].min(initial=1) <= 1 - BAR_STEP else 0


def _inner(image: NDArray[Any]) -> NDArray[Any]:
    dy, dx = (int(side * ZONE) for side in image.shape)
    return image[dy : image.shape[0] - dy, dx : image.shape[1] - dx]


def _bright_strip(grey: NDArray[np.float32], bright: NDArray[np.bool_], step: float) -> int:
    """Return the width of the bright strip at the left side of (H, W) grey values in [0, 1].

    `bright` is where they are as bright as a strip, `step` how much darker it is just inside.
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

    `share` (W,) is how much of each column is strip; at `cut`, most of the strip has ended.
    """
    beyond = share[cut + reach : cut + 2 * reach]
    settled = share[cut : cut + reach] <= (float(beyond.max()) if beyond.size else 0.0) + 0.01
    return cut + (int(np.argmax(settled)) if settled.any() else min(reach, settled.size))
