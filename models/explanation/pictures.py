"""Heat-maps drawn over mammograms."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD
from images.outlines import Outline, draw_outlines
from pipeline.errors import UserError
from pipeline.records import atomic

COLOURS = cv2.COLORMAP_INFERNO  # perceptually uniform: brighter is hotter, in grey too
MOST = 0.55  # of a pixel is the colour of the heat at most, so that the film shows through
SIDE = 1400  # pixels of a picture's longer side, at most
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
    image: NDArray[np.uint16], heat: NDArray[np.float32], outlines: Sequence[Outline] = ()
) -> NDArray[np.uint8]:
    """Draw as `draw_heat` does, at 1,400 pixels along the longer side at most."""
    scale = min(1.0, SIDE / max(image.shape))
    if scale == 1:
        return draw_heat(image, heat, outlines)
    size = reduced_size((image.shape[0], image.shape[1]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint16, copy=False)
    warm = cv2.resize(heat, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    return draw_heat(small, warm, [one * scale for one in outlines])


def reduced_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Return width and height in pixels of what is drawn of an image of (H, W)."""
    scale = min(1.0, SIDE / max(shape))
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
