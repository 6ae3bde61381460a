"""What the page shows of a film: part of it, at a window and level, with a heat-map over it."""

import base64
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import WHITE_16

Kind = TypeVar("Kind", np.uint8, np.uint16)
Grey = NDArray[np.uint16]
Map = NDArray[np.uint8]

KEPT_PIXELS = 16_000_000  # of a film in memory: a session may hold many
SHOWN_SIDE = 1400  # pixels of a picture's longer side; a column on a fine screen is as wide
# Perceptually uniform, and hardly a colour of it is a grey of the film (van der Walt & Smith 2015).
COLOURS = cv2.COLORMAP_PLASMA
DARKEST, BRIGHTEST = 1.0, 99.8  # percentiles of a film between which it is shown at first
JPEG_QUALITY = 95
STEP, DIGITS = 0.1, 1  # of window and level, in percent


@dataclass(frozen=True)
class View:
    """How a film is looked at."""

    level: float  # middle of the grey values that are shown, in percent of the range
    width: float  # of them, likewise
    zoom: float = 1.0
    across: float = 50.0  # where the middle of the picture lies, in percent of the film
    down: float = 50.0
    heat: float = 0.0  # how much the heat-map covers where it is hottest, in percent


def reduced(film: Grey) -> Grey:
    """Return a film of at most `KEPT_PIXELS` pixels, its aspect kept."""
    factor = (KEPT_PIXELS / film.size) ** 0.5
    if factor >= 1:
        return film
    return _resized(film, factor)


def first_view(film: Grey) -> View:
    """Return level and width that show the film's own grey values."""
    sample = film[::4, ::4]
    inside = sample[sample > 0]
    ends = np.percentile(inside, (DARKEST, BRIGHTEST)) if inside.size else (0, WHITE_16)
    low, high = (float(end) * 100 / WHITE_16 for end in ends)
    if high - low < STEP:  # of one grey value, which no window tells from another
        low, high = 0.0, 100.0
    level, width = (low + high) / 2, high - low
    return View(
        round(level, DIGITS), min(100.0, round(float(np.ceil(width / STEP)) * STEP, DIGITS))
    )


def hottest(heat: Map) -> tuple[float, float]:
    """Return where a map is hottest, across and down, in percent of its size."""
    down, across = np.unravel_index(int(heat.argmax()), heat.shape)
    shares = (across + 0.5) / heat.shape[1], (down + 0.5) / heat.shape[0]
    return float(round(100 * shares[0])), float(round(100 * shares[1]))


def picture(film: Grey, view: View, heat: Map | None = None) -> NDArray[np.uint8]:
    """Draw a film.

    The overlay is the more transparent the colder the map is, and never opaque.

    Args:
        film: (H, W) uint16 in [0, 65535].
        view: How it is looked at.
        heat: (h, w) uint8 in [0, 255], of any size: it covers the film; None for none.

    Returns:
        (H', W') uint8, or (H', W', 3) in BGR order with a heat-map; no side longer than 1400.
    """
    part = _part(film, view)
    scale = SHOWN_SIDE / max(part.shape)
    if scale < 1 or view.zoom > 1:
        part = _resized(part, scale)
    grey = windowed(part, view.level, view.width)
    if heat is None or not view.heat:
        return grey
    size = grey.shape[1], grey.shape[0]
    warm = cv2.resize(_part(heat, view), size, interpolation=cv2.INTER_LINEAR)
    return overlaid(grey, np.asarray(warm, np.uint8), view.heat / 100)


def windowed(film: Grey, level: float, width: float) -> NDArray[np.uint8]:
    """Map a window of grey values to [0, 255], linearly (PS3.3, C.11.2.1.2).

    Args:
        film: (H, W) uint16 in [0, 65535].
        level: Middle of the window in percent of the range.
        width: Of the window, likewise; positive.

    Returns:
        (H, W) uint8; what lies beyond the window is black or white.
    """
    low = (level - width / 2) / 100 * WHITE_16
    scale = 255 * 100 / (width * WHITE_16)
    values = np.arange(WHITE_16 + 1, dtype=np.float64)
    table = np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
    shown: NDArray[np.uint8] = table[film]
    return shown


def overlaid(grey: NDArray[np.uint8], heat: Map, opacity: float) -> NDArray[np.uint8]:
    """Lay a map over a picture.

    Args:
        grey: (H, W) uint8.
        heat: (H, W) uint8 in [0, 255].
        opacity: Of the hottest pixel, in [0, 1].

    Returns:
        (H, W, 3) uint8, BGR.
    """
    share = heat[..., None].astype(np.float32) * np.float32(opacity / 255)
    mixed = grey[..., None] * (1 - share) + cv2.applyColorMap(heat, COLOURS) * share
    return np.asarray(np.rint(mixed), np.uint8)


def _part(image: NDArray[Kind], view: View) -> NDArray[Kind]:
    """Return the part of an image that is looked at; it never reaches beyond the image."""
    spans = []
    for length, middle in zip(image.shape[:2], (view.down, view.across), strict=True):
        shown = max(1, round(length / view.zoom))
        start = round(length * middle / 100 - shown / 2)
        start = min(max(0, start), length - shown)
        spans.append(slice(start, start + shown))
    return image[spans[0], spans[1]]


def _resized(film: Grey, scale: float) -> Grey:
    size = max(1, round(film.shape[1] * scale)), max(1, round(film.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(film, size, interpolation=method), np.uint16)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return a picture as text that a page can hold: grey ones exact, under a heat-map as JPEG."""
    if image.ndim == 2:
        kind, settings = "png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
    else:
        kind, settings = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, content = cv2.imencode(f".{kind}", image, settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
