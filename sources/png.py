"""Grey PNG files of 1, 8 or 16 bits, written quickly (ISO/IEC 15948).

The filter and the deflate settings were chosen on two films of 14.8 megapixels with grain, on one
core: milliseconds to write, megabytes, and milliseconds for libpng to read; the best of four.

                                   8 bits            16 bits
    UP,  level 1, 512 bytes      46   6.5   66      55  24.0  139    <- taken
    SUB, level 1, 512 bytes      45   6.5   84      55  24.0  150
    UP,  level 2, 512 bytes      46   6.5   64      56  24.0  138
    UP,  level 1, 32 kB          51   7.2   76      81  24.0  138
    UP,  level 0, 32 kB          49   9.5   91      77  32.9  221
    OpenCV, UP, only runs       130   6.2   60     285  24.1  142

Grain leaves nothing to find but chance matches, and a far one costs more bits than the grey values
that it stands for: a window of 512 bytes is both quicker and smaller. SUB is as good to write but
slower to undo, since each pixel waits for the one beside it.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND"
ANCILLARY = 0x20  # bit of a chunk's first letter: decoders can do without it (5.4)
DEPTHS = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
UP = 2  # filter type, 9.2: each byte less the one above it
LEVEL, WINDOW_BITS = 1, 9
BLOCK = 256 * 1024  # bytes that are filtered and deflated at a time, so that they stay in cache


def write_grey(file: BinaryIO, image: NDArray[Any]) -> None:
    """Write an image as PNG: the same bytes for the same pixels, and little memory beside them.

    Args:
        file: Open for writing.
        image: (H, W), not empty: bool (True is white), uint8 in [0, 255] or uint16 in [0, 65535].
    """
    height, width = image.shape
    depth = DEPTHS[image.dtype]
    file.write(SIGNATURE)
    # Width, height, depth; then grey, deflate, the five basic filters, not interlaced (11.2.2).
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    deflate = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, WINDOW_BITS)
    for block in _filtered(image):
        if deflated := deflate.compress(block):
            _write_chunk(file, b"IDAT", deflated)
    _write_chunk(file, b"IDAT", deflate.flush())
    _write_chunk(file, END, b"")


def fault(content: NDArray[np.uint8]) -> str:
    """Tell from the checksums what is wrong with a PNG file, without decoding it.

    Args:
        content: The file, (N,); it begins with the signature.

    Returns:
        "is truncated", "is damaged (...)", or empty where every chunk is whole.
    """
    at, total = len(SIGNATURE), len(content)
    data = content.data
    while at + 12 <= total:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > total:
            break
        (stated,) = struct.unpack_from(">I", data, end)
        if not kind[0] & ANCILLARY and isal_zlib.crc32(data[at + 4 : end]) != stated:
            return "is damaged (a checksum in it is wrong)"
        if kind == END:
            return ""
        at = end + 4
    return "is truncated"


def _filtered(image: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield (n, 1 + bytes of a row) uint8: some rows after another, the filter's type in front."""
    row_bytes = -(-image.shape[1] * DEPTHS[image.dtype] // 8)
    step = max(1, BLOCK // row_bytes)
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, image.shape[0], step):
        rows = _row_bytes(image[top : top + step])
        block = np.empty((len(rows), 1 + row_bytes), np.uint8)
        block[:, 0] = UP
        np.subtract(rows[:1], above, out=block[:1, 1:])
        np.subtract(rows[1:], rows[:-1], out=block[1:, 1:])
        above = rows[-1:]
        yield block


def _row_bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Return rows as the file holds them: packed bits, bytes, or two bytes, the higher first."""
    if rows.dtype == np.bool_:
        return np.packbits(rows, axis=1)
    if rows.dtype == np.uint16:
        rows = rows.astype(">u2", order="C")
    return np.ascontiguousarray(rows).view(np.uint8)


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind))))
