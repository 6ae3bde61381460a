"""Look-alikes of films whose white border, bare film or tape touches the breast, with their truth.

The film lies a little turned in the scanner, and what the scanner saw beside it is white. Where
tissue reaches the film's edge, nothing dark lies between the two. Breast and film are those of
`film_cases`, with the chest wall on the left until the end; lengths are shares of the film's
height.
"""

from itertools import pairwise

import cv2
import numpy as np

from tests.images.drawn.film_cases import (
    Case,
    Drawn,
    draw_background,
    draw_breast,
    on_mias_canvas,
    scan,
    smooth_field,
)

KINDS = (
    "one side", "two sides", "three sides", "rounded corners", "dark wedge", "bright wedge",
    "tape",
)  # fmt: skip
SIDES = ("top", "right", "bottom", "left")
TURN = 1.0, 3.0  # degrees


def plan_attached(kind, seed, heights=(1000, 1200)):
    """Return a film of a kind, in either view and on either side."""
    random = np.random.default_rng([KINDS.index(kind), seed])
    traits = {kind}
    if random.random() < 0.4:
        traits.add("bright pectoral")
    if kind == "tape" and seed % 2:
        traits.add("mini-MIAS")
    view = "CC" if random.random() < 0.2 and "wedge" not in kind else "MLO"
    height = int(random.integers(heights[0], heights[1] + 1))
    return Case(100 * KINDS.index(kind) + seed, view, ("LEFT", "RIGHT")[seed % 2], height, traits)


def draw_attached(case):
    """Draw a film of `plan_attached`; return it as `Drawn`."""
    random = np.random.default_rng([case.seed, 7])
    high = case.height
    shape = high, round(high * random.uniform(0.52, 0.82))
    breast, grey = draw_breast(random, case, shape)
    level = draw_background(random, case.traits, shape)
    grey = level + (1 - level) * grey
    marks = np.zeros(shape, np.uint8)
    if "dark wedge" in case.traits:
        bare = _wedge(random, breast, at_chest_wall=random.random() < 0.5)
        grey, breast = np.where(bare, level, grey), breast & ~bare
    if "bright wedge" in case.traits:
        bare = _wedge(random, breast, at_chest_wall=False)
        grey, marks[bare] = np.where(bare, _white(random, shape), grey), 1
    if "tape" in case.traits:
        grey, marks = _tape(random, grey, breast)
    border = np.zeros(shape, bool)
    if "tape" not in case.traits:
        border = _border(random, case.traits, shape)
    share = cv2.GaussianBlur(border.astype(np.float32), (0, 0), random.uniform(0.4, 0.9))
    grey = grey * (1 - share) + _white(random, shape) * share
    return _finish(random, case, grey, breast, marks, border)


def _finish(random, case, grey, breast, marks, border):
    parts = [grey.astype(np.float32), breast.astype(np.uint8), marks, border.astype(np.uint8)]
    if "mini-MIAS" in case.traits:
        parts = on_mias_canvas(random, parts)
    if case.side == "RIGHT":
        parts = [np.ascontiguousarray(part[:, ::-1]) for part in parts]
    grey, breast, marks, border = parts
    pixels = scan(random, case.traits, grey, border > 0)
    beside = np.where((breast == 0) & (border == 0), marks, 0).astype(np.uint8)
    shown = ((breast > 0) & (marks == 0) & (border == 0)).astype(np.uint8)
    # The belly is no breast where the border parts it from the breast.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(shown)
    return Drawn(pixels, pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), beside, border > 0)


def _white(random, shape):
    """Return grey values of 60,000 to 65,535 of 65,535, a little uneven."""
    level = random.uniform(0.925, 1) + 0.004 * smooth_field(random, shape, 3)
    noise = 0.004 * random.standard_normal(shape, np.float32)
    return np.clip(level + noise, 60000 / 65535, 1).astype(np.float32)


