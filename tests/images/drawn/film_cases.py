"""Look-alikes of scanned film mammograms that are hard to crop and to clean, with their truth.

They are drawn on purpose without `sources.synthetic.films`, on which the functions were tuned:
another anatomy, another film, other marks. Each trait is one thing that real films show. Lengths
are shares of the film's height, grey values of the film's scale; the breast is built with the chest
wall on the left and mirrored at the end.
"""

from dataclasses import dataclass

import cv2
import numpy as np

BREASTS = (
    "dense", "fatty", "faint skin", "large", "small", "nipple", "abdomen", "bright pectoral",
    "pectoral gap",
)  # fmt: skip
MARKS = ("letters", "large letters", "touching letters", "paper label", "tape", "touching tape")
FILMS = ("black background", "grey background", "vignette", "grain", "low contrast", "mini-MIAS")
BORDERS = ("white border", "black border", "tilted border", "double border", "chest stripe")
TRAITS = (*BREASTS, *MARKS, *FILMS, *BORDERS)


@dataclass(frozen=True)
class Case:
    """What to draw.

    Attributes:
        seed: Of everything that is drawn.
        view: "CC" or "MLO".
        side: "LEFT" or "RIGHT": the image side of the chest wall.
        height: Of the film in pixels, before borders.
        traits: Of TRAITS.
    """

    seed: int
    view: str
    side: str
    height: int
    traits: set[str]


@dataclass(frozen=True)
class Drawn:
    """A film and the truth about it; all arrays are (H, W).

    Attributes:
        pixels: uint16, 0 to 65535.
        breast: bool, where nothing covers it.
        marks: uint8, the number of the mark that is there beside the breast, 0 for none.
        border: bool, what is no film.
    """

    pixels: np.ndarray
    breast: np.ndarray
    marks: np.ndarray
    border: np.ndarray


def plan_cases(trait):
    """Return two films that show a trait, in either view and on either side."""
    index = TRAITS.index(trait)
    only_oblique = trait in ("bright pectoral", "pectoral gap", "abdomen")
    views = ("MLO", "MLO" if only_oblique else "CC")
    return [
        Case(2 * index + turn, views[turn], ("LEFT", "RIGHT")[turn], 600 + 100 * turn, {trait})
        for turn in range(2)
    ]


def draw(case):
    """Draw a case; return it as `Drawn`."""
    random = np.random.default_rng(case.seed)
    high = case.height
    wide = round(high * random.uniform(0.52, 0.82))
    breast, grey = draw_breast(random, case, (high, wide))
    level = draw_background(random, case.traits, (high, wide))
    grey = level + (1 - level) * grey
    marks = np.zeros(grey.shape, np.uint8)
    _put_marks(random, case, grey, breast, marks)
    border = _put_border(random, case.traits, grey)
    parts = [grey, breast.astype(np.uint8), marks, border.astype(np.uint8)]
    if "mini-MIAS" in case.traits:
        parts = on_mias_canvas(random, parts)
    grey, breast, marks, border = parts
    pixels = scan(random, case.traits, grey, border > 0)
    if case.side == "RIGHT":
        pixels, breast, marks, border = (
            np.ascontiguousarray(part[:, ::-1]) for part in (pixels, breast, marks, border)
        )
    plain = (border == 0) & (marks == 0)
    beside = np.where((breast == 0) & (border == 0), marks, 0).astype(np.uint8)
    return Drawn(pixels, (breast > 0) & plain, beside, border > 0)


# The breast


def smooth_field(random, shape, coarse, octaves=3):
    """Return smooth noise, mean 0 and deviation 1, whose first octave has `coarse` cells."""
    field = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cells = [max(2, round(coarse * 2**octave * side / max(shape))) for side in shape]
        noise = random.standard_normal((cells[0] + 3, cells[1] + 3)).astype(np.float32)
        field += cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return (field - field.mean()) / field.std()


