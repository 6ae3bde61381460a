"""Where a working image lies in the film it was made from, both ways, to the pixel."""

from dataclasses import dataclass
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
    """Where a working image lies in the image it was made from: one shift and one scale.

    The working image shows a square window; what of it lies beyond the film is black padding, so
    `x` and `y` may be negative. Points are in pixels with (0, 0) at the upper left corner of the
    upper left pixel, whose centre is (0.5, 0.5).

    Attributes:
        x: Left edge of the window, in pixels of the original image.
        y: Upper edge of the window.
        side: Side of the window, in pixels of the original image.
        size: Side of the working image, in its pixels.
    """

    x: int
    y: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Working pixels for one pixel of the original image."""
        return self.size / self.side

    @classmethod
    def around(cls, box: Box, size: int, place: str) -> "Frame":
        """Return the frame of what `film_steps.resize_and_pad` makes of a box.

        Args:
            box: In pixels of the original image.
            size: Side of the working image.
            place: LEFT, RIGHT or CENTRE.
        """
        side = max(box.width, box.height)
        spare_x, spare_y = side - box.width, side - box.height
        x = box.x - {LEFT: 0, RIGHT: spare_x, CENTRE: spare_x // 2}[place]
        return cls(x, box.y - (spare_y // 2 if place == CENTRE else 0), side, size)

    @classmethod
    def of_row(cls, row: Row) -> "Frame":
        """Return the frame of a preprocessed image.

        Raises:
            ValueError: The row has none: it is not preprocessed, or augmented.
        """
        if row.crop_x is None or row.crop_y is None or row.crop_width is None:
            raise ValueError(f"{row.image_id}: has no crop box")
        return cls(row.crop_x, row.crop_y, row.crop_width, row.width)

    def to_working(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Carry (..., 2) points x, y (or a box as its two corners) to the working image."""
        return (np.asarray(points, np.float64) - (self.x, self.y)) * self.scale

    def to_original(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Carry (..., 2) points x, y (or a box as its two corners) to the original image."""
        return np.asarray(points, np.float64) / self.scale + (self.x, self.y)

    def image_to_working(self, image: NDArray[Any]) -> NDArray[Any]:
        """Carry an (H, W) mask or map, uint8, uint16 or float32, to (size, size), black beyond."""
        window = np.zeros((self.side, self.side), image.dtype)
        here, there = self._overlap(image.shape)
        window[here] = image[there]
        way = cv2.INTER_AREA if self.side > self.size else cv2.INTER_LINEAR
        return cv2.resize(window, (self.size, self.size), interpolation=way)

    def image_to_original(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """Carry a (size, size) mask or map, such as a heat-map, to (H, W) = shape, 0 beyond."""
        way = cv2.INTER_AREA if self.side < self.size else cv2.INTER_LINEAR
        window = cv2.resize(image, (self.side, self.side), interpolation=way)
        whole = np.zeros(shape, image.dtype)
        here, there = self._overlap(shape)
        whole[there] = window[here]
        return whole

    def _overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where window and image of that shape overlap, in either's pixels."""
        here, there = [], []
        for start, length in zip((self.y, self.x), shape[:2], strict=True):
            first, last = max(0, start), max(0, start, min(length, start + self.side))
            there.append(slice(first, last))
            here.append(slice(first - start, last - start))
        return (here[0], here[1]), (there[0], there[1])
