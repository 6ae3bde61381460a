"""Pictures inside the page: thumbnails of test images and the preprocessing sheet."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.runs import Prediction, RunView
from pipeline.errors import UserError

THUMBNAIL, SHEET = 192, 1600  # longest side in pixels
EACH = 3  # test images of each outcome
OUTCOMES = (
    (True, True, "Malignant, called malignant"),
    (True, False, "Malignant, called benign"),
    (False, False, "Benign, called benign"),
    (False, True, "Benign, called malignant"),
)


@dataclass(frozen=True)
class Sample:
    """One test image with what the model said of it."""

    prediction: Prediction
    picture: str  # a JPEG as a data URI; empty where the image cannot be read


@dataclass(frozen=True)
class Outcome:
    """The surest predictions of one cell of the confusion matrix."""

    title: str
    correct: bool
    total: int  # test images in the cell
    samples: Sequence[Sample]


class Thumbnails:
    """Makes each thumbnail once, however many runs show it."""

    def __init__(self, images: Mapping[str, Path]) -> None:
        """Remember where the images lie: image_id -> file."""
        self._images = images
        self._made: dict[str, str] = {}

    def picture(self, image_id: str) -> str:
        """Return an image as a data URI; empty where it cannot be read."""
        if image_id not in self._made:
            path = self._images.get(image_id)
            self._made[image_id] = jpeg(path, THUMBNAIL) if path else ""
        return self._made[image_id]


def samples(run: RunView, thumbnails: Thumbnails) -> list[Outcome]:
    """Return the surest test images of each outcome: the highest or lowest probabilities."""
    found = []
    for malignant, positive, title in OUTCOMES:
        cell = [
            item
            for item in run.predictions["test"]
            if (item.malignant, item.positive) == (malignant, positive)
        ]
        sign = -1 if positive else 1
        cell.sort(key=lambda item: (sign * item.probability, item.image_id))
        shown = [Sample(item, thumbnails.picture(item.image_id)) for item in cell[:EACH]]
        found.append(Outcome(title, malignant == positive, len(cell), shown))
    return found


def jpeg(path: Path, side: int) -> str:
    """Return an image file as a grey JPEG data URI, no side longer than `side` pixels.

    Returns:
        Empty text where the file cannot be read as an image.
    """
    import cv2

    from images.files import read_image

    try:
        image = read_image(path)  # (H, W) uint16
    except UserError:
        return ""
    height, width = image.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey: Any = cv2.convertScaleAbs(small, alpha=255 / 65535)
    done, content = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data_uri("image/jpeg", content.tobytes()) if done else ""


def data_uri(kind: str, content: bytes) -> str:
    """Return bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
