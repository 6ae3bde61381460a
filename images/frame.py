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

    def turned(self, turns: int, shape: tuple[int, ...]) -> "Box":
        """Return the box in an (H, W) = shape image that is turned by quarters as `numpy.rot90`."""
        x, y, width, height = self
        rows, columns = shape[:2]
        places = (
            Box(x, y, width, height),
            Box(y, columns - x - width, height, width),
            Box(columns - x - width, rows - y - height, width, height),
            Box(rows - y - height, x, height, width),
        )
        return places[turns]


@dataclass(frozen=True)
class Frame:
    """Where a working image lies in the image it was made from: shift, scale, turns, mirror.

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
    turns: int = 0  # quarter turns, counter-clockwise, of the window before it is mirrored

    @property
    def scale(self) -> float:
        """Working pixels for one pixel of the original image."""
        return self._lying[0] / self.width

    @property
    def _lying(self) -> tuple[int, int]:
        """Columns and rows of the working image before it is turned."""
        return (self.rows, self.columns) if self.turns % 2 else (self.columns, self.rows)

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
        return cls(x, y, width, height, row.width, row.height, bool(row.mirrored), row.turned)

    def mirror(self) -> "Frame":
        """Return the frame of the same working image mirrored left to right."""
        return replace(self, mirrored=not self.mirrored)

    def of_turned(self, turns: int, shape: tuple[int, ...]) -> "Frame":
        """Return the frame in an (H, W) = shape image, of one in that image turned.

        Args:
            turns: Quarter turns, counter-clockwise, as `numpy.rot90` takes them.
            shape: Of the image before it was turned.
        """
        x, y, width, height = self.x, self.y, self.width, self.height
        rows, columns = shape[:2]
        if turns == 1:
            x, y, width, height = columns - y - height, x, height, width
        elif turns == 2:
            x, y = columns - x - width, rows - y - height
        elif turns == 3:
            x, y, width, height = y, rows - x - width, height, width
        return replace(self, x=x, y=y, width=width, height=height, turns=turns)

    def to_working(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 2) points x, y to the working image."""
        mapped = (np.asarray(points, np.float64) - (self.x, self.y)) * self.scale
        return self._mirrored(_turned(mapped, self.turns, self._lying))

    def to_original(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., 2) points x, y to the original image."""
        upright = self._mirrored(np.asarray(points, np.float64))
        lying = _turned(upright, -self.turns % 4, (self.columns, self.rows))
        return lying / self.scale + (self.x, self.y)

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
        mapped = cv2.resize(window, self._lying, interpolation=interpolation)
        mapped = np.ascontiguousarray(np.rot90(mapped, self.turns))
        return mapped[:, ::-1].copy() if self.mirrored else mapped

    def image_to_original(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """Map a (rows, columns) mask or map, such as a heat-map, to (H, W) = shape, 0 beyond."""
        upright = image[:, ::-1].copy() if self.mirrored else image
        upright = np.ascontiguousarray(np.rot90(upright, -self.turns))
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


def _turned(points: NDArray[np.float64], turns: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Turn (..., 2) points of an image of size (columns, rows) by quarters, counter-clockwise."""
    columns, rows = size
    x, y = points[..., 0], points[..., 1]
    places = ((x, y), (y, columns - x), (columns - x, rows - y), (rows - y, x))
    return np.stack(places[turns], axis=-1)


def _upright(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., 2, 2) corners as (..., 4) left, top, right, bottom."""
    return np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)
