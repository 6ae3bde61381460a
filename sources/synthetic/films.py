"""How a synthetic film mammogram looks: pure array functions, with the truth beside the picture.

Grey values are shares of the film's scale, 0 to 1, until the last step. The breast is built with
the chest wall on the left; films of right breasts are mirrored.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sources.synthetic.lesions import Array, Drawn, Mask, draw_lesion, polar
from sources.synthetic.marks import Frame, draw_marks, plan_frame
from sources.synthetic.plan import FilmPlan, random_for

NOISE_ROWS = 384
WORK_HEIGHT = 1280  # anatomy is drawn at most this high; grain and marks always at full size
GLANDULAR = {0: 0.5, 1: 0.24, 2: 0.4, 3: 0.56, 4: 0.74}  # share of the breast, by density
GRAIN = 0.012


@dataclass(frozen=True)
class Film:
    """A rendered film and the truth about it; all arrays are (H, W)."""

    pixels: npt.NDArray[np.uint16]  # uint16, 0 to 65535
    breast: Mask  # uint8, 1 on the breast and the pectoral muscle
    marks: Mask  # uint8, 1 on letters, labels and tape
    border: Mask  # uint8, 1 on what the scanner added around the film
    lesions: tuple[Mask, ...]  # for each lesion of the plan, uint8, 1 inside its outline
    clear: tuple[slice, slice]  # the rows and columns that no border touches


@dataclass
class _Anatomy:
    """A breast while it is being drawn: (h, w) arrays, chest wall on the left."""

    grey: Array
    breast: Mask
    depth: Array  # distance to the skin, in shares of the height
    pectoral: Array  # 0 to 1
    nipple: tuple[float, float]  # x, y in pixels


def render_film(plan: FilmPlan, height: int, seed: int) -> Film:
    """Render a film.

    Args:
        plan: What it shows.
        height: Typical height of a film in pixels; this one's own is 0.65 to 1.42 times that.
        seed: Of the collection; the picture depends on it and on the plan, and on nothing else.

    Returns:
        The film with its truth, all at the film's own size.
    """
    frame = plan_frame(random_for(seed, plan.film_id, "frame"), height, plan.laterality)
    scale = min(1.0, WORK_HEIGHT / frame.height)
    shape = max(1, round(frame.inner_height * scale)), max(1, round(frame.inner_width * scale))
    anatomy = _draw_anatomy(plan, shape, random_for(seed, plan.film_id, "anatomy"))
    unit = shape[0]
    places: list[tuple[float, float, float]] = []
    masks = []
    for lesion in plan.lesions:
        name = f"{lesion.finding} {lesion.number}"
        random = random_for(seed, plan.film_id, name)
        radius = lesion.radius * unit
        x, y = _place(anatomy, radius, places, random)
        places.append((x, y, radius))
        masks.append(_add(anatomy, draw_lesion(lesion, radius, random), x, y))
    return _expose(plan, frame, anatomy, masks, seed)


def _noise(random: np.random.Generator, shape: tuple[int, int], slope: float) -> Array:
    """Return noise whose amplitude falls as 1/f^slope, mean 0 and deviation 1, shape (h, w).

    Mammographic texture has a power spectrum of about 1/f^3 (Burgess 1999, Med Phys 26:419), so
    an amplitude slope of 1.5. It is made at no more than NOISE_ROWS rows, since finer detail is
    grain, and on a grid whose sides the Fourier transform is quick for.
    """
    small = min(1.0, NOISE_ROWS / shape[0])
    rows, columns = (cv2.getOptimalDFTSize(max(8, round(side * small))) for side in shape)
    white = random.standard_normal((rows, columns), np.float32)
    # OpenCV's transform takes a tenth of the time of NumPy's, and this is most of a film.
    spectrum = cv2.dft(white, flags=cv2.DFT_COMPLEX_OUTPUT)  # (h, w, 2)
    field = cv2.idft(spectrum * _falling(rows, columns, slope), flags=cv2.DFT_REAL_OUTPUT)
    field = (field - field.mean()) / field.std()
    enlarged: Array = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return enlarged


@lru_cache(maxsize=32)
def _falling(rows: int, columns: int, slope: float) -> Array:
    """Return 1/f^slope for each element of a spectrum, 0 for the mean, shape (h, w, 1)."""
    frequency = np.hypot(
        np.fft.fftfreq(rows)[:, None] * rows, np.fft.fftfreq(columns)[None, :] * rows
    )
    frequency[0, 0] = np.inf
    share: Array = (np.maximum(frequency, 1.5) ** -slope).astype(np.float32)[..., None]
    return share


def _draw_anatomy(plan: FilmPlan, shape: tuple[int, int], random: np.random.Generator) -> _Anatomy:
    height, width = shape
    breast, nipple = _outline(plan.view, shape, random)
    depth = cv2.distanceTransform(
        cv2.copyMakeBorder(breast, 0, 0, width, 0, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5
    )[:, width:] / np.float32(height)
    thickness = 1 - np.exp(-depth / random.uniform(0.028, 0.045))
    texture = _noise(random, shape, 1.5)
    streaks = _streaks(random, shape, nipple)
    gland = _glandular(plan.density, shape, nipple, depth, random)
    fat = random.uniform(0.25, 0.32)
    grey = fat + 0.03 * texture + 0.012 * streaks
    grey += gland * (0.15 + 0.035 * _noise(random, shape, 1.1) + 0.026 * streaks)
    grey += 0.05 * _vessels(random, shape, nipple)
    pectoral = _pectoral(plan.view, shape, random)
    muscle = random.uniform(0.46, 0.54) + 0.03 * texture + 0.02 * _noise(random, shape, 0.8)
    muscle += 0.07 * pectoral * np.linspace(1, -1, shape[1], dtype=np.float32)[None, :]
    grey = grey * (1 - pectoral) + np.maximum(muscle, grey) * pectoral
    grey = grey * thickness
    skin = np.exp(-(((depth - 0.004) / 0.004) ** 2)) * (breast > 0)
    grey += np.float32(random.uniform(0.07, 0.12)) * skin
    spot = _disc(shape, nipple, random.uniform(0.011, 0.016) * height)
    grey += 0.14 * spot * thickness
    return _Anatomy(grey.astype(np.float32), breast, depth, pectoral, nipple)


def _outline(
    view: str, shape: tuple[int, int], random: np.random.Generator
) -> tuple[Mask, tuple[float, float]]:
    """Return the breast's mask and where its nipple is."""
    height, width = shape
    reach = width * random.uniform(0.62, 0.86)
    t = np.arange(height) / height
    if view == "CC":
        middle, upper = random.uniform(0.45, 0.55), random.uniform(0.36, 0.43)
        lower = upper * random.uniform(0.92, 1.08)
        power = random.uniform(2.0, 2.5)
    else:
        middle, upper = random.uniform(0.54, 0.64), random.uniform(0.72, 0.95)
        lower = random.uniform(0.3, 0.36)
        power = random.uniform(1.9, 2.2)
    s = np.where(t < middle, (middle - t) / upper, (t - middle) / lower)
    edge = reach * np.clip(1 - s**power, 0, None) ** (1 / 2.1)
    wobble = np.sin(t * random.uniform(6, 9) + random.uniform(0, 6.3)) * random.uniform(0, 0.025)
    edge = edge * (1 + wobble + 0.008 * np.sin(t * random.uniform(14, 20)))
    mask = (np.arange(width)[None, :] < edge[:, None]).astype(np.uint8)
    row = min(height - 1, int(height * (middle + random.uniform(-0.03, 0.03))))
    nipple = (float(edge[row]) - 0.003 * height, float(row))
    centre = (round(nipple[0]), round(nipple[1]))
    cv2.circle(mask, centre, max(2, round(random.uniform(0.012, 0.018) * height)), 1, -1)
    return mask, nipple


