"""How the lesions of the synthetic collection look: pure array functions.

Each returns what a lesion adds to the film and where it is, on a square patch around its centre.
The vocabulary is that of the BI-RADS lexicon: a mass has a shape and margins, calcifications have
a type and a distribution.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sources.synthetic.plan import MASS, Lesion

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

PATCH = 2.8  # half the side of a patch, in lesion radii: what the longest spicule needs
MASS_CONTRAST = {0: 0.3, 1: 0.17, 2: 0.23, 3: 0.28, 4: 0.32, 5: 0.36}  # by subtlety
CALC_CONTRAST = {0: 0.4, 1: 0.24, 2: 0.32, 3: 0.4, 4: 0.48, 5: 0.56}
EDGE = 0.25  # density at the outline of a smooth mass, over that of its centre
OUTLINE = 1.43  # of a spiculated mass, over its border: so crops are as large as benign ones
COVER = 0.7  # a mass is denser than the tissue that lies over and under it
ANGLES, RADII = 1440, 192  # of curves and pictures in polar coordinates
SECTOR = 130  # half the angles that one spicule can touch beyond the core


@dataclass(frozen=True)
class Drawn:
    """A lesion on its patch."""

    added: Array  # what it adds to the film, (S, S) float32, in shares of the film's grey scale
    cover: Array  # how much it hides the texture of the tissue, (S, S) float32, 0 to 1
    mask: Mask  # its outline as a radiologist would draw it, (S, S) uint8, 0 or 1


def draw_lesion(lesion: Lesion, radius: float, random: np.random.Generator) -> Drawn:
    """Draw a lesion.

    Args:
        lesion: What it is.
        radius: In pixels.
        random: Its own random numbers.

    Returns:
        A patch whose side S is odd and whose centre is the lesion's.
    """
    half = int(np.ceil(PATCH * radius))
    axis = np.arange(-half, half + 1, dtype=np.float32) / np.float32(radius)
    x, y = np.meshgrid(axis, axis)
    distance, angle = polar(x, y)  # (S, S), in radii and radians
    if lesion.finding != MASS:
        return _calcifications(lesion, radius, half, random)
    contrast = MASS_CONTRAST[lesion.subtlety] * random.uniform(0.9, 1.1)
    draw = _spiculated if lesion.spiculated else _smooth
    density, mask = draw(lesion, distance, angle, radius, random)
    cover = COVER * np.clip(density, 0, 1)
    return Drawn((contrast * density).astype(np.float32), cover.astype(np.float32), mask)


def polar(x: Array, y: Array) -> tuple[Array, Array]:
    """Return distances and angles (0 to 2 pi) of coordinates, float32 of the same shape."""
    distance, angle = cv2.cartToPolar(x, y)
    return distance.astype(np.float32), angle.astype(np.float32)


def _wave(random: np.random.Generator, amplitudes: dict[int, float]) -> Array:
    """Return a random closed curve around 0 over ANGLES angles, from amplitudes by frequency."""
    angles = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    waves = [
        amplitude * random.uniform(0.6, 1.2) * np.cos(frequency * angles + random.uniform(0, 6.3))
        for frequency, amplitude in amplitudes.items()
    ]
    curve: Array = np.sum(waves, axis=0).astype(np.float32)
    return curve


def _around(curve: Array, angle: Array) -> Array:
    """Look a curve over ANGLES angles up at every pixel's angle."""
    index = (angle * (ANGLES / (2 * np.pi))).astype(np.int32)
    return np.take(curve, np.minimum(index, ANGLES - 1))


def _smoothstep(value: Array) -> Array:
    inside = np.clip(value, 0, 1).astype(np.float32)
    return inside * inside * (3 - 2 * inside)


