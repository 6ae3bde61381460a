"""The borders that a scanner leaves around a film: where they are found and cropped."""

from collections.abc import Iterator
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
HIDDEN = 0.02  # share of a side: narrower bars are black strips of the scanner
# Of the edge of a film that lies turned in the scanner; lengths are shares of the longer side.
STEEPEST, DEEPEST = 0.07, 0.13  # its slope (4 degrees) against, and distance to, the image's side
EVEN = 0.9  # of the white beside it: all of that is at least so bright
FALL = 0.12  # of that white: how much darker the film is two pixels inside
FAINT = 0.02  # of that white: the least step to a muscle nearly as white
EVERY, ALONG = 2, 9  # the row that is looked at; such rows over which a faint step is averaged
SEEN, CLEAR = 0.2, 0.6  # of its length: seen at least; seen at least where nothing white hides it
UNLIKE, SHORTEST = 0.1, 0.08  # of its length: without white at most; of the side's: at least
FITTED, SMOOTHED = 300, 0.02  # rows that lines are tried out on; length its bends are smoothed over
LEVEL = 0.008  # how much wider one end of a strip may be for the whole of it to be cropped
CLEARANCE = 0.7  # pixels, of about DETAIL along the longer side, that are white in part
# Of white pieces at the film's sides:
CORNER, ROUND = 0.07, 0.4  # side of a rounded corner; the share that is white of its square
BARE, OUTLINED = 0.002, 0.8  # area of bare film, of the image; of its rim that is sharp
NECK = 0.008  # half the width of what joins it to white muscle
STRAIGHT = 0.02  # of its size: how far its edges may bend
CORNERS, CONVEX = 6, 0.95  # of its outline at most; its share of its convex hull at least
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
    Of a strip that is much wider at one end, only what lies along the whole side is cropped, since
    more would cut tissue: `find_beyond_film` finds the rest.

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
    # A bright strip that is longer than the film's side hid the bar beside the film.
    hidden = [bar if bar >= HIDDEN * max(grey.shape) else 0 for bar in map(_bar, _sides(film))]
    film = film[hidden[0] : film.shape[0] - hidden[1], hidden[2] : film.shape[1] - hidden[3]]
    # Relative to the film's own background: how dark unexposed film is differs by scanner.
    # The first percentile of the inner part: single dead pixels and dust do not set the level.
    dark = film < 0.5 * float(np.percentile(_inner(film), 1))
    more = [bar + _black_strip(side) for bar, side in zip(hidden, _sides(dark), strict=True)]
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
    strips = np.zeros((4, *small.shape), np.uint8)
    brightest = int(small.max())
    if not brightest:
        return np.zeros(small.shape, np.bool_)
    for number, side in enumerate(_sides(small)):
        edge = _film_edge(side, brightest, max(small.shape))
        if edge is not None:
            deep = int(edge.max()) + 2
            strip = _sides(strips[number])[number][:, :deep]
            # Pixels lie half a pixel beyond their number.
            strip |= np.arange(strip.shape[1]) + 0.5 < edge[:, None] + CLEARANCE
    return _with_bare_film(small, brightest, strips).astype(np.bool_)