def _disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> Array:
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[0])
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[1])
    return np.exp(-(((x * x + y * y) / np.float32(radius * radius)) ** 2)).astype(np.float32)


def _polar(shape: tuple[int, int], nipple: tuple[float, float]) -> tuple[Array, Array]:
    x = nipple[0] - np.arange(shape[1], dtype=np.float32)
    y = np.arange(shape[0], dtype=np.float32) - np.float32(nipple[1])
    return polar(*np.meshgrid(x.astype(np.float32), y))


def _streaks(
    random: np.random.Generator, shape: tuple[int, int], nipple: tuple[float, float]
) -> Array:
    """Return fibres that run towards the nipple: noise in polar coordinates, long in radius."""
    distance, angle = _polar(shape, nipple)
    around, along = 720, 96
    white = random.standard_normal((around, along), np.float32)
    plane = cv2.GaussianBlur(white, (0, 0), sigmaX=9, sigmaY=1.8, borderType=cv2.BORDER_REFLECT)
    plane = (plane / plane.std()).astype(np.float32)
    bend = 7 * _noise(random, shape, 1.6)
    column = distance * np.float32(along / (1.2 * shape[0]))
    row = np.mod(angle * np.float32(around / (2 * np.pi)) + bend + around / 2, around - 1)
    fibres = cv2.remap(
        plane, column, row.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return fibres.astype(np.float32)


def _glandular(
    density: int,
    shape: tuple[int, int],
    nipple: tuple[float, float],
    depth: Array,
    random: np.random.Generator,
) -> Array:
    """Return where fibroglandular tissue lies, 0 to 1: behind the nipple, more with density."""
    height, _ = shape
    share = GLANDULAR[density]
    centre = nipple[0] * random.uniform(0.45, 0.6), nipple[1] + height * random.uniform(-0.1, 0.05)
    x = (np.arange(shape[1], dtype=np.float32)[None, :] - centre[0]) / (0.75 * nipple[0])
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - centre[1]) / (0.42 * height)
    near = np.exp(-(x * x + y * y) * 1.1)
    score = near + 0.3 * _noise(random, shape, 1.7) + 0.1 * _noise(random, shape, 1.1)
    inside = score[depth > 0.02]
    limit = np.float32(np.quantile(inside[::37], 1 - share))
    gland: Array = (1 / (1 + np.exp(-(score - limit) * 9))).astype(np.float32)
    return gland