def outline(random, case, y):
    """Return how far the breast reaches from the chest wall at the heights `y`, in heights."""
    traits = case.traits
    wobble = sum(
        random.uniform(-0.03, 0.03) * np.sin(k * np.pi * y + random.uniform(0, 6)) / k
        for k in (1, 2, 3)
    )
    size = 1.75 if "large" in traits else 0.5 if "small" in traits else 1.0
    if case.view == "CC":
        half = size * random.uniform(0.27, 0.42)
        reach = size * random.uniform(0.34, 0.5)
        middle = 0.5 + random.uniform(-0.06, 0.06)
        power = random.uniform(1.9, 2.7)
        round_ = 1 - np.abs((y - middle) / half) ** power
        far = reach * np.sign(round_) * np.abs(round_) ** (1 / power) + wobble * (round_ > 0.1)
    else:
        middle = random.uniform(0.55, 0.64)
        reach = size * random.uniform(0.36, 0.5)
        top = reach * random.uniform(0.35, 0.85) * (0.6 if "small" in traits else 1)
        lower = min(random.uniform(0.25, 0.33) * size, 1.2 if "large" in traits else 0.38)
        upper = top + (reach - top) * np.sin(np.pi / 2 * np.clip(y / middle, 0, 1)) ** 1.5
        round_ = 1 - np.abs((y - middle) / lower) ** 2.2
        below = reach * np.sign(round_) * np.abs(round_) ** 0.5
        far = np.where(y < middle, upper, below) + wobble * (y < middle + 0.7 * lower)
        if "abdomen" in traits or random.random() < 0.3:
            start = middle + lower * random.uniform(0.86, 0.95)
            belly = random.uniform(0.5, 1.1) * np.clip(y - start, 0, None)
            far = np.maximum(far, np.where(y > middle, belly + 0.03, -1))
    return far, middle


