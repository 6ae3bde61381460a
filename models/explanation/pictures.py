"""Heat-maps drawn over mammograms."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD, WHITE_8
from images.outlines import Outline, draw_outlines
from pipeline.errors import UserError
from pipeline.records import atomic

WHITE_16 = SPREAD * WHITE_8
COLOURS = cv2.COLORMAP_INFERNO  # perceptually uniform: brighter is hotter, in grey too
MOST = 0.55  # of a pixel is the colour of the heat at most, so that the film shows through
SIDE = 1400  # pixels of a picture's longer side, at most
PANEL_SIDE = 800  # of one of several that stand beside each other
GAP = 8  # pixels between them
FAINT = 0.1  # of the heat, below which the film stays as it is


def draw_heat(
    image: NDArray[np.uint16], heat: NDArray[np.float32], outlines: Sequence[Outline] = ()
) -> NDArray[np.uint8]:
    """Draw a heat-map over an image, and the outlines of its lesions.

    Args:
        image: (H, W) uint16 in [0, 65535].
        heat: (H, W) float32 in [0, 1].
        outlines: In pixels of the image.

    Returns:
        (H, W, 3) uint8 in the order blue, green, red. The share of the heat's colour grows with
        the heat, up to 0.55.
    """
    grey = cv2.convertScaleAbs(image, alpha=1 / SPREAD)
    film = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    shades = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(shades, COLOURS)
    share = MOST * np.clip((heat - FAINT) / (1 - FAINT), 0, 1)[..., None]
    drawn = np.rint((1 - share) * film + share * colours).astype(np.uint8)
    return draw_outlines(drawn, outlines) if outlines else drawn


def draw_reduced(
    image: NDArray[np.uint16],
    heat: NDArray[np.float32],
    outlines: Sequence[Outline] = (),
    side: int = SIDE,
) -> NDArray[np.uint8]:
    """Draw as `draw_heat` does, at `side` pixels along the longer side at most."""
    scale = min(1.0, side / max(image.shape))
    if scale == 1:
        return draw_heat(image, heat, outlines)
    size = reduced_size((image.shape[0], image.shape[1]), side)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint16, copy=False)
    warm = cv2.resize(heat, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    return draw_heat(small, warm, [one * scale for one in outlines])


def draw_panels(
    film: NDArray[np.uint16],
    given: NDArray[np.float32],
    restored: NDArray[np.float32],
    heat: NDArray[np.float32],
    outlines: Sequence[Outline] = (),
) -> NDArray[np.uint8]:
    """Draw side by side what an autoencoder was given, what it restored, and its errors.

    Args:
        film: (H, W) uint16 in [0, 65535], which the errors are drawn over.
        given: (H, W) float32 in [0, 1]: the network's input, in pixels of the film.
        restored: (H, W) float32 in [0, 1]: its output, likewise.
        heat: (H, W) float32 in [0, 1]: the errors, likewise.
        outlines: Of lesions, in pixels of the film; drawn on the first and the last.

    Returns:
        (h, 3 w + 16, 3) uint8, blue, green, red; no panel's side longer than 800 pixels.
    """
    nothing = np.zeros_like(heat)
    shades = [np.rint(np.clip(one, 0, 1) * WHITE_16).astype(np.uint16) for one in (given, restored)]
    panels = [
        draw_reduced(shades[0], nothing, outlines, PANEL_SIDE),
        draw_reduced(shades[1], nothing, (), PANEL_SIDE),
        draw_reduced(film, heat, outlines, PANEL_SIDE),
    ]
    gap = np.full((panels[0].shape[0], GAP, 3), WHITE_8, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def reduced_size(shape: tuple[int, int], side: int = SIDE) -> tuple[int, int]:
    """Return width and height in pixels of what is drawn of an image of (H, W)."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 picture, blue, green, red, as PNG, whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    _, content = cv2.imencode(".png", picture)
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content.tobytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error})", "free some space"
        ) from None
