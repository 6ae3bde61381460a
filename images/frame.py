"""Where a working image lies in the film it was made from, both ways, to the pixel."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.manifest import Row

LEFT, RIGHT, CENTRE = "left", "right", "centre"  # where in the square an oblong image is put


class Box(NamedTuple):
    """A rectangle of whole pixels; `x` and `y` belong to it, `x + width` does not."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return a view of what the box holds of an (H, W) image."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True)
class Frame:
    """Where a working image lies in the image it was made from: a shift, a scale, a mirror.

    The working image shows a window; what of it lies beyond the film is black padding, so `x` and
    `y` may be negative. Points are in pixels with (0, 0) at the upper left corner of the upper
    left pixel, whose centre is (0.5, 0.5).
    """

    x: int  # left edge of the window, in pixels of the original image
    y: int  # upper edge of the window
    width: int  # of the window, in pixels of the original image
    height: int  # of the window
    columns: int  # width of the working image, in its pixels
    rows: int  # height of the working image; the scale is the same both ways
    mirrored: bool = False  # whether the working image is mirrored left to right

    @property
    def scale(self) -> float:
        """Working pixels for one pixel of the original image."""
        return self.columns / self.width

    @classmethod
    def of_box(cls, box: Box) -> "Frame":
        """Return the frame of a box as it is, at full size."""
        return cls(box.x, box.y, box.width, box.height, box.width, box.height)

    @classmethod
    def around(cls, box: Box, size: int, place: str) -> "Frame":
        """Return the frame of a box that `steps.resize_and_pad` brought to (size, size)."""
        side = max(box.width, box.height)
        spare_x, spare_y = side - box.width, side - box.height
        x = box.x - {LEFT: 0, RIGHT: spare_x, CENTRE: spare_x // 2}[place]
        y = box.y - (spare_y // 2 if place == CENTRE else 0)
        return cls(x, y, side, side, size, size)

    @classmethod
    def of_row(cls, row: Row) -> "Frame":
        """Return the frame of a preprocessed image.

        Raises:
            ValueError: The row has none: it is not preprocessed, or augmented.
        """
        box = row.crop_x, row.crop_y, row.crop_width, row.crop_height
        if row.parent or None in box:
            raise ValueError(f"{row.image_id}: has no crop box")
        x, y, width, height = (int(value or 0) for value in box)
        return cls(x, y, width, height, row.width, row.height, bool(row.mirrored))

    def mirror(self) -> "Frame":
        """Return the frame of the same working image mirrored left to right."""
        return replace(self, mirrored=not self.mirrored)

    def to_working(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 2) points x, y to the working image."""
        mapped = (np.asarray(points, np.float64) - (self.x, self.y)) * self.scale
        return self._mirrored(mapped)

    def to_original(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 2) points x, y to the original image."""
        return self._mirrored(np.asarray(points, np.float64)) / self.scale + (self.x, self.y)

    def boxes_to_working(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 4) boxes left, top, right, bottom to the working image."""
        return _upright(self.to_working(np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2))))

    def boxes_to_original(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 4) boxes left, top, right, bottom to the original image."""
        return _upright(self.to_original(np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2))))

    def image_to_working(self, image: NDArray[Any]) -> NDArray[Any]:
        """Map an (H, W) mask or map, uint8, uint16 or float32, to (rows, columns)."""
        window = np.zeros((self.height, self.width), image.dtype)
        here, there = self._overlap(image.shape)
        window[here] = image[there]
        # Area averaging when shrinking: linear interpolation would skip pixels and alias.
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        mapped = cv2.resize(window, (self.columns, self.rows), interpolation=interpolation)
        return mapped[:, ::-1].copy() if self.mirrored else mapped

    def image_to_original(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """Map a (rows, columns) mask or map, such as a heat-map, to (H, W) = shape, 0 beyond."""
        upright = image[:, ::-1].copy() if self.mirrored else image
        interpolation = cv2.INTER_AREA if self.scale > 1 else cv2.INTER_LINEAR
        window = cv2.resize(upright, (self.width, self.height), interpolation=interpolation)
        whole = np.zeros(shape, image.dtype)
        here, there = self._overlap(shape)
        whole[there] = window[here]
        return whole

    def _mirrored(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mirror points of the working image where it is mirrored; twice is the identity."""
        return points * (-1, 1) + (self.columns, 0) if self.mirrored else points

    def _overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where window and image of that shape overlap, in either's pixels."""
        here, there = [], []
        window = (self.y, self.height), (self.x, self.width)
        for (start, side), length in zip(window, shape[:2], strict=True):
            first, last = max(0, start), max(0, start, min(length, start + side))
            there.append(slice(first, last))
            here.append(slice(first - start, last - start))
        return (here[0], here[1]), (there[0], there[1])


def _upright(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., 2, 2) corners as (..., 4) left, top, right, bottom."""
    return np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)
