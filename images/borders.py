"""The borders that a scanner leaves around a film: where they are found and cropped."""

from typing import Any

import cv2
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
# Of a film that lies turned in the scanner; lengths are shares of the longer side.
STEEPEST, DEEPEST = 0.07, 0.13  # of its edge to the image's side: slope (4 degrees) and distance
EVEN = 0.9  # of the white beside the film: all of it is at least so bright
FALL = 0.12  # of that white: how much darker the film is two pixels inside its edge
FAINT, ALONG = (
    0.02,
    9,
)  # of that white: the least step to tissue as white; pixels it is averaged over
SEEN, CLEAR, UNLIKE = 0.2, 0.6, 0.1  # of the edge: seen at least; where it is clear; without white
SHORTEST = 0.08  # of the side's length
LEVEL = 0.008  # how much wider one end of a strip may be for the whole of it to be cropped
SMOOTHED = 0.02  # of the side's length, over which the edge's small bends are smoothed
CLEARANCE = 0.7  # pixels of about DETAIL along the longer side that are white in part
CORNER, ROUND = 0.07, 0.4  # of a rounded corner: its side; the share that is white of its square
BARE, OUTLINED = 0.002, 0.8  # of bare film: its area, of the image; of its rim that is sharp
CORNERS, CONVEX = 6, 0.95  # of its outline at most; of the outline's convex hull, at least
SQUARE = np.ones((5, 5), np.uint8)


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
        _level_part(side, _bright_strip(side, mask, step), max(grey.shape))
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


