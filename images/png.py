"""Grey PNG files of 1, 8 or 16 bits, written and read quickly (ISO/IEC 15948).

`read_grey` undoes just what `write_grey` does: a film's 16 bits take it 81 ms, libpng 136 ms.

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
DTYPES = {depth: dtype for dtype, depth in DEPTHS.items()}
HEADER = struct.Struct(">IIBBBBB")  # width, height, depth, colour, deflate, filters, interlace
NONE, UP = 0, 2  # filter types, 9.2: the bytes as they are; each byte less the one above it
FIRST = bytes([UP])  # of every file's pixels
LEVEL, WINDOW_BITS = 1, 9
BLOCK = 256 * 1024  # bytes that are filtered or packed at a time, so that they stay in cache
MOST_PACKED = 1032  # times: deflate says no more than 258 bytes with 2 bits (RFC 1951, 3.2.5)
MOST_PIXELS = 2**30  # that OpenCV reads
LEAST_ROW = 128  # bytes: shorter ones libpng reads sooner, since each row costs calls here


class DamagedError(ValueError):
    """A PNG file whose pixels cannot be what its header says; the text says why."""


def write_grey(file: BinaryIO, image: NDArray[Any]) -> None:
    """Write an image as PNG: the same bytes for the same pixels, and little memory beside them.

    It is (H, W), not empty: bool (True is white), uint8 in [0, 255] or uint16 in [0, 65535].
    """
    height, width = image.shape
    depth = DEPTHS[image.dtype]
    file.write(SIGNATURE)
    # Width, height, depth; then grey, deflate, the five basic filters, not interlaced (11.2.2).
    _write_chunk(file, b"IHDR", HEADER.pack(width, height, depth, 0, 0, 0, 0))
    deflate = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, WINDOW_BITS)
    # ISA-L looks for the third byte of a stream where its own address in memory tells it to
    # (rcx in .write_first_byte of igzip_icf_body_h1_gr_bt.asm), so that one file in thousands
    # came out with other bytes. A first byte that is flushed alone goes another way.
    first = deflate.compress(FIRST) + deflate.flush(isal_zlib.Z_SYNC_FLUSH)
    _write_chunk(file, b"IDAT", first)
    done = len(FIRST)
    for block in _filtered(image):
        if deflated := deflate.compress(block.ravel()[done:]):
            _write_chunk(file, b"IDAT", deflated)
        done = 0
    _write_chunk(file, b"IDAT", deflate.flush())
    _write_chunk(file, END, b"")


def fault(content: NDArray[np.uint8]) -> str:
    """Return from the checksums what is wrong with a PNG file, without decoding it.

    Args:
        content: The file, (N,); it begins with the signature.

    Returns:
        "is truncated", "is damaged (...)", or empty where every chunk is whole.
    """
    kind = b""
    for kind, chunk, stated in _chunks(content):
        if not kind[0] & ANCILLARY and isal_zlib.crc32(chunk) != stated:
            return "is damaged (a checksum in it is wrong)"
    return "" if kind == END else "is truncated"


def read_grey(content: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Read a PNG file of the kind that `write_grey` writes, in half of libpng's time.

    Args:
        content: The file, (N,), in which `fault` has found nothing wrong.

    Returns:
        (H, W) bool, uint8 in [0, 255] or uint16 in [0, 65535]; None for a file of another kind
        (colour, interlaced, other filters, more in it than pixels), which is another decoder's.

    Raises:
        DamagedError: The pixels cannot be unpacked, or do not fill the size in the header.
    """
    header, parts = _parts(content)
    if header is None:
        return None
    width, height, depth = header
    stride = 1 + -(-width * depth // 8)  # bytes of a row with its filter type in front
    if height * stride > MOST_PACKED * sum(map(len, parts)):  # before taking memory for them
        raise DamagedError("its pixels do not fill its size")
    image = np.empty((height, width), DTYPES[depth])
    above, top = np.zeros(stride - 1, np.uint8), 0
    for block in _inflated(parts, max(1, BLOCK // stride) * stride):
        count, rest = divmod(len(block), stride)
        if rest or top + count > height:
            raise DamagedError("its pixels do not fill its size")
        rows = _unfiltered(np.frombuffer(block, np.uint8).reshape(count, stride), above)
        if rows is None:
            return None
        _set_rows(image[top : top + count], rows)
        above, top = rows[-1], top + count
    if top < height:
        raise DamagedError("its pixels do not fill its size")
    return image


def _chunks(content: NDArray[np.uint8]) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield of each whole chunk its kind, its kind and data together, and the CRC it states."""
    at, total, data = len(SIGNATURE), len(content), content.data
    while at + 12 <= total:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > total:
            return
        yield kind, data[at + 4 : end], struct.unpack_from(">I", data, end)[0]
        if kind == END:
            return
        at = end + 4


def _parts(content: NDArray[np.uint8]) -> tuple[tuple[int, int, int] | None, list[memoryview]]:
    """Return width, height and depth, or None where `read_grey` does not fit; and the pixels."""
    header, parts = None, []
    for kind, chunk, _ in _chunks(content):
        if kind == b"IDAT":
            parts.append(chunk[4:])
        elif kind == b"IHDR" and len(chunk) == 4 + HEADER.size:
            width, height, depth, *way = HEADER.unpack(chunk[4:])
            long = width * depth >= 8 * LEAST_ROW
            if long and 0 < width * height <= MOST_PIXELS and depth in DTYPES and not any(way):
                header = width, height, depth
        elif kind != END:
            return None, []
    return header, parts


def _inflated(parts: list[memoryview], block: int) -> Iterator[bytearray]:
    """Unpack what the chunks hold, in blocks of so many bytes; the last may be shorter.

    Raises:
        DamagedError: It cannot be unpacked.
    """
    inflate, held = isal_zlib.decompressobj(), bytearray()
    pieces = (part[at : at + BLOCK] for part in parts for at in range(0, len(part), BLOCK))
    try:
        for piece in pieces:
            held += inflate.decompress(piece, block - len(held))
            while len(held) == block:  # there may be more in this piece
                yield held
                held = bytearray(inflate.decompress(inflate.unconsumed_tail, block))
            if inflate.eof:
                break
    except isal_zlib.error:  # type: ignore[misc] # isal's stubs call the class its instance
        raise DamagedError("its pixels cannot be unpacked") from None
    if not inflate.eof:
        raise DamagedError("its pixels cannot be unpacked")
    if held:
        yield held


def _unfiltered(rows: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Undo the filters of (n, 1 + bytes of a row); None where one is neither UP nor NONE."""
    kinds = rows[:, 0].tolist()
    if not {UP, NONE}.issuperset(kinds):
        return None
    result = np.empty((len(rows), rows.shape[1] - 1), np.uint8)
    for kind, row, out in zip(kinds, rows[:, 1:], result, strict=True):
        if kind == UP:
            np.add(row, above, out=out)
        else:
            out[:] = row
        above = out
    return result


def _set_rows(image: NDArray[Any], rows: NDArray[np.uint8]) -> None:
    """Set rows of the image from those of the file: the inverse of `_row_bytes`."""
    if image.dtype == np.bool_:
        image.view(np.uint8)[:] = np.unpackbits(rows, axis=1, count=image.shape[1])
    else:
        image[:] = rows.view(image.dtype.newbyteorder(">"))


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
