"""CBIS-DDSM: where in a film patches are cut, around lesions and of normal tissue.

A normal patch may differ from a lesion's by the lesion alone: were it cut at the breast's edge, or
in fat, a network would learn that. So each is matched to the patch of a lesion of the same film: in
the share of it that is breast, in its depth below the skin, in its height in the breast and in the
grey of its tissue. Lengths are shares of a patch's side; windows lie on a grid of its sixteenth.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.borders import find_border_box
from images.breast import breast_mask
from images.files import WHITE_16
from images.frame import Box

Mask = NDArray[np.bool_]
Cells = NDArray[np.float64]  # (rows, columns) of the grid
GRID = 16  # cells along a patch
MARGIN = 1 / 8  # kept from every lesion
LESS_BREAST = 0.2  # of the area: how much less breast than the lesion's patch shows is too little
OVERLAP = 0.5  # how far two normal patches of a film may overlap, along a side
NEAREST = 0.05  # share of the windows, the best matched, of which one is drawn
# Of breast share, depth, height and grey, where they are matched. On 150 synthetic patients, with
# all at 1 the probe's AUC of borders was 0.63, with these 0.59, of places drawn without any 0.79.
WEIGHTS = (4.0, 1.0, 0.5, 1.0)


def film_box(image: NDArray[np.uint16], side: int) -> Box:
    """Return the part of an (H, W) film that patches of a side are cut from.

    It is the film without the scanner's borders; all of it where that is smaller than a patch.
    """
    box = find_border_box(image)
    return box if min(box.width, box.height) >= side else Box(0, 0, image.shape[1], image.shape[0])


def lesion_box(mask: Mask, side: int, box: Box) -> Box:
    """Return the square around a lesion: its mask in the middle, as far as the film goes.

    Of a lesion that is larger than the square, it is the one around the part of it that is nearest
    to its centre of mass. The square is shifted to lie in the box, or in the film where it would
    lose the lesion.

    Args:
        mask: (H, W), not empty; neither H nor W is below `side`.
        side: Of the square in pixels.
        box: The film without borders, no smaller than the square.
    """
    extent = _extent(mask)
    if max(extent.width, extent.height) <= side:
        x, y = extent.x + extent.width // 2, extent.y + extent.height // 2
        kept = extent
    else:
        points = np.argwhere(extent.of(mask))
        nearest = ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()
        y, x = (int(at) for at in points[nearest] + (extent.y, extent.x))
        kept = Box(x, y, 1, 1)
    whole = Box(0, 0, mask.shape[1], mask.shape[0])
    squares = [_shifted(x - side // 2, y - side // 2, side, one) for one in (box, whole)]
    return next(one for one in squares if _holds(one, kept))


def _extent(mask: Mask) -> Box:
    """Return the box of all pixels of a mask; an empty one where it has none."""
    down, across = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not down.size:
        return Box(0, 0, 0, 0)
    return Box(int(across[0]), int(down[0]), int(np.ptp(across)) + 1, int(np.ptp(down)) + 1)


def _shifted(x: int, y: int, side: int, box: Box) -> Box:
    """Return a square moved into a box."""
    x = min(max(x, box.x), box.x + box.width - side)
    y = min(max(y, box.y), box.y + box.height - side)
    return Box(x, y, side, side)


def _holds(box: Box, other: Box) -> bool:
    return (
        box.x <= other.x
        and box.y <= other.y
        and other.x + other.width <= box.x + box.width
        and other.y + other.height <= box.y + box.height
    )


@dataclass(frozen=True)
class Tissue:
    """A film as normal patches are chosen in it: what the cells of a grid hold."""

    side: int  # of a patch, in pixels
    step: int  # side of a cell, in pixels
    box: Box  # where patches may lie
    breast: Mask  # (H, W)
    share: Cells  # of breast, in each cell
    depth: Cells  # below the skin, of the deepest
    bright: Cells  # grey values of the breast in each cell, but for lesions, over its area
    counted: Cells  # share of the cell that these are of
    lesions: Cells  # 1 where a cell holds a pixel of a lesion, else 0

    @classmethod
    def of(cls, image: NDArray[np.uint16], masks: Sequence[Mask], side: int, box: Box) -> "Tissue":
        """Look at a film.

        Args:
            image: (H, W) uint16 in [0, 65535].
            masks: (H, W), of every lesion on it.
            side: Of a patch in pixels.
            box: The part of it that patches are cut from.
        """
        step = max(1, side // GRID)
        breast = np.zeros(image.shape, np.bool_)
        box.of(breast)[:] = breast_mask(np.ascontiguousarray(box.of(image)))
        clear, lesions = breast.copy(), np.zeros(_grid(image.shape, step))
        for mask in masks:
            extent = _extent(mask)
            there = extent.of(mask)  # to look through all of a film takes as long as its breast
            extent.of(clear)[there] = False
            down, across = np.nonzero(there)
            lesions[(down + extent.y) // step, (across + extent.x) // step] = 1
        share = _means(breast.astype(np.uint8) * 255, step) / 255
        return cls(
            side=side, step=step, box=box, breast=breast, share=share, depth=_depth(share > 0.5),
            bright=_means(np.where(clear, image, np.uint16(0)), step) / WHITE_16,
            counted=_means(clear.astype(np.uint8) * 255, step) / 255, lesions=lesions,
        )  # fmt: skip

    def shares(self, box: Box, mask: Mask) -> tuple[float, float]:
        """Return which shares of a square are breast and are a mask."""
        return float(box.of(self.breast).mean()), float(box.of(mask).mean())

    def normal_box(self, like: Box, taken: Sequence[Box], seed: int, name: str) -> Box | None:
        """Draw a square of normal tissue that is like the one around a lesion.

        Args:
            like: The square around the lesion.
            taken: Normal squares that were drawn before.
            seed: Of the draw.
            name: What is drawn, so that no other film or patch changes it.

        Returns:
            The square; None where no place in the breast is clear of lesions and of `taken`.
        """
        free = self._free(taken)
        wanted = self._at(like)
        free &= self._windows[0] >= wanted[0] - LESS_BREAST
        if not free.any():
            return None
        rows, columns = np.nonzero(free)
        found = np.stack([part[rows, columns] for part in self._windows], axis=1)  # (n, 4)
        order = np.argsort(np.abs(found - wanted) @ np.array(WEIGHTS), kind="stable")
        near = order[: max(1, int(NEAREST * len(order)))]
        # A hash and no generator of the film's: the same draw whoever makes it, and when.
        drawn = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
        chosen = near[drawn % len(near)]
        return Box(
            int(columns[chosen]) * self.step, int(rows[chosen]) * self.step, self.side, self.side
        )

    @property
    def _across(self) -> int:
        """Cells that a window touches along a side."""
        return -(-self.side // self.step)

    @property
    def _windows(self) -> NDArray[np.float64]:
        """What windows are matched by, (4, rows, columns), by the cell of their corner.

        Breast share, depth and height of the middle, each in [0, 1], and the grey of the tissue
        over that of the whole breast.
        """
        count = self._across
        middle = count // 2
        share = _windowed(self.share, count) / count**2
        high, wide = share.shape
        depth = self.depth[middle : middle + high, middle : middle + wide]
        height = np.abs(np.arange(high) + middle - self._centre[0]) / self._centre[1]
        usual = self.bright.sum() / max(1 / WHITE_16, self.counted.sum())
        counted = _windowed(self.counted, count)
        tissue = np.full_like(counted, usual)  # also where a lesion leaves none
        np.divide(_windowed(self.bright, count), counted, out=tissue, where=counted > 0.5)
        tissue /= max(usual, 1 / WHITE_16)
        return np.stack([share, depth, np.repeat(height[:, None], wide, axis=1), tissue])

    @property
    def _centre(self) -> tuple[float, float]:
        """The middle row of the breast and half its height, in cells."""
        rows = np.flatnonzero((self.share > 0.5).any(axis=1))
        if not rows.size:
            return 0.0, 1.0
        return float(rows.mean()), max(1.0, float(np.ptp(rows)) / 2)

    def _at(self, box: Box) -> NDArray[np.float64]:
        """Return what windows are matched by, (4,), of any square."""
        windows = self._windows
        row = min(round(box.y / self.step), windows.shape[1] - 1)
        column = min(round(box.x / self.step), windows.shape[2] - 1)
        return np.asarray(windows[:, row, column])

    def _free(self, taken: Sequence[Box]) -> Mask:
        """Return which windows lie in the box, in the breast, and clear of lesions and `taken`."""
        count, step = self._across, self.step
        margin = -(-int(np.ceil(MARGIN * self.side)) // step)
        padded = np.pad(self.lesions, margin)
        free: Mask = _windowed(padded, count + 2 * margin) == 0
        high, wide = free.shape
        middle = count // 2
        free &= self.share[middle : middle + high, middle : middle + wide] > 0.5
        y, x = (np.arange(size) * step for size in (high, wide))
        free &= ((y >= self.box.y) & (y + self.side <= self.box.y + self.box.height))[:, None]
        free &= (x >= self.box.x) & (x + self.side <= self.box.x + self.box.width)
        for other in taken:
            near_y = np.abs(y - other.y) < (1 - OVERLAP) * self.side
            near_x = np.abs(x - other.x) < (1 - OVERLAP) * self.side
            free &= ~(near_y[:, None] & near_x)
        return free


def _grid(shape: tuple[int, ...], step: int) -> tuple[int, int]:
    """Return how many cells a film of (H, W) = shape has; the last ones reach beyond it."""
    return -(-shape[0] // step), -(-shape[1] // step)


def _means(values: NDArray[Any], step: int) -> Cells:
    """Return the means of (H, W) uint8 or uint16 values over the cells of a grid."""
    rows, columns = _grid(values.shape, step)
    more = rows * step - values.shape[0], columns * step - values.shape[1]
    whole = cv2.copyMakeBorder(values, 0, more[0], 0, more[1], cv2.BORDER_CONSTANT, value=0)
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64)


def _windowed(cells: Cells, count: int) -> Cells:
    """Return the sums of (rows, columns) cells over all windows of count x count of them."""
    total = np.pad(cells.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    return np.asarray(
        total[count:, count:] - total[:-count, count:] - total[count:, :-count]
        + total[:-count, :-count]
    )  # fmt: skip


def _depth(breast: Mask) -> Cells:
    """Return how deep below the skin each cell lies, in [0, 1]; the film's edge is no skin."""
    wide = cv2.copyMakeBorder(breast.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    if wide.all() or not wide.any():
        return breast.astype(np.float64)
    found = cv2.distanceTransform(wide, cv2.DIST_L2, 5)[1:-1, 1:-1].astype(np.float64)
    return np.asarray(found / max(1.0, float(found.max())))