def _border(random, traits, shape):
    """Return where the scanner saw no film, bool; the film is a turned rounded rectangle."""
    count = {"one side": 1, "two sides": 2, "three sides": 3}
    number = next((count[kind] for kind in count if kind in traits), int(random.integers(2, 4)))
    # At least one side is one that tissue reaches.
    sides = {str(random.choice(["left", "top"]))}
    while len(sides) < number:
        sides.add(str(random.choice(SIDES)))
    corners = "rounded corners" in traits or random.random() < 0.3
    radius = random.uniform(0.012, 0.05) if corners else 0.0
    turn = random.choice([-1, 1]) * random.uniform(*TURN)
    high, wide = shape
    y, x = np.mgrid[:high, :wide].astype(np.float32) / high
    y, x = y - 0.5, x - 0.5 * wide / high
    depths = []
    for index, side in enumerate(SIDES):
        angle = np.deg2rad(90 * index + turn + random.uniform(-0.3, 0.3))
        half = (0.5, 0.5 * wide / high)[index % 2]
        # The film's edge may leave the picture on its way along a side, and is not quite straight.
        away = half - random.uniform(0.002, 0.03) if side in sides else half + 0.2
        rough = random.uniform(0, 0.0006) * smooth_field(random, (max(shape), 2), 12)[:, 0]
        along = np.arange(shape[1 - index % 2])
        uneven = rough[along][None, :] if index % 2 == 0 else rough[along][:, None]
        depths.append(away - (np.sin(angle) * x - np.cos(angle) * y) + uneven)
    outside = np.minimum.reduce(depths) < 0
    for first, second in pairwise([*depths, depths[0]]):
        near = (first < radius) & (second < radius)
        outside |= near & (np.hypot(radius - first, radius - second) > radius)
    return outside


def _wedge(random, breast, at_chest_wall):
    """Return a triangle of bare film at the top that takes a corner of the breast, bool."""
    high, wide = breast.shape
    upper = np.flatnonzero(breast[round(0.03 * high)])
    end = int(upper[-1]) if upper.size else wide // 4
    if at_chest_wall:
        points = (0, 0), (random.uniform(0.4, 0.8) * end, 0), (0, random.uniform(0.08, 0.25) * high)
    else:
        start = end - random.uniform(0.15, 0.5) * end
        far = min(wide, end + random.uniform(0.1, 0.3) * high)
        points = (start, 0), (wide, 0), (far, random.uniform(0.08, 0.25) * high)
        points = (*points, (wide, points[2][1])) if random.random() < 0.4 else points
    area = np.zeros(breast.shape, np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(np.array(points, np.float32).astype(np.int32)), 1)
    return area > 0


def _tape(random, grey, breast):
    """Stick tape over the breast's upper edge; return grey values and the tape, uint8."""
    high = grey.shape[0]
    clear = random.random() < 0.4
    for attempt in range(400):
        across = random.uniform(0.03, 0.11) * high
        rows = np.flatnonzero(breast.any(axis=1))
        y = rows[0] + random.uniform(0, 0.3) * (rows[-1] - rows[0])
        x = np.flatnonzero(breast[round(y)])[-1]
        long = random.uniform(0.2, 0.6) * high
        turn = random.uniform(-8, 8) if random.random() < 0.6 else random.uniform(-40, 40)
        centre = float(x + random.uniform(0.1, 0.5) * long), float(y)
        corners = cv2.boxPoints((centre, (long, across), turn)).astype(np.int32)
        area = cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), corners, 1)
        over = (area.astype(bool) & breast).sum() / max(1, area.sum())
        if 0.04 < over < 0.35 or attempt == 399:
            break
    share = cv2.GaussianBlur(area.astype(np.float32), (0, 0), 0.7)
    if clear:
        return grey + random.uniform(0.12, 0.3) * share * (1 - grey), area
    white = random.uniform(0.7, 1) * (1 + 0.02 * smooth_field(random, grey.shape, 15))
    return grey * (1 - share) + white * share, area
