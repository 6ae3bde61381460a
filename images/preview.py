"""A sheet that shows what preprocessing does: images as rows, steps as columns, histograms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.chain import preprocessing_steps
from images.files import read_image, write_png
from images.frame import CENTRE
from images.steps import Grey, resize_and_pad, to_uint8
from pipeline.errors import UserError
from pipeline.stages.data import Preprocess

PANEL, LINE, GUTTER, PAPER = 256, 20, 6, 64  # pixels; grey
GRAPH, BINS, INK = 48, 128, 200  # height in pixels; bars, of two pixels each; grey
Panel = NDArray[np.uint8]


@dataclass(frozen=True)
class PreviewImage:
    """One image to show: its path, what it is and how it is called."""

    path: Path
    unit: str
    caption: str
    options: Preprocess


def draw_row(shown: PreviewImage) -> Panel:
    """Return the steps of one image side by side, each with its histogram below, (H, W) uint8.

    Raises:
        UserError: The image cannot be read, or has no breast.
    """
    image = read_image(shown.path)
    try:
        steps = preprocessing_steps(image, shown.options, shown.unit)
    except UserError as error:
        raise UserError(f"{shown.path}: {error.problem}") from None
    strip = np.hstack([_panel(name, step) for name, step in steps])
    head = np.full((LINE, strip.shape[1]), PAPER, np.uint8)
    _write(head, shown.caption)
    return np.vstack([head, strip])


def write_sheet(path: Path, rows: Sequence[Panel]) -> None:
    """Write rows of panels under each other as one PNG page."""
    wide = max(row.shape[1] for row in rows)
    page = [
        np.pad(row, ((0, GUTTER), (0, wide - row.shape[1])), constant_values=PAPER) for row in rows
    ]
    write_png(path, np.vstack(page))


def _panel(name: str, image: Grey) -> Panel:
    small, _ = resize_and_pad(image, PANEL, CENTRE)
    head = np.full((LINE, PANEL), PAPER, np.uint8)
    _write(head, name)
    panel = np.vstack([head, to_uint8(small), _histogram(image)])
    return np.pad(panel, ((0, 0), (0, GUTTER)), constant_values=PAPER)


def _histogram(image: Grey) -> Panel:
    """Draw how often each grey value occurs, black to white, but for the black of the background.

    Heights are square roots, so that what is rare can be seen beside what is common.
    """
    counts = np.sqrt(np.bincount((image[image > 0] >> 9).ravel(), minlength=BINS))
    heights = np.rint(counts * (GRAPH - 2) / max(counts.max(), 1)).astype(int)
    heights[counts > 0] = np.maximum(heights[counts > 0], 1)
    bars = np.arange(GRAPH)[::-1, None] < np.repeat(heights, PANEL // BINS)
    return np.where(bars, INK, PAPER // 2).astype(np.uint8)


def _write(image: Panel, text: str) -> None:
    place = (2, LINE - 6)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1, cv2.LINE_AA)
