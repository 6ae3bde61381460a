"""Image files in and out: the one code path of every stage, for one channel of 16 bits."""

import errno
import importlib
import re
import struct
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
NARROW = WHITE_16 // 16  # what 12 bits under a header of 16 span at most
SPREAD = WHITE_16 // WHITE_8  # 257: 8-bit white becomes 16-bit white, exactly
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pgm")
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"  # PS3.10, section 7.1
UPRIGHT = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR  # turned as EXIF says, as every viewer does
BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"  # with comments
NETPBM = re.compile(rb"P([2356])" + 3 * (BLANK + rb"(\d+)"))  # width, height, highest value
NETPBM_START = 1 << 16  # bytes in which its header lies, with long comments
TEXT, BINARY = (b"P1", b"P2", b"P3"), (b"5", b"6")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0, section 2; the latter are BigTIFF
NEW_SUBFILE, SUBFILE, PHOTOMETRIC = 254, 255, 262  # tags of a page
NUMBERS = {3: "H", 4: "I"}  # types of these tags: SHORT and LONG
NO_IMAGE, REDUCED = 0b101, 2  # NEW_SUBFILE of a small copy or a mask; SUBFILE of a small copy
WHITE_IS_ZERO = 0

# A broken file raises UserError; OpenCV's own lines would break the progress bar.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: ImageFile) -> NDArray[np.uint16]:
    """Read one image file as grey values of the full 16-bit range.

    16-bit files keep their values, 8-bit ones are multiplied by 257, 1-bit ones become 0 and
    65535, others (PGM of 12 bits) are scaled so that their white is 65535. Colour becomes ITU-R
    BT.601 luma, alpha is dropped. A film that EXIF or TIFF says to lie is turned upright. A DICOM
    file (by suffix or content) goes through `images.dicom.read_pixels`.

    Args:
        path: PNG, JPEG, TIFF, BMP, PGM or DICOM; it may lie in a zip file (images.archives) or
            in memory (images.archives).

    Returns:
        (H, W) uint16 in [0, 65535].

    Raises:
        UserError: The file is missing, empty, truncated, not an image, or holds several.
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
    start = content[:4].tobytes()
    problem = f"{path}: cannot be decoded, it is damaged or not an image"
    try:
        if start in TIFF:
            image = _decode_tiff(path, content)
        elif start[:2] in TEXT:  # OpenCV wants something after the last value
            image = cv2.imdecode(np.append(content, np.uint8(ord("\n"))), UPRIGHT)
        else:
            image = cv2.imdecode(content, UPRIGHT)
    except cv2.error:
        raise UserError(problem) from None
    if image is None:
        raise UserError(problem)
    if header := NETPBM.match(content[:NETPBM_START].tobytes()) if start[:1] == b"P" else None:
        return _scaled(path, image, int(header[4]), header[1] in BINARY)
    return image


def _scaled(path: ImageFile, image: NDArray[Any], white: int, binary: bool) -> NDArray[Any]:
    """Scale a PGM or PPM file, whose header says which value is white."""
    # OpenCV has scaled text of 8 bits to 255, and nothing else.
    scaled_already = white <= WHITE_8 and not binary
    if scaled_already or white in (0, WHITE_8) or white >= WHITE_16:
        return image
    if image.max() > white:
        raise UserError(
            f"{path}: has values above the {white:,} that its header calls white; are its bytes "
            "in the other order?"
        )
    values = np.arange(white + 1)
    scaled: NDArray[np.uint16] = ((values * WHITE_16 + white // 2) // white).astype(np.uint16)[
        image
    ]
    return scaled


def _decode_tiff(path: ImageFile, content: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Decode the one image of a TIFF file, which may have small copies and masks as well."""
    pages = _tiff_pages(content)
    films = [
        number
        for number, page in enumerate(pages)
        if not page.get(NEW_SUBFILE, 0) & NO_IMAGE and page.get(SUBFILE) != REDUCED
    ]
    if len(films) > 1:
        raise UserError(
            f"{path}: holds {len(films)} pages; only single images are read",
            "save each page as a file of its own",
        )
    film = films[0] if films else 0
    if film:
        _, decoded = cv2.imdecodemulti(content, UPRIGHT, range=(film, film + 1))
        image = decoded[0] if decoded else None
    else:
        image = cv2.imdecode(content, UPRIGHT)
    white_is_zero = bool(pages) and pages[film].get(PHOTOMETRIC) == WHITE_IS_ZERO
    # OpenCV has inverted those of 8 bits and less.
    if image is not None and image.dtype == np.uint16 and white_is_zero:
        return np.subtract(WHITE_16, image, dtype=np.uint16)
    return image


def _tiff_pages(content: NDArray[np.uint8]) -> list[dict[int, int]]:
    """Return of each page of a TIFF file the tags that tell what it is; of a damaged one, some.

    tifffile would follow pages that lead back to the first for ever, and Pillow opens no colour of
    16 bits.
    """
    data, pages, seen = content.data, [], set()
    order = "<" if content[0] == ord("I") else ">"
    big = ord("+") in content[2:4]
    # A number of entries, the bytes of an entry, where its value lies, an offset.
    entries, length, value, offset = ("Q", 20, 12, "Q") if big else ("H", 12, 8, "I")
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        while at and at not in seen:
            seen.add(at)
            (count,) = struct.unpack_from(order + entries, data, at)
            at += struct.calcsize(order + entries)
            page = {}
            for place in range(at, at + count * length, length):
                tag, kind = struct.unpack_from(f"{order}HH", data, place)
                if tag in (NEW_SUBFILE, SUBFILE, PHOTOMETRIC) and kind in NUMBERS:
                    (page[tag],) = struct.unpack_from(order + NUMBERS[kind], data, place + value)
            pages.append(page)
            (at,) = struct.unpack_from(order + offset, data, at + count * length)
    except struct.error:  # the decoder will say what is wrong
        pass
    return pages


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


def range_note(pixels: NDArray[np.uint16]) -> str:
    """Say where an image spans a sixteenth of its range or less, as 12 bits in 16 do.

    The image is not scaled to its own range: crops and mammograms would get different grey scales.
    Whether its header states too many bits, or it is a dull film, is for a person to judge.

    Args:
        pixels: (H, W) uint16 in [0, 65535], as `read_image` gives it; not empty.

    Returns:
        The note; empty where the image spans more.
    """
    lowest, highest = int(pixels.min()), int(pixels.max())
    if highest - lowest > NARROW:
        return ""
    return (
        f"its grey values are {lowest:,} to {highest:,} of 0 to {WHITE_16:,}, a sixteenth or less: "
        "does its header state too many bits?"
    )