def find_beyond_film(image: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the white beside a film that lies turned in the scanner, and bare film in its corners.

    A film's edge is a straight sharp fall from white, at a small angle to a side of the image. It
    is followed where tissue as white as the border touches it. What is white in the film's rounded
    corners belongs to it, and so does bare film: a white piece with few straight sharp edges, at a
    side other than the chest wall's, where the muscle may look like it.

    Returns:
        True where there is no film, (h, w) bool: of the (H, W) image in [0, 65535], reduced to
        about `DETAIL` along its longer side.
    """
    small = reduce_by_area(image, whole_factor(image.shape, DETAIL))
    grey: NDArray[np.float32] = np.divide(small, WHITE_16, dtype=np.float32)
    if not grey.any():
        return np.zeros(grey.shape, np.bool_)
    strips = np.zeros((4, *grey.shape), np.bool_)
    for number, side in enumerate(_sides(grey)):
        edge = _film_edge(side, max(grey.shape))
        if edge is not None:
            strip = _sides(strips[number])[number]
            # Pixels lie half a pixel beyond their number.
            strip |= np.arange(strip.shape[1]) + 0.5 < edge[:, None] + CLEARANCE
    beyond: NDArray[np.bool_] = np.logical_or.reduce(strips) | _bare_film(grey, strips)
    return beyond


def _film_edge(grey: NDArray[np.float32], unit: int) -> NDArray[np.floating] | None:
    """Return how far from the left side of (H, W) grey values the film begins, (H,); None if at it.

    `unit` is the image's longer side.
    """
    deep = min(grey.shape[1] - 3, int(DEEPEST * unit))
    first = grey[:, :2].max(axis=1)
    lit = first >= STRIP_LEVEL * float(grey.max())
    if deep < 4 or lit.mean() <= SHORTEST:
        return None
    white = float(np.median(first[lit]))
    lit = first >= EVEN * white
    darker = grey[:, 1:deep] < EVEN * white
    ends = np.where(darker.any(axis=1), 1 + darker.argmax(axis=1), deep)  # (H,)
    rows = np.arange(len(grey))
    inside = grey[rows, ends + 2]
    fall = white - inside
    sharp = np.flatnonzero(lit & (ends < deep) & (fall >= FALL * white))
    if sharp.size <= SHORTEST * rows.size:
        return None
    # Of the two pixels across the edge, the share that is white is as bright.
    parts = (grey[sharp, ends[sharp] + step] - inside[sharp] for step in (0, 1))
    found = ends[sharp] + sum(np.clip(part / fall[sharp], 0, 1) for part in parts)
    faint, place = _faint_edges(grey[:, :deep], np.where(lit, ends, 0), white)
    sharp, found = np.concatenate([sharp, faint]), np.concatenate([found, place])
    line, near = _straight_line(sharp, found)
    edge = np.polyval(line, rows)
    there = edge > 1  # beyond, the film reaches past the image
    against = (edge > 4) & (~lit | (ends < edge - 4))
    clear = there & (ends <= edge + 2)
    least = max(SEEN * there.sum(), CLEAR * clear.sum(), SHORTEST * rows.size)
    if abs(line[0]) > STEEPEST or near.sum() < least or against.sum() > UNLIKE * there.sum():
        return None
    # Few films are cut quite straight.
    order = np.argsort(sharp[near], kind="stable")
    uneven = np.interp(rows, sharp[near][order], (found - edge[sharp])[near][order])
    edge = edge + cv2.blur(uneven[:, None], (1, 2 * int(SMOOTHED * rows.size) + 1))[:, 0]
    return np.where(there, edge, -CLEARANCE)


def _faint_edges(
    grey: NDArray[np.float32], ends: NDArray[np.intp], white: float
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Return rows, (n,), with a small step in (H, W) grey values before they end, and its place."""
    smooth = cv2.blur(grey, (1, ALONG))
    step = np.abs(smooth[:, 3:] - smooth[:, :-3])
    large = step >= FAINT * white
    rows = np.flatnonzero(large.any(axis=1))
    # An edge changes three of these differences; the largest is that across it.
    after = large[rows].argmax(axis=1)[:, None] + np.arange(4)
    after = np.minimum(after, step.shape[1] - 1)
    largest = step[rows[:, None], after].argmax(axis=1)
    place = after[np.arange(rows.size), largest] + 2.0
    early = place < ends[rows] - 3
    return rows[early], place[early]


def _straight_line(
    x: NDArray[np.integer], y: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return slope and offset of the line that most points (n,) lie on, and which of them do.

    The slopes up to STEEPEST are tried out, as in the Hough transform (R. Duda and P. Hart 1972,
    Comm. ACM 15:11-15); least squares then make the best of them exact.
    """
    best, line = 0, np.zeros(2)
    for slope in np.linspace(-STEEPEST, STEEPEST, 57):
        offsets = np.rint((y - slope * x) / 1.5).astype(np.intp)
        counts = np.bincount(offsets - offsets.min())
        if counts.max() > best:
            best = int(counts.max())
            line = np.array([slope, 1.5 * (int(counts.argmax()) + int(offsets.min()))])
    near = np.zeros(x.shape, np.bool_)
    for distance in (3.0, 2.0, 2.0):
        near = np.abs(y - np.polyval(line, x)) <= distance
        if near.sum() < 8:
            return line, near
        line = np.polyfit(x[near], y[near], 1)
    return line, near


def _bare_film(grey: NDArray[np.float32], strips: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what else is white in a corner of the film, or has few straight edges at its side.

    `strips`, (4, H, W), is what is white beyond each side of the film in (H, W) grey values.
    """
    beyond: NDArray[np.bool_] = np.logical_or.reduce(strips)
    white = float(grey.max())
    bright, dark = (grey >= EVEN * white) & ~beyond, grey < (1 - FALL) * white
    chest_wall = _chest_wall(grey * ~(bright | beyond))
    sides = strips.copy()
    for number, side in enumerate(sides):
        _sides(side)[number][:, :1] = True
    near = [cv2.dilate(side.view(np.uint8), SQUARE) > 0 for side in sides]
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(bright.view(np.uint8))
    found = np.zeros(grey.shape, np.bool_)
    for number in np.unique(pieces[np.logical_or.reduce(near) & bright]):
        x, y, wide, high, area = (int(value) for value in stats[number])
        around = np.s_[max(0, y - 4) : y + high + 4, max(0, x - 4) : x + wide + 4]
        piece = (pieces[around] == number).astype(np.uint8)
        inner = cv2.dilate(piece, SQUARE)
        rim = (cv2.dilate(inner, SQUARE) > inner) & ~beyond[around]
        if not rim.any() or dark[around][rim].mean() < OUTLINED:
            continue
        touched = [bool(side[around][piece > 0].any()) for side in near]
        if max(wide, high) <= CORNER * max(grey.shape):
            wanted = sum(touched) > 1 and area <= ROUND * wide * high
        else:
            wanted = area >= BARE * grey.size and not touched[chest_wall] and _is_plain(piece)
        if wanted:
            found[around] |= (inner > 0) & ~dark[around]
    return found


def _chest_wall(grey: NDArray[np.float32]) -> int:
    """Return the number, in `_sides`, of the side that the breast lies at."""
    third = max(1, grey.shape[1] // 3)
    return 2 if grey[:, :third].sum() >= grey[:, -third:].sum() else 3


def _is_plain(piece: NDArray[np.uint8]) -> bool:
    """Return whether a piece, (h, w) of 0 and 1, is convex with a few straight edges."""
    hull = cv2.convexHull(np.argwhere(piece).astype(np.int32))
    corners = len(cv2.approxPolyDP(hull, 0.012 * max(piece.shape), closed=True))
    return corners <= CORNERS and bool(piece.sum() >= CONVEX * cv2.contourArea(hull))


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


def _level_part(grey: NDArray[np.float32], cut: int, unit: int) -> int:
    """Return the width of a bright strip without its wedge, where cropping that would cut tissue.

    `cut` is how much of the (H, W) grey values the strip takes at the left side, wedge and all.
    """
    edge = _film_edge(grey, unit) if cut else None
    if edge is None or np.ptp(ends := np.clip(edge, 0, None)) <= LEVEL * unit:
        return cut
    return min(cut, int(ends.min()))


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