def _smooth(
    lesion: Lesion, distance: Array, angle: Array, radius: float, random: np.random.Generator
) -> tuple[Array, Mask]:
    """Draw a round, oval or lobulated mass: even, brightest in the middle, with a clear edge.

    It has the very grey values of a spiculated mass of its size, laid out from its centre to its
    edge, so that neither brightness nor histogram of a film tells the two apart.
    """
    outline = 1 + _wave(random, {2: 0.02, 3: 0.015})
    if lesion.shape in ("OVAL", "LYMPH_NODE"):
        ratio, turn = random.uniform(1.3, 1.65), random.uniform(0, np.pi)
        angles = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False) - turn
        outline /= np.sqrt(np.cos(angles) ** 2 / ratio + np.sin(angles) ** 2 * ratio)
    if lesion.shape == "LOBULATED":
        lobes, phase = int(random.integers(3, 5)) / 2, random.uniform(0, np.pi)
        angles = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
        outline += 0.2 * np.abs(np.cos(lobes * angles + phase)) - 0.13 + _wave(random, {2: 0.1})
    if lesion.margins == "MICROLOBULATED":
        outline += _wave(random, {int(random.integers(9, 13)): 0.035})
    rank = distance / _around(outline.astype(np.float32), angle)
    if lesion.margins == "OBSCURED":  # one side is lost in the tissue beside it
        lost = _around(_smoothstep(_wave(random, {1: 1.0})), angle)
        rank = np.where(rank > 0.6, 0.6 + (rank - 0.6) * (1 - 0.6 * lost), rank)
    if lesion.shape == "LYMPH_NODE":  # its fatty hilum
        x, y = distance * np.cos(angle) - 0.45, distance * np.sin(angle)
        rank = rank + 0.7 * np.exp(-(x * x + y * y) / 0.06)
    distorted, short = random.random() < 0.24, random.random() < 0.14
    values = _radiate(distance, angle, radius, random, distorted=distorted, short=short)[0]
    density = np.empty_like(distance)
    density.ravel()[np.argsort(rank, axis=None)] = np.sort(values, axis=None)[::-1]
    return density, (density > EDGE * density.max()).astype(np.uint8)


def _spiculated(
    lesion: Lesion, distance: Array, angle: Array, radius: float, random: np.random.Generator
) -> tuple[Array, Mask]:
    """Draw an irregular mass: dense in the middle, fading out, with spicules that radiate."""
    distorted, short = "DISTORTION" in lesion.shape, lesion.margins == "ILL_DEFINED"
    density, border = _radiate(distance, angle, radius, random, distorted=distorted, short=short)
    return density, (distance < OUTLINE * border).astype(np.uint8)