def _vessels(
    random: np.random.Generator, shape: tuple[int, int], nipple: tuple[float, float]
) -> Array:
    """Return a few winding vessels from the chest wall towards the nipple, 0 to 1."""
    height, _ = shape
    canvas = np.zeros(shape, np.uint8)
    for _ in range(int(random.integers(3, 7))):
        start = np.array([0.0, random.uniform(0.15, 0.9) * height])
        end = np.array([nipple[0] * random.uniform(0.6, 0.9), nipple[1]])
        end[1] += height * random.uniform(-0.25, 0.25)
        t = np.linspace(0, 1, 60)[:, None]
        sway = np.sin(t * random.uniform(4, 9) + random.uniform(0, 6.3)) * random.uniform(
            0.01, 0.03
        )
        points = start + (end - start) * t + np.array([[0.3, 1.0]]) * sway * height
        width = max(1, round(random.uniform(0.002, 0.005) * height))
        line = (points * 16).astype(np.int32)[:, None]
        cv2.polylines(canvas, [line], False, int(random.integers(120, 255)), width, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas, (0, 0), 0.0015 * height).astype(np.float32) / np.float32(255)


def _pectoral(view: str, shape: tuple[int, int], random: np.random.Generator) -> Array:
    """Return the pectoral muscle, 0 to 1: a wedge at the upper chest wall of an MLO view."""
    height, width = shape
    foot, top = random.uniform(0.4, 0.62) * height, random.uniform(0.3, 0.5) * width
    bulge, soft = random.uniform(0.0, 0.12), random.uniform(0.005, 0.01)
    if view != "MLO":
        return np.zeros(shape, np.float32)
    t = np.arange(height, dtype=np.float32)[:, None] / np.float32(foot)
    edge = top * ((1 - t) + bulge * np.sin(np.pi * np.clip(t, 0, 1)))
    away = (np.arange(width, dtype=np.float32)[None, :] - edge) / np.float32(soft * height)
    muscle: Array = (1 / (1 + np.exp(np.clip(away, -30, 30)))).astype(np.float32)
    return muscle


