"""A workspace with an evaluated run, and files that a person might drop on the page."""

import sys
import zlib

import cv2
import numpy as np
import pytest

from tests.models.prediction.films import photograph
from tests.models.prediction.workspace import make_workspace


@pytest.fixture(autouse=True)
def _same_main():
    """Streamlit puts the page in the place of the main module, which worker processes import."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def place(once):
    """A workspace with an evaluated run; not to be written to."""
    return once("scored", make_workspace)


@pytest.fixture(scope="session")
def dicom(place):
    """The first film of the collection whose header names a patient."""
    return next(path for path in sorted((place / "raw").rglob("*.dcm")) if "full" in str(path))


@pytest.fixture(scope="session")
def picture(place):
    """A film as PNG."""
    return next((place / "dataset" / "test").rglob("*.png"))


def chunk(kind, data):
    body = kind + data
    return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def bomb():
    """Return a PNG file of 60 kB whose header declares 2.5 thousand million pixels."""
    header = (50_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(50_001) * 1000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def photo():
    """Return a photograph in colour as JPEG."""
    return cv2.imencode(".jpg", photograph(1))[1].tobytes()


def coloured(content):
    """Return how much an image, as the page sends it, differs from grey, (H, W)."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return image.max(axis=2) - image.min(axis=2)