def _film_edge(image: NDArray[Any], brightest: float, unit: int) -> NDArray[np.floating] | None:
    """Return how far from the left side of (H, W) grey values the film begins, (H,); None if at it.

    `brightest` is their maximum, on any scale, and `unit` the image's longer side.
    """
    deep = min(image.shape[1] - 3, int(DEEPEST * unit))
    first = image[::EVERY, :2].max(axis=1)
    lit = first >= STRIP_LEVEL * brightest
    if deep < 4 or lit.mean() <= SHORTEST:
        return None
    grey = image[::EVERY, : deep + 3].astype(np.float32, order="C")  # (h, deep + 3)
    white = float(np.median(first[lit]))
    lit = first >= EVEN * white
    darker = grey[:, 1:deep] < EVEN * white
    ends = np.where(darker.any(axis=1), 1 + darker.argmax(axis=1), deep)  # (h,)
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
    clear, against = there & (ends <= edge + 2), (edge > 4) & (~lit | (ends < edge - 4))
    least = max(SEEN * there.sum(), CLEAR * clear.sum(), SHORTEST * rows.size)
    steep = abs(line[0]) > STEEPEST * EVERY
    if steep or near.sum() < least or against.sum() > UNLIKE * there.sum():
        return None
    # Few films are cut quite straight.
    order = np.argsort(sharp[near], kind="stable")
    uneven = np.interp(rows, sharp[near][order], (found - edge[sharp])[near][order])
    edge += cv2.blur(uneven[:, None], (1, 2 * int(SMOOTHED * rows.size) + 1))[:, 0]
    edge = np.where(there, edge, -CLEARANCE)
    return np.interp(np.arange(len(image)) / EVERY, rows, edge)


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
    slopes = EVERY * np.linspace(-STEEPEST, STEEPEST, 43)
    some = np.s_[:: max(1, x.size // FITTED)]
    offsets = np.rint((y[some] - slopes[:, None] * x[some]) / 1.5).astype(np.intp)  # (43, n)
    lowest, count = int(offsets.min()), int(np.ptp(offsets)) + 1
    places = offsets - lowest + count * np.arange(slopes.size)[:, None]
    best = int(np.bincount(places.ravel()).argmax())
    line = np.array([slopes[best // count], 1.5 * (best % count + lowest)])
    near = np.zeros(x.shape, np.bool_)
    for distance in (3.0, 2.0, 2.0):
        near = np.abs(y - np.polyval(line, x)) <= distance
        if near.sum() < 8:
            return line, near
        line = np.polyfit(x[near], y[near], 1)
    return line, near


def _with_bare_film(
    grey: NDArray[np.uint16], brightest: int, strips: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return all that is white beside the film or in a corner, or is bare film, as 1.

    `strips`, (4, H, W), is what is white beyond each side of the film in (H, W) grey values.
    """
    beyond: NDArray[np.uint8] = np.bitwise_or.reduce(strips)
    bright = (grey >= EVEN * brightest).view(np.uint8) & (1 - beyond)
    found, corner, bare = beyond.copy(), CORNER * max(grey.shape), BARE * grey.size
    outlines = _outlines_at_sides(bright, beyond)
    corners = [each for each in outlines if max(cv2.boundingRect(each)[2:]) <= corner]
    for around, piece, touched in _sharp_pieces(corners, grey, brightest, strips):
        _, _, wide, high = cv2.boundingRect(piece)
        if piece.sum() <= ROUND * wide * high and sum(touched) > 1:
            found[around] |= _grown(piece, SQUARE) & _white(grey[around], brightest)
    if all(cv2.contourArea(each) < bare for each in outlines):
        return found
    # Bare film may touch the muscle with a corner.
    neck = np.ones((2 * round(NECK * max(grey.shape)) + 1,) * 2, np.uint8)
    whole = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, SQUARE)  # without specks of grain
    apart = cv2.morphologyEx(whole, cv2.MORPH_OPEN, neck).astype(np.uint8)
    outlines = [each for each in _outlines_at_sides(apart, beyond) if cv2.contourArea(each) >= bare]
    chest_wall = _chest_wall(grey, bright | beyond)
    for around, piece, touched in _sharp_pieces(outlines, grey, brightest, strips):
        if not touched[chest_wall] and _is_plain(piece):
            found[around] |= _grown(piece, neck) & _white(grey[around], brightest)
    return found


def _grown(mask: NDArray[np.uint8], by: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask, by), np.uint8)


def _white(grey: NDArray[np.uint16], brightest: int) -> NDArray[np.uint8]:
    return (grey >= (1 - FALL) * brightest).view(np.uint8)


def _outlines_at_sides(mask: NDArray[np.uint8], beyond: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Return the outlines, (n, 1, 2), of what touches the film's sides in a mask of 0 and 1."""
    near = _grown(beyond, SQUARE)
    for side in _sides(near):
        side[:, :3] = 1
    outlines = list(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])
    if not outlines:
        return []
    x, y = np.concatenate(outlines)[:, 0].T
    first = np.cumsum([0] + [len(each) for each in outlines[:-1]])
    wanted = np.logical_or.reduceat(near[y, x] > 0, first)
    return [outlines[number] for number in np.flatnonzero(wanted)]


def _sharp_pieces(
    outlines: list[NDArray[Any]],
    grey: NDArray[np.uint16],
    brightest: int,
    strips: NDArray[np.uint8],
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.uint8], list[bool]]]:
    """Yield what outlines with a sharp edge enclose.

    Each comes as the part of the image around it, its mask there and which of the film's sides it
    touches, in the order of `_sides`.
    """
    for outline in outlines:
        x, y, wide, high = cv2.boundingRect(outline)
        x0, y0 = max(0, x - 4), max(0, y - 4)
        around = np.s_[y0 : y + high + 4, x0 : x + wide + 4]
        piece = np.zeros(grey[around].shape, np.uint8)
        cv2.drawContours(piece, [outline], 0, 1, cv2.FILLED, offset=(-x0, -y0))
        inner = _grown(piece, SQUARE)
        rim = (_grown(inner, SQUARE) > inner) & ~strips[:, *around].any(axis=0)
        if not rim.any() or _white(grey[around], brightest)[rim].mean() > 1 - OUTLINED:
            continue
        ends = y, grey.shape[0] - y - high, x, grey.shape[1] - x - wide
        touched = [
            end < 3 or bool((strip[around] & inner).any())
            for end, strip in zip(ends, strips, strict=True)
        ]
        yield around, piece, touched


def _chest_wall(grey: NDArray[np.uint16], white: NDArray[np.uint8]) -> int:
    """Return the number, in `_sides`, of the side that the breast lies at; white is none of it."""
    dark, third = grey * (1 - white), max(1, grey.shape[1] // 3)
    return 2 if cv2.mean(dark[:, :third])[0] >= cv2.mean(dark[:, -third:])[0] else 3


def _is_plain(piece: NDArray[np.uint8]) -> bool:
    """Return whether a piece, (h, w) of 0 and 1, is convex with a few straight edges."""
    outlines, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(outlines[0])
    corners = len(cv2.approxPolyDP(hull, STRAIGHT * max(piece.shape), closed=True))
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
    edge = _film_edge(grey, float(grey.max()), unit)
    if edge is None or np.ptp(ends := np.clip(edge, 0, None)) <= LEVEL * unit:
        return cut
    return int(ends.min())


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