def _radiate(
    distance: Array, angle: Array, radius: float, random: np.random.Generator, *,
    distorted: bool, short: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Return the density of a spiculated mass and its border, both (S, S).

    Args:
        distance: From the centre, in radii.
        angle: Around the centre, in radians.
        radius: In pixels.
        random: The lesion's own random numbers.
        distorted: Whether spicules make it more than its core does.
        short: Whether its spicules are short and few.
    """
    jagged = {2: 0.1, 3: 0.1, 5: 0.07, 7: 0.06, 11: 0.05, 16: 0.03}
    border = _around(0.72 + 0.72 * _wave(random, jagged), angle)
    core = 1 / (1 + np.exp((distance / border - 1) * 11))
    core *= 0.8 if distorted else 1.0
    count = int(random.integers(16, 22)) if short else int(random.integers(18, 28))
    longest = 2.0 if short else 2.6
    plane = _spicules(random, count, (longest - 1.2, longest), radius)
    rays = cv2.remap(
        np.concatenate([plane, plane[:1]]), distance * np.float32(RADII / PATCH),
        angle * np.float32(ANGLES / (2 * np.pi)), cv2.INTER_LINEAR,
    )  # fmt: skip
    density = (np.maximum(core, rays) + 0.2 * core * rays).astype(np.float32)
    return density * _smoothstep(density / np.float32(0.5)), border


def _spicules(
    random: np.random.Generator, count: int, lengths: tuple[float, float], radius: float
) -> Array:
    """Draw spicules in polar coordinates, (ANGLES, RADII), 0 to 1: each in its own sector."""
    distance = (np.arange(RADII, dtype=np.float32) + np.float32(0.5)) * np.float32(PATCH / RADII)
    sector = np.arange(-SECTOR, SECTOR + 1)
    turn = (sector * (2 * np.pi / ANGLES)).astype(np.float32)[:, None]
    start = random.uniform(0, ANGLES)
    plane = np.zeros((ANGLES, RADII), np.float32)
    for index in range(count):
        direction = start + ANGLES * (index + random.uniform(-0.4, 0.4)) / count
        length, width = random.uniform(*lengths), random.uniform(0.055, 0.095)
        bend, strength = random.uniform(-0.18, 0.18), random.uniform(0.5, 0.85)
        taper = np.clip((length - distance) / (length - 0.4), 0, 1)
        reach = np.maximum(width * (0.25 + 0.9 * taper), 0.8 / radius)
        across = np.square((turn - bend * (distance - 0.7)) * (distance / reach))
        ray = np.exp(-np.square(across)) * (_smoothstep(2.5 * taper) * (distance > 0.45) * strength)
        rows = (round(direction) + sector) % ANGLES
        plane[rows] = np.maximum(plane[rows], ray)
    return plane


def _calcifications(lesion: Lesion, radius: float, half: int, random: np.random.Generator) -> Drawn:
    """Draw a group of calcifications, each a spot of its own size and shape."""
    added = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    places = _places(lesion, random)  # (N, 2), in radii
    contrast = CALC_CONTRAST[lesion.subtlety]
    for x, y in places:
        size, spot = _spot(lesion, radius, random)
        left, top = int(half + x * radius) - size, int(half + y * radius) - size
        side = 2 * size + 1
        if left < 0 or top < 0 or max(left, top) + side > added.shape[0]:
            continue
        window = added[top : top + side, left : left + side]
        np.maximum(window, spot * np.float32(contrast * random.uniform(0.6, 1.1)), out=window)
    points = (half + places * radius).astype(np.int32)
    hull = np.zeros(added.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    grown = 2 * max(1, round(0.15 * radius)) + 1
    cover = np.zeros_like(added)
    return Drawn(added, cover, cv2.dilate(hull, np.ones((grown, grown), np.uint8)).astype(np.uint8))


def _places(lesion: Lesion, random: np.random.Generator) -> npt.NDArray[np.float64]:
    count = int(random.integers(18, 40)) if lesion.spiculated else int(random.integers(5, 12))
    spread = {"DIFFUSELY_SCATTERED": 0.75, "REGIONAL": 0.6, "CLUSTERED": 0.4}
    places = random.normal(0, spread.get(lesion.margins, 0.45), (count, 2))
    if lesion.margins in ("LINEAR", "SEGMENTAL"):
        places[:, 0] *= 1.9
        places[:, 1] *= 0.25 if lesion.margins == "LINEAR" else 0.6
        turn = random.uniform(0, np.pi)
        cos, sin = np.cos(turn), np.sin(turn)
        places = places @ np.array([[cos, sin], [-sin, cos]])
    return np.clip(places, -2, 2)


def _spot(lesion: Lesion, radius: float, random: np.random.Generator) -> tuple[int, Array]:
    """Draw one calcification: fine and irregular, or coarse, round, or with a lucent centre."""
    if lesion.spiculated:
        extent, ratio = random.uniform(0.02, 0.05), random.uniform(1.2, 3.2)
    else:
        extent, ratio = random.uniform(0.06, 0.13), random.uniform(1.0, 1.25)
    sigma = max(extent * radius, 0.6)
    size = int(np.ceil(2.2 * sigma * np.sqrt(ratio)))
    axis = np.arange(-size, size + 1, dtype=np.float32) / np.float32(sigma)
    x, y = np.meshgrid(axis, axis)
    turn = random.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    square = u * u / np.float32(ratio) + v * v * np.float32(ratio)
    spot = np.exp(-(square**2) / 2)
    if lesion.shape == "LUCENT_CENTER":
        spot = spot - 0.75 * np.exp(-square * 2.2)
    return size, spot.astype(np.float32)