def draw_breast(random, case, shape):
    """Return the breast, bool, and what it adds to the background, 0 to 1."""
    traits, (high, wide) = case.traits, shape
    far, middle = outline(random, case, np.arange(high) / high)
    breast = (np.arange(wide)[None, :] < (far * high)[:, None]).astype(np.uint8)
    if far.max() * high < wide - 12:
        at = round(float(middle) * high)
        size = random.uniform(0.022, 0.034) if "nipple" in traits else random.uniform(0.006, 0.016)
        centre = round(far[at] * high + (0.4 if "nipple" in traits else 0) * size * high), at
        axes = round(size * high * 1.05), round(size * high * 0.75)
        cv2.ellipse(breast, centre, axes, float(random.uniform(-20, 20)), 0, 360, 1, -1)
    edge = round(0.12 * high)
    wider = cv2.copyMakeBorder(breast, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(wider, cv2.DIST_L2, 5)[edge:-edge, edge:-edge] / high
    fat = random.uniform(0.3, 0.45) if "dense" in traits else random.uniform(0.13, 0.3)
    if {"fatty", "faint skin"} & traits:
        fat *= 0.4
    ramp = np.clip(depth / random.uniform(0.03, 0.08), 0, 1) ** random.uniform(0.5, 0.9)
    least = 0.2 if "faint skin" in traits else random.uniform(0.3, 0.5)
    grey = fat * (least + (1 - least) * ramp) * (1 + 0.08 * smooth_field(random, shape, 9))
    grey += _gland(random, case, shape, far, middle, depth)
    if random.random() < 0.5 and "faint skin" not in traits:
        grey += random.uniform(0.02, 0.06) * (depth < 0.006)
    if case.view == "MLO":
        grey = _pectoral(random, traits, grey, float(far[0]))
    return breast > 0, np.where(breast > 0, np.clip(grey, 0.012, 1), 0).astype(np.float32)


def _gland(random, case, shape, far, middle, depth):
    high, wide = shape
    y, x = np.mgrid[:high, :wide].astype(np.float32) / high
    reach = min(float(far.max()), wide / high)
    amount = 0.25 if {"fatty", "faint skin"} & case.traits else random.uniform(0.4, 0.7)
    cone = np.exp(-(((x - 0.5 * reach) / (0.5 * reach)) ** 2) - ((y - middle) / 0.17) ** 2)
    if "dense" in case.traits:
        amount, cone = 0.95, np.clip(cone + 0.7, 0, 1)
    rough = 0.7 + 0.3 * smooth_field(random, shape, 12, 5)
    inner = np.clip(depth / 0.07, 0, 1)
    return amount * np.clip(cone * rough, 0, 1.1) * inner * random.uniform(0.5, 0.75)


def _pectoral(random, traits, grey, top):
    high, wide = grey.shape
    across, down = random.uniform(0.55, 0.9) * top, random.uniform(0.35, 0.75)
    y, x = np.mgrid[:high, :wide].astype(np.float32) / high
    inside = 1 - x / across - y / down  # above 0 in the muscle
    muscle = np.clip(inside * 14, 0, 1)
    bright = random.uniform(0.25, 0.5)
    if "bright pectoral" in traits:
        bright = random.uniform(0.75, 1.0)
    if "pectoral gap" in traits:
        gap = np.exp(-(((inside + 0.13) / 0.09) ** 2))
        grey = grey * (1 - gap) + random.uniform(0.025, 0.05) * gap
    return np.maximum(grey, muscle * bright * (1 + 0.05 * smooth_field(random, grey.shape, 20)))


# The film


def draw_background(random, traits, shape):
    high, wide = shape
    y, x = np.mgrid[:high, :wide].astype(np.float32) / high
    if "black background" in traits:
        return np.zeros(shape, np.float32)
    level = (
        random.uniform(0.12, 0.25) if "grey background" in traits else random.uniform(0.03, 0.07)
    )
    field = np.full(shape, level, np.float32)
    if "vignette" in traits:
        away = ((x - 0.5 * wide / high) ** 2 + (y - random.uniform(0.4, 0.6)) ** 2) / 0.4
        field *= 1 + random.choice([-0.45, 0.6]) * away
    return np.clip(field, 0.001, 1)


def scan(random, traits, grey, border):
    """Return the film as a scanner gives it, uint16."""
    if "low contrast" in traits:
        grey = np.where(border, grey, random.uniform(0.02, 0.15) + random.uniform(0.25, 0.4) * grey)
    grey = np.clip(grey, 0, 1)
    strength = random.uniform(0.01, 0.02) if {"grain", "mini-MIAS"} & traits else 0.006
    noise = random.standard_normal(grey.shape, np.float32)
    noise = 0.6 * noise + 0.8 * cv2.GaussianBlur(noise, (0, 0), 0.7) / 0.4
    digital = (grey == 0) | border
    noisy = np.where(digital, grey, np.clip(grey + strength * noise * (0.35 + grey), 0, 1))
    if "mini-MIAS" in traits:
        return (np.rint(noisy * 255) * 257).astype(np.uint16)
    return np.rint(noisy * 65535).astype(np.uint16)


# The marks


def _text(random, text, tall, bright, plate=None):
    """Return text as grey values, NaN where the film shows through."""
    fonts = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX
    font = fonts[int(random.integers(3))]
    thick = max(1, round(tall / random.uniform(4, 9)))
    scale = tall / 22
    (wide, high), below = cv2.getTextSize(text, font, scale, thick)
    ink = np.zeros((high + below + 2 * thick, wide + 2 * thick), np.uint8)
    cv2.putText(ink, text, (thick, high + thick), font, scale, 255, thick, cv2.LINE_AA)
    share = ink.astype(np.float32) / 255
    if plate is not None:
        return plate + (bright - plate) * share
    return np.where(share > 0.3, bright * share, np.nan)


def _letters(random, high, large=False, plates=0.25):
    tall = random.uniform(0.06, 0.11) if large else random.uniform(0.018, 0.05)
    texts = ("L", "R") if large else ("L", "R", "CC", "MLO", "L CC", "RMLO", "R-MLO", "L1 CC")
    plate = random.uniform(0.15, 0.4) if random.random() < plates else None
    bright = random.uniform(0.55, 1.0)
    return _text(random, str(random.choice(texts)), tall * high, bright, plate)


def _label(random, high):
    wide, tall = random.uniform(0.06, 0.15) * high, random.uniform(0.03, 0.08) * high
    ground, ink = random.uniform(0.75, 1), 0.2
    print_ = np.zeros((round(tall), round(wide)), np.uint8)
    lines = int(random.integers(1, 4))
    step = tall / lines
    for index in range(lines):
        words = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVX0123456789 -/"), 9))
        place = round(0.06 * wide), round((index + 0.8) * step)
        cv2.putText(print_, words, place, 0, 0.6 * step / 22, 255, max(1, round(step / 12)))
    return ground + (ink - ground) * print_.astype(np.float32) / 255


def _turned(random, patch):
    """Return a patch mirrored, turned by quarters or by any angle, now and then."""
    if random.random() < 0.2:
        patch = patch[:, ::-1]
    patch = np.rot90(patch, random.choice(4, p=[0.6, 0.17, 0.06, 0.17]))
    if random.random() < 0.35:
        high, wide = patch.shape
        side = int(np.hypot(high, wide)) + 2
        turn = cv2.getRotationMatrix2D((wide / 2, high / 2), random.uniform(-30, 30), 1)
        turn[:, 2] += (side - wide) / 2, (side - high) / 2
        level = cv2.warpAffine(np.nan_to_num(patch), turn, (side, side))
        there = cv2.warpAffine((~np.isnan(patch)).astype(np.float32), turn, (side, side))
        patch = np.where(there > 0.5, level / np.maximum(there, 0.5), np.nan)
    return np.ascontiguousarray(patch, dtype=np.float32)


def _put_marks(random, case, grey, breast, marks):
    """Draw the marks that the traits ask for in place; `marks` gets their numbers."""
    traits, high = case.traits, grey.shape[0]
    if {"tape", "touching tape"} & traits:
        _tape(random, traits, grey, breast, marks)
    patches = []
    if "paper label" in traits:
        patches.append((_turned(random, _label(random, high)), "free"))
    if "large letters" in traits:
        patches.append((_turned(random, _letters(random, high, True)), "near"))
    if "touching letters" in traits:
        patches += [
            (_turned(random, _letters(random, high, large, 0)), "touch") for large in (True, False)
        ]
    if "letters" in traits or not patches:
        patches.append((_turned(random, _letters(random, high)), "free"))
    for patch, place in patches:
        _put(random, patch, place, grey, breast, marks)


def _put(random, patch, place, grey, breast, marks):
    """Put a patch beside the breast and other marks, where there is room.

    Args:
        place: "free" is well off the breast, "near" almost touches it, "touch" overlaps it by a
            little.
    """
    rows, columns = grey.shape
    high, wide = patch.shape
    shown = ~np.isnan(patch)
    away = cv2.distanceTransform((~breast).astype(np.uint8), cv2.DIST_L2, 5) / rows
    low, up = {"free": (0.025, 9), "near": (0.004, 0.015), "touch": (0, 0)}[place]
    for _ in range(400):
        y, x = int(random.integers(rows - high)), int(random.integers(columns - wide))
        window = np.s_[y : y + high, x : x + wide]
        over = (breast[window] & shown).sum() / shown.sum()
        if marks[window].any() or not low <= away[window][shown].min() <= up:
            continue
        if place == "touch" and not 0 < over < 0.12:
            continue
        grey[window][shown] = patch[shown]
        marks[window][shown] = marks.max() + 1
        return


def _tape(random, traits, grey, breast, marks):
    """Stick a semi-transparent band on the film, in place; it may cross the breast's edge."""
    high, wide = grey.shape
    across, added = random.uniform(0.025, 0.08) * high, random.uniform(0.04, 0.15)
    for _ in range(100):
        if "touching tape" in traits:
            centre = random.uniform(0.5, 1) * wide, random.uniform(0.05, 0.95) * high
            size, turn = (random.uniform(0.5, 1.5) * wide, across), random.uniform(-25, 25)
        else:
            centre = wide / 2, random.choice([0.6 * across, high - 0.6 * across])
            size, turn = (2 * wide, across), random.uniform(-2, 2)
        area = np.zeros(grey.shape, np.uint8)
        cv2.fillConvexPoly(area, cv2.boxPoints((centre, size, turn)).astype(np.int32), 1)
        over = (area.astype(bool) & breast).sum() / max(1, area.sum())
        if 0 < over < 0.08 if "touching tape" in traits else over == 0:
            there = (area > 0) & ~breast
            grey[there] += added * (1 - grey[there])
            marks[there] = marks.max() + 1
            return


# What the scanner adds


def _put_border(random, traits, grey):
    """Draw borders in place; return where they are, bool."""
    border = np.zeros(grey.shape, bool)
    for side in ("top", "bottom", "left", "right") if set(BORDERS[:4]) & traits else ():
        share = random.uniform(0.004, 0.04) * (0.4 if side == "left" else 1)
        white = "white border" in traits or ("black border" not in traits and random.random() < 0.6)
        tilt = random.uniform(0, 0.012) if "tilted border" in traits else 0.001
        _strip(random, grey, border, side, share, tilt, 1.0 if white else 0.0)
        if "double border" in traits:
            _strip(random, grey, border, side, share * 0.5, tilt, 0.0 if white else 1.0)
    if "chest stripe" in traits:
        share = random.uniform(0.003, 0.012)
        _strip(random, grey, border, "left", share, 0.001, random.uniform(0.92, 1))
    return border


def _strip(random, grey, border, side, share, tilt, level):
    """Lay a strip along a side, in place; it ends in an edge that is not quite straight."""
    turned, over = (part.T if side in ("top", "bottom") else part for part in (grey, border))
    if side in ("right", "bottom"):
        turned, over = turned[:, ::-1], over[:, ::-1]
    long, unit = turned.shape[0], grey.shape[0]
    slope = random.uniform(-tilt, tilt) * np.linspace(-0.5, 0.5, long)
    rough = random.uniform(0, 0.0008) * smooth_field(random, (long, 2), 12)[:, 0]
    ends = np.maximum(0, np.rint((share + slope + rough) * unit))
    there = np.arange(turned.shape[1])[None, :] < ends[:, None]
    turned[there] = level
    over[there] = True


def on_mias_canvas(random, parts):
    """Put the film between the black bars of a square canvas."""
    high, wide = parts[0].shape
    side = high + 2 * round(random.uniform(0, 0.01) * high)
    left = round(random.uniform(0.02, 0.9) * (side - wide))
    canvas = []
    for part, fill in zip(parts, (random.choice([0.0, 0.03]), 0, 0, 1), strict=True):
        whole = np.full((side, side), fill, part.dtype)
        top = (side - high) // 2
        whole[top : top + high, left : left + wide] = part
        canvas.append(cv2.resize(whole, (1024, 1024), interpolation=cv2.INTER_NEAREST))
    return canvas
