"""The breast in an image, without letters, labels and tape."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.borders import find_beyond_film
from images.files import WHITE_16
from images.steps import reduce_by_area, whole_factor

DETAIL = 512  # longer side in pixels at which the breast is sought
# Lengths are shares of the longer side.
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
# Of tape:
WIDEST, SHORTEST_EDGE = 0.13, 0.035  # across; the part of an edge that lies beside the other
LONGEST_LETTER = 0.12  # both edges together: what is shorter is left to `_labels`
LONG_EDGE = 0.08  # that faces the image's upper edge
BEND = 1.5  # pixels by which an edge leaves a straight line at most
PARALLEL, LEVEL = 0.996, 0.985  # cosines of the angles between edges; with the image's upper edge
SOLID = 0.95  # of what lies between: how much stands out of the background
FURTHER = 0.7  # of its width: how far its edges are followed beyond where they are seen
SMALLEST_BREAST = 0.02  # of the image
MARGIN = 1  # pixel beyond the skin line, of about DETAIL along the longer side


def breast_mask(image: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the breast, with pectoral muscle and nipple, without letters, labels and tape.

    Otsu's threshold (N. Otsu 1979, IEEE Trans. SMC 9(1):62-66) gives a first background, a surface
    is fitted to it, and what stands out of that is opened with a disc; the largest piece is
    the breast, so that the dim skin line belongs to it and tape that touches it does not. Bright
    spots that stand for the most part in the background are labels, even where they touch the
    breast; small pieces that sit on the breast are the nipple, or armpit and belly where they run
    out thinly along the film's upper and lower edge. Tape is known by its straight edges; where it
    crosses the skin line, that is drawn straight. White beside a film that lies turned in the
    scanner, and bare film (see `images.borders.find_beyond_film`), are no breast.

    Args:
        image: (H, W) uint16 in [0, 65535], without the borders that `find_border_box` crops.

    Returns:
        (H, W) bool: True in the breast and a little beyond the skin line; nowhere where no breast
        is found; all over the film where there is no background.
    """
    small = reduce_by_area(image, whole_factor(image.shape, DETAIL))
    size = (image.shape[1], image.shape[0])
    beyond = find_beyond_film(image)
    if beyond.any():
        small = _continued(small, beyond)
    # Film grain would break the skin line, the faintest part of the breast, into specks.
    grey = cv2.GaussianBlur(small.astype(np.float32) / WHITE_16, (5, 5), 0)
    found = _breast(grey.astype(np.float32, copy=False))
    if found.all() or not found.any():
        mask = np.full(image.shape, bool(found.all()))
    else:
        shade = cv2.resize(found.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
        mask = shade > 127
    if beyond.any():
        shade = cv2.resize(beyond.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        mask &= shade == 0
    return mask


def _continued(image: NDArray[Any], hidden: NDArray[np.bool_]) -> NDArray[Any]:
    """Fill what is hidden of an (H, W) image, of any dtype, with the nearest that is not."""
    size = (image.shape[1], image.shape[0])
    share = cv2.resize(hidden.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    outside = cv2.dilate((share > 0.02).astype(np.uint8), np.ones((3, 3), np.uint8))
    _, labels = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    film = outside == 0
    values = np.zeros(int(labels.max()) + 1, image.dtype)
    values[labels[film]] = image[film]
    return np.asarray(values[labels])


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
    faintest = max(4 * spread, FAINTEST * typical)
    bright = (rest > faintest).astype(np.uint8)
    bands = _bands(bright)
    labels = _labels(rest, bright, bands)
    bright = _bridged(bright, bands)
    # Before the opening, which would take a label that touches the breast for a part of it.
    bright[labels] = 0
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


def _bands(bright: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Find bands with two straight edges, such as tape, in a mask of 0 and 1."""
    found = np.zeros(bright.shape, np.uint8)
    for pair in _facing_edges(_straight_edges(bright), max(bright.shape)):
        area = _hull(pair.reshape(4, 2), bright.shape)
        if bright[area > 0].mean() < SOLID:
            continue
        along = pair[:, 1] - pair[:, 0]
        length = np.hypot(along[:, :1], along[:, 1:])  # (2, 1)
        # Over the breast, the edges of tape are not seen.
        more = along / length * (FURTHER * area.sum() / length.max())
        longer = pair + np.stack([-more, more], axis=1)
        found |= _hull(longer.reshape(4, 2), bright.shape)
    return cv2.dilate(found, _disc(2)).astype(np.uint8)


def _facing_edges(edges: NDArray[np.floating], unit: int) -> list[NDArray[np.floating]]:
    """Return pairs, (2, 2, 2), of (n, 2, 2) edges between which a band lies.

    The second may be the image's upper edge: the breast does not end in a straight edge below it.
    """
    pairs = []
    along = edges[:, 1] - edges[:, 0]
    length = np.hypot(along[:, 0], along[:, 1])
    along /= length[:, None]
    inward = np.stack([along[:, 1], -along[:, 0]], axis=1)
    middle = edges.mean(axis=1)
    for number, edge in enumerate(edges):
        # Of the others: how far inward of this edge, and how much beside it they lie.
        across = (middle - middle[number]) @ inward[number]
        places = np.sort((edges - edge[0]) @ along[number], axis=1)  # (n, 2)
        beside = np.minimum(places[:, 1], length[number]) - np.maximum(places[:, 0], 0)
        whole = np.maximum(places[:, 1], length[number]) - np.minimum(places[:, 0], 0)
        wanted = (along @ along[number] <= -PARALLEL) & (beside >= SHORTEST_EDGE * unit)
        wanted &= (across >= 2) & (across <= np.minimum(WIDEST * unit, whole))
        wanted &= whole >= LONGEST_LETTER * unit
        pairs += [np.stack([edge, other]) for other in edges[wanted]]
        level = -inward[number][1] >= LEVEL and length[number] >= LONG_EDGE * unit
        if level and edge[:, 1].max() <= WIDEST * unit:
            pairs.append(np.stack([edge, edge[::-1] * (1, 0)]))
    return pairs


def _bridged(bright: NDArray[np.uint8], bands: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a mask of 0 and 1 without bands; the skin line is drawn straight across them."""
    if not bands.any():
        return bright
    seen = bright & (1 - bands)
    body = _largest(seen)
    count, pieces = cv2.connectedComponents(bands)
    for number in range(1, count):
        band = np.equal(pieces, number).astype(np.uint8)
        rim = body & (cv2.dilate(band, _disc(2)) > band)
        if rim.any():
            seen |= band & _hull(np.argwhere(rim)[:, ::-1], bright.shape)
    return seen


def _hull(points: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Fill the convex hull of (n, 2) points x and y with 1 in an array of a shape."""
    area = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(points.round().astype(np.int32)), 1)
    return area


def _straight_edges(bright: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Return the ends, (n, 2, 2) of x and y, of straight pieces of a mask's outline.

    The mask lies on the same side of all of them; the image's own edges are left out.
    """
    outlines, _ = cv2.findContours(bright, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    found = []
    high, wide = bright.shape
    for outline in outlines:
        points = cv2.approxPolyDP(outline, BEND, closed=True)[:, 0].astype(np.float64)  # (k, 2)
        ends = np.stack([points, np.roll(points, -1, axis=0)], axis=1)
        long = np.hypot(*(ends[:, 1] - ends[:, 0]).T) >= SHORTEST_EDGE * max(bright.shape)
        at_edge = np.any(np.all((ends <= 1) | (ends >= (wide - 2, high - 2)), axis=1), axis=1)
        found.append(ends[long & ~at_edge])
    return np.concatenate(found) if found else np.zeros((0, 2, 2))


def _small_parts(rest: NDArray[np.uint8], away: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the small pieces of a mask of 0 and 1 that touch the breast.

    `rest` is what is bright and not yet breast, `away` the distance from the breast in pixels.
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
    # Thresholded distances open with a nearly exact disc in linear time, whatever its radius.
    core = (cv2.distanceTransform(wide, cv2.DIST_L2, 5) > radius).astype(np.uint8)
    grown = (_distance(core) <= radius).astype(np.uint8)
    return grown[1:-1, 1 + sides[0] : grown.shape[1] - 1 - sides[1]] & mask


def _distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the distance of every pixel from a mask of 0 and 1, in pixels."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5).astype(np.float32)


def _background(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, NDArray[np.bool_]]:
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
        # 1.4826: from median absolute deviation to standard deviation of a normal distribution.
        spread = min(spread, 1.4826 * float(np.median(below)) + LEAST_SPREAD)
        kept = np.abs(rest) <= 2.5 * spread
        chosen = fitted[kept]
        # Normal equations: 6 unknowns of similar size, so their condition does no harm.
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
    """Separate background from dim tissue and from what a scanner left black at the edges.

    `dark`, not empty, is what is dark enough for background. Returns what is background rather
    than tissue, and what is neither, (H, W) each.
    """
    while True:
        black = dark & (grey < 0.5 * float(np.median(grey[dark])))
        framed = np.pad(black.astype(np.uint8), 1)  # strips at the edges are thin, too
        if cv2.distanceTransform(framed, cv2.DIST_L2, 5).max() <= THIN * max(grey.shape):
            return dark & ~black, black
        dark = black


def _labels(
    grey: NDArray[np.float32], bright: NDArray[np.uint8], bands: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Find bright spots that stand for the most part in the background.

    Of tape that lies over tissue as bright, only what lies in bands is found.
    """
    size = 2 * round(max(grey.shape) * SPOT) + 1
    hat = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((size, size), np.uint8))
    level = SPOT_LEVEL * float(np.percentile(grey, 99.5))
    count, spots = cv2.connectedComponents((hat > level).astype(np.uint8), ltype=cv2.CV_16U)
    near = cv2.dilate(spots, _disc(2))
    ring = np.where(near > 0, 0, cv2.dilate(spots, _disc(4)))  # number of the spot it is around
    around = np.bincount(ring.ravel(), minlength=count)
    dark = np.bincount(ring.ravel(), weights=1.0 - bright.ravel(), minlength=count)
    wanted = dark >= SPOT_SHARE * np.maximum(around, 1)
    wanted[0] = False
    taped = np.zeros_like(wanted)
    taped[near[bands > 0]] = True
    found: NDArray[np.bool_] = wanted[near] & (~taped[near] | (cv2.dilate(bands, _disc(3)) > 0))
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
