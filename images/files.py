"""Image files in and out: the one code path of every stage, for one channel of 16 bits."""

import errno
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images import png
from images.archives import ImageFile, open_binary, unreadable
from images.light_pydicom import light_pydicom
from pipeline.errors import UserError
from pipeline.records import atomic

WHITE_8, WHITE_16 = 255, 65535
SPREAD = WHITE_16 // WHITE_8  # 257: 8-bit white becomes 16-bit white, exactly
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pgm")
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"  # PS3.10, section 7.1

# A broken file raises UserError; OpenCV's own lines would break the progress bar.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: ImageFile) -> NDArray[np.uint16]:
    """Read one image file as grey values of the full 16-bit range.

    16-bit files keep their values, 8-bit ones are multiplied by 257, 1-bit ones become 0 and
    65535, colour becomes ITU-R BT.601 luma, alpha is dropped. A DICOM file (by suffix or content)
    goes through `images.dicom.read_pixels`.

    Args:
        path: PNG, JPEG, TIFF, BMP, PGM or DICOM; it may lie in a zip file (images.archives) or
            in memory (images.archives).

    Returns:
        (H, W) uint16 in [0, 65535].

    Raises:
        UserError: The file is missing, empty, truncated or not an image.
    """
    if is_dicom(path):
        pixels: NDArray[np.uint16] = dicom_reader().read_pixels(path)
        return pixels
    content = read_bytes(path)
    image = _decode_png(path, content)
    return full_range(path, _decode(path, content) if image is None else image)


def dicom_reader() -> ModuleType:
    """Return `images.dicom`, loaded when the first DICOM file comes."""
    with light_pydicom():
        return importlib.import_module("images.dicom")


def _decode_png(path: ImageFile, content: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Return the pixels of a grey PNG file, or None where OpenCV is to decode the file."""
    if content[: len(png.SIGNATURE)].tobytes() != png.SIGNATURE:
        return None
    if fault := png.fault(content):
        raise UserError(f"{path}: {fault}")  # libpng would write its own lines past our own
    try:
        return png.read_grey(content)
    except png.DamagedError as error:
        raise UserError(f"{path}: is damaged ({error})") from None


def _decode(path: ImageFile, content: NDArray[np.uint8]) -> NDArray[Any]:
    problem = f"{path}: cannot be decoded, it is damaged or not an image"
    try:
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        raise UserError(problem) from None
    if image is None:
        raise UserError(problem)
    return image


def full_range(path: ImageFile, image: NDArray[Any]) -> NDArray[np.uint16]:
    """Turn decoded pixels, (H, W) or (H, W, 3 or 4) in BGR(A) order, into (H, W) uint16.

    Raises:
        UserError: The pixels are not of 1 bit, nor unsigned 8-bit or 16-bit ones.
    """
    if image.dtype == np.bool_:
        image = np.multiply(image, np.uint16(WHITE_16))
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: has {image.dtype} pixels, not unsigned 8-bit or 16-bit ones")
    if image.ndim == 3:
        image = cv2.cvtColor(np.ascontiguousarray(image[:, :, :3]), cv2.COLOR_BGR2GRAY)
    if image.dtype == np.uint8:
        image = np.multiply(image, SPREAD, dtype=np.uint16)
    return np.asarray(image, dtype=np.uint16)


def is_dicom(path: ImageFile) -> bool:
    """Return whether a file is or claims to be DICOM: by its suffix, or by its first 132 bytes.

    Raises:
        UserError: The file cannot be opened.
    """
    if path.suffix.lower() == ".dcm":
        return True
    end = DICOM_MAGIC_AT + len(DICOM_MAGIC)
    try:
        with open_binary(path, end) as file:
            return file.read(end)[DICOM_MAGIC_AT:] == DICOM_MAGIC
    except OSError as error:
        raise unreadable(path, error) from None


def read_bytes(path: ImageFile) -> NDArray[np.uint8]:
    """Read a whole file as (N,) uint8.

    OpenCV and some others open no path outside the system's code page on Windows; Python does.

    Raises:
        UserError: The file is missing, empty or may not be read.
    """
    try:
        with open_binary(path) as file:
            content = np.frombuffer(file.read(), dtype=np.uint8)
    except OSError as error:
        raise unreadable(path, error) from None
    if not content.size:
        raise UserError(f"{path}: is empty")
    return content


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Write one image as PNG, whole or not at all, the same bytes for the same pixels.

    Args:
        path: Where; missing folders are made.
        image: (H, W), uint8 in [0, 255], uint16 in [0, 65535] or bool (True is white); kept at
            its depth: 8, 16 or 1 bit.

    Raises:
        ValueError: The array has another shape or dtype.
        UserError: The disk is full or the folder cannot be written to.
    """
    if image.ndim != 2 or not image.size or image.dtype not in png.DEPTHS:
        raise ValueError(f"{image.shape} {image.dtype}: must be (H, W) uint8, uint16 or bool")
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            png.write_grey(file, image)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
        raise UserError(f"{path}: cannot be written ({error.strerror or error})", remedy) from None
