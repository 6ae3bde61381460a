"""Thumbnails: what a collection looks like on one page, and on average."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD, write_png
from images.steps import reduce_by_area

Thumbnail = NDArray[np.uint8]  # (H, W), [0, 255], no side longer than SIDE

SIDE = 192  # pixels
FINER = 3  # times the thumbnail's size, to which a whole factor reduces first
SHOWN, COLUMNS = 60, 8  # thumbnails on a page
GUTTER, LINE, HEAD, PAPER = 6, 20, 34, 64  # pixels; grey
PANEL = 2 * SIDE  # side of a mean image in pixels
GAIN = 4  # of the difference between two mean images, which is faint


def thumbnail(image: NDArray[Any]) -> Thumbnail:
    """Reduce an image to a thumbnail, its aspect kept; a smaller one keeps its size.

    Each pixel is the mean of the area that it stands for. Reducing by a whole factor first takes
    a seventh of the time of doing it in one step; up to factor - 1 rows and columns at the right
    and lower edge, a third of a thumbnail's pixel, are left out by it.

    Args:
        image: (H, W), uint16 in [0, 65535] or uint8 in [0, 255].

    Returns:
        (h, w) uint8 in [0, 255], the longer of them 192 at most.

    Raises:
        ValueError: The array has another shape or dtype.
    """
    if image.ndim != 2 or not image.size or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{image.shape} {image.dtype}: must be (H, W) uint8 or uint16")
    high, wide = image.shape
    longer = max(high, wide)
    small: NDArray[Any] = image
    if longer > SIDE:
        small = reduce_by_area(small, max(1, min(longer // (FINER * SIDE), high, wide)))
        size = (max(1, round(wide * SIDE / longer)), max(1, round(high * SIDE / longer)))
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(small, alpha=1 / SPREAD).astype(np.uint8, copy=False)
    return small.astype(np.uint8)


def letterbox(image: Thumbnail, side: int) -> Thumbnail:
    """Put an (H, W) uint8 image, no side longer than `side`, into the middle of a black square."""
    square = np.zeros((side, side), np.uint8)
    top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def write_contact_sheet(path: Path, title: str, entries: Sequence[tuple[str, Thumbnail]]) -> None:
    """Write one page of thumbnails with their names, as PNG about 1,600 pixels wide.

    Of more than 60 entries, an even sample is shown; the title states how many of how many.

    Raises:
        UserError: The page cannot be written.
    """
    shown = entries
    count = f"{len(entries):,}"
    if len(entries) > SHOWN:
        chosen = np.linspace(0, len(entries) - 1, SHOWN).round().astype(int)
        shown = [entries[index] for index in chosen]
        count = f"{SHOWN} of {count}"
    across, down = SIDE + GUTTER, SIDE + LINE + GUTTER
    rows = -(-len(shown) // COLUMNS)
    page = np.full((HEAD + rows * down, GUTTER + COLUMNS * across), PAPER, np.uint8)
    _write(page, f"{title}: {count}", GUTTER, HEAD - 12, page.shape[1] - 2 * GUTTER, 0.6)
    for number, (name, image) in enumerate(shown):
        small = thumbnail(image)
        row, column = divmod(number, COLUMNS)
        y, x = HEAD + row * down, GUTTER + column * across
        top, left = y + (SIDE - small.shape[0]), x + (SIDE - small.shape[1]) // 2
        page[top : top + small.shape[0], left : left + small.shape[1]] = small
        _write(page, name, x, y + SIDE + LINE - 6, SIDE, 0.4)
    write_png(path, page)


def write_mean_images(path: Path, title: str, classes: Mapping[str, Sequence[Thumbnail]]) -> None:
    """Write the mean images of two classes and the second's difference from the first, as PNG.

    Each class has at least one thumbnail. They are centred in a black square, so that size and
    orientation show.

    Raises:
        UserError: The picture cannot be written.
    """
    side = max(max(image.shape) for images in classes.values() for image in images)
    means = [
        np.mean([letterbox(image, side) for image in images], axis=0, dtype=np.float64)
        for images in classes.values()
    ]
    first, second = classes
    captions = [f"{name}: mean of {len(images):,}" for name, images in classes.items()]
    captions.append(f"{second} - {first}, x {GAIN}: grey is none")
    panels = [*means, 127.5 + GAIN * (means[1] - means[0])]
    across = PANEL + GUTTER
    page = np.full((HEAD + PANEL + LINE + GUTTER, GUTTER + 3 * across), PAPER, np.uint8)
    _write(page, title, GUTTER, HEAD - 12, page.shape[1] - 2 * GUTTER, 0.6)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        grey = np.clip(np.rint(panel), 0, 255).astype(np.uint8)
        x = GUTTER + number * across
        page[HEAD : HEAD + PANEL, x : x + PANEL] = cv2.resize(
            grey, (PANEL, PANEL), interpolation=cv2.INTER_LINEAR
        )
        _write(page, caption, x, HEAD + PANEL + LINE - 6, PANEL, 0.45)
    write_png(path, page)


def _write(page: Thumbnail, text: str, x: int, y: int, width: int, size: float) -> None:
    """Write one line that begins at (x, y); what is wider than `width` loses its middle."""
    font, shown, kept = cv2.FONT_HERSHEY_SIMPLEX, text, len(text)
    while kept > 2 and cv2.getTextSize(shown, font, size, 1)[0][0] > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"
    cv2.putText(page, shown, (x, y), font, size, 255, 1, cv2.LINE_AA)