def _place(
    anatomy: _Anatomy,
    radius: float,
    taken: list[tuple[float, float, float]],
    random: np.random.Generator,
) -> tuple[int, int]:
    """Choose where a lesion lies: inside the breast, off the muscle and off other lesions."""
    height, width = anatomy.grey.shape
    columns = np.arange(width, dtype=np.float32)[None, :]
    rows = np.arange(height, dtype=np.float32)[:, None]
    free = (anatomy.depth * height > 1.25 * radius) & (anatomy.pectoral < 0.3)
    free &= (columns > 1.3 * radius) & (rows > 1.3 * radius) & (rows < height - 1.3 * radius)
    for x, y, other in taken:
        apart = free & (np.hypot(columns - x, rows - y) > 1.5 * (radius + other))
        free = apart if apart.any() else free
    found = np.flatnonzero(free)
    where = found[random.integers(found.size)] if found.size else int(np.argmax(anatomy.depth))
    return int(where % width), int(where // width)


def _add(anatomy: _Anatomy, drawn: Drawn, x: int, y: int) -> Mask:
    """Add a drawn lesion to the breast; return its mask, (h, w)."""
    half = drawn.mask.shape[0] // 2
    height, width = anatomy.grey.shape
    top, bottom = max(0, y - half), min(height, y + half + 1)
    left, right = max(0, x - half), min(width, x + half + 1)
    there = np.s_[top:bottom, left:right]
    here = np.s_[top - y + half : bottom - y + half, left - x + half : right - x + half]
    within = np.clip(anatomy.depth[there] / 0.02, 0, 1)
    patch = anatomy.grey[there]
    even = cv2.GaussianBlur(patch, (0, 0), 0.15 * half)
    patch += within * (drawn.cover[here] * (even - patch) + drawn.added[here])
    mask = np.zeros(anatomy.grey.shape, np.uint8)
    mask[there] = drawn.mask[here] & anatomy.breast[there]
    return mask


def _expose(plan: FilmPlan, frame: Frame, anatomy: _Anatomy, masks: list[Mask], seed: int) -> Film:
    """Bring anatomy, background, marks, border and grain together at the film's own size."""
    random = random_for(seed, plan.film_id, "exposure")
    base, gain = random.uniform(0.035, 0.075), random.uniform(0.92, 1.08)
    gamma = random.uniform(0.94, 1.06)
    grey = np.clip(anatomy.grey * gain, 0, 1.2)
    grey = base + np.where(grey > 0.78, 0.78 + 0.2 * np.tanh((grey - 0.78) / 0.2), grey) ** gamma
    scaled = (np.clip(grey, 0, 1) * 65535).astype(np.uint16)
    pixels = np.zeros((frame.height, frame.width), np.uint16)
    pixels[frame.inner] = _enlarge(scaled, frame, plan.laterality)
    truth = []
    for mask in (anatomy.breast, *masks):
        whole = np.zeros(pixels.shape, np.uint8)
        whole[frame.inner] = _enlarge(mask * np.uint8(255), frame, plan.laterality) > 127
        truth.append(whole)
    marks = draw_marks(pixels, truth[0], frame, plan, random_for(seed, plan.film_id, "marks"))
    _add_grain(pixels, random)
    border = frame.draw_border(pixels, random_for(seed, plan.film_id, "border"))
    breast, *lesions = (mask & (1 - border) for mask in truth)
    marks &= 1 - border
    return Film(pixels, breast & (1 - marks), marks, border, tuple(lesions), frame.clear)


def _enlarge(
    image: npt.NDArray[np.integer[Any]], frame: Frame, laterality: str
) -> npt.NDArray[np.integer[Any]]:
    """Bring an image to the film's own size and the chest wall to its side."""
    mirrored = np.ascontiguousarray(image[:, ::-1]) if laterality == "RIGHT" else image
    enlarged = cv2.resize(mirrored, (frame.inner_width, frame.inner_height))
    return enlarged.astype(image.dtype, copy=False)


def _add_grain(pixels: npt.NDArray[np.uint16], random: np.random.Generator) -> None:
    """Add film grain in place, in strips so that a full-size film needs little memory."""
    strength = np.float32(random.uniform(0.8, 1.2) * GRAIN * 65535)
    for top in range(0, pixels.shape[0], 256):
        strip = pixels[top : top + 256]
        grain = random.standard_normal(strip.shape, np.float32)
        # Grain is strongest at middle densities, and the background is never exactly 0.
        level = strip.astype(np.float32)
        noisy = level + grain * strength * (0.35 + level / np.float32(65535))
        strip[...] = np.clip(noisy, 400, 65535).astype(np.uint16)
