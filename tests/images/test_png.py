"""The reader of our own PNG files: OpenCV's and Pillow's pixels, and every damage is told."""

import contextlib
import itertools
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from images import png
from images.files import read_image, write_png
from pipeline.errors import UserError

DEPTHS = {1: np.bool_, 8: np.uint8, 16: np.uint16}
# Rows of odd bytes and bits, of more bytes than are worked on at a time, and of hardly any.
SHAPES = [(1, 1), (1, 1024), (3, 1025), (700, 601), (2, 300_001), (40, 128), (41, 127), (5000, 130)]
SIZE = (60, 1100)  # of the images that are damaged: long enough a row for the reader at 1 bit


def noise(shape, depth, seed=0):
    """Grain on a slope, so that bytes are neither all alike nor all different, (H, W)."""
    random = np.random.default_rng(seed)
    slope = np.linspace(0, 60_000, shape[0])[:, None] + random.normal(0, 900, shape)
    grey = np.clip(slope, 0, 65535).astype(np.uint16)
    return {1: grey > 30_000, 8: (grey >> 8).astype(np.uint8), 16: grey}[depth]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def file_of(header, stream, *, before=b"", cut=10_000):
    """A PNG file whose checksums are right, whatever is in it."""
    parts = (stream[at : at + cut] for at in range(0, len(stream), cut))
    pixels = b"".join(chunk(b"IDAT", part) for part in parts)
    return png.SIGNATURE + chunk(b"IHDR", header) + before + pixels + chunk(b"IEND", b"")


def header(image, *way):
    depth = {dtype: bits for bits, dtype in DEPTHS.items()}[image.dtype.type]
    return struct.pack(">IIBBBBB", *image.shape[::-1], depth, *(way or (0, 0, 0, 0)))


def rows_of(image):
    if image.dtype == np.bool_:
        return np.packbits(image, axis=1)
    return image.astype(image.dtype.newbyteorder(">")).view(np.uint8)


def stream_of(image, kinds=(0,)):
    """The filtered rows of an image, not yet packed; the filters NONE (0) and UP (2) in turns."""
    rows = rows_of(image)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    return b"".join(
        bytes([kind]) + (row - before if kind else row).tobytes()
        for kind, row, before in zip(itertools.cycle(kinds), rows, above, strict=False)
    )


def read(content):
    return png.read_grey(np.frombuffer(content, np.uint8))


def memory_of(call):
    """The most memory that a call takes at a time, in bytes, as far as Python hands it out."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path):
    with contextlib.suppress(UserError):
        read_image(path)


def pillow(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_reads_what_opencv_and_pillow_read(tmp_path, shape, depth):
    image, path = noise(shape, depth), tmp_path / "film.png"
    write_png(path, image)
    found = read(path.read_bytes())
    if shape[1] * depth < 8 * png.LEAST_ROW:
        assert found is None
        return
    assert found.dtype == DEPTHS[depth]
    white = np.uint8(255) if depth == 1 else found.dtype.type(1)
    np.testing.assert_array_equal(found * white, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    np.testing.assert_array_equal(found, pillow(path))


def test_any_shape_comes_back_from_the_disk(tmp_path):
    random = np.random.default_rng(1)
    for seed in range(60):
        depth = int(random.choice(list(DEPTHS)))
        image = noise(random.integers(1, 400, 2) * (1, 8 // min(depth, 8)), depth, seed)
        write_png(tmp_path / "film.png", image)
        white = np.uint16({1: 65535, 8: 257, 16: 1}[depth])
        np.testing.assert_array_equal(read_image(tmp_path / "film.png"), image * white)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_first_byte_is_flushed_alone(tmp_path, depth):
    """ISA-L hashes the third byte of a fresh stream with its own address in memory.

    So the same pixels gave other bytes once in some thousand files; after a flush they never do.
    """
    path = tmp_path / "film.png"
    write_png(path, noise(SIZE, depth))
    content = path.read_bytes()
    at = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, at - 4)
    assert zlib.decompressobj().decompress(content[at + 4 : at + 4 + length]) == b"\x02"


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("cut", [1, 700, 10**9], ids=["bytes", "small chunks", "one chunk"])
def test_rows_may_be_filtered_or_not_and_chunks_of_any_size(depth, cut):
    image = noise((90, 1100) if cut > 1 else (9, 1100), depth)
    stream = zlib.compress(stream_of(image, (0, 2, 2, 0)))
    np.testing.assert_array_equal(read(file_of(header(image), stream, cut=cut)), image)


@pytest.mark.parametrize("flag", [cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH])
def test_other_filters_are_left_to_opencv(tmp_path, flag):
    image, path = noise(SIZE, 16), tmp_path / "film.png"
    _, content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_FILTER, flag])
    path.write_bytes(content.tobytes())
    assert read(content.tobytes()) is None
    np.testing.assert_array_equal(read_image(path), image)


def test_colour_alpha_interlace_and_more_than_pixels_are_left_to_opencv(tmp_path):
    image, path = noise(SIZE, 8), tmp_path / "film.png"
    for other in (np.dstack([image] * 3), np.dstack([image] * 4)):
        cv2.imwrite(str(path), other, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])
        assert read(path.read_bytes()) is None
    stream = zlib.compress(stream_of(image))
    assert read(file_of(header(image, 0, 0, 0, 1), stream)) is None
    density = chunk(b"pHYs", struct.pack(">IIB", 10_000, 10_000, 1))
    content = file_of(header(image), stream, before=density)
    path.write_bytes(content)
    assert read(content) is None
    np.testing.assert_array_equal(read_image(path), image * np.uint16(257))


@pytest.mark.parametrize("depth", DEPTHS)
def test_damage_is_told_though_every_checksum_of_the_file_is_right(tmp_path, capfd, depth):
    image, path = noise(SIZE, depth), tmp_path / "film.png"
    rows = stream_of(image, (2,))
    packed = zlib.compress(rows)
    turned = bytearray(packed)
    turned[len(packed) // 2] ^= 16
    broken = {
        "a bit turned": bytes(turned),
        "its own checksum wrong": packed[:-1] + bytes([packed[-1] ^ 1]),
        "cut off": packed[: len(packed) // 2],
        "without its checksum": packed[:-4],
        "empty": b"",
        "no deflate stream": rows,
        "a row too few": zlib.compress(rows[: -len(rows) // len(image)]),
        "a byte too few": zlib.compress(rows[:-1]),
        "a byte too many": zlib.compress(rows + b"\0"),
        "a row too many": zlib.compress(rows + rows[: len(rows) // len(image)]),
        "a hundred times too many": zlib.compress(rows * 100),
    }
    for name, stream in broken.items():
        path.write_bytes(file_of(header(image), stream))
        with pytest.raises(UserError, match=r"film\.png: is damaged \(its pixels"):
            pytest.fail(f"{name}: {read_image(path).shape}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((30_000, 30_000), "is damaged"), ((2**31 - 1, 2**31 - 1), ""), ((0, 1100), ""), ((9, 0), "")],
    ids=str,
)
def test_a_size_that_is_not_there_takes_no_memory(tmp_path, shape, reason):
    path = tmp_path / "film.png"
    stream = zlib.compress(stream_of(noise(SIZE, 16)))
    path.write_bytes(file_of(struct.pack(">IIBBBBB", *shape[::-1], 16, 0, 0, 0, 0), stream))
    with pytest.raises(UserError, match=rf"film\.png: {reason}"):
        read_image(path)
    assert memory_of(lambda: refused(path)) < 3e6


def test_a_bomb_takes_no_memory(tmp_path):
    """A stream of far more zeros than the header says is dropped when the image is full."""
    image, path = noise(SIZE, 16), tmp_path / "film.png"
    bomb = zlib.compress(stream_of(image) + bytes(10**8), 9)
    path.write_bytes(file_of(header(image), bomb, cut=10**9))
    with pytest.raises(UserError, match="do not fill its size"):
        read_image(path)
    assert memory_of(lambda: refused(path)) < 3e6


def test_reading_takes_little_memory_beside_file_and_image(tmp_path):
    image, path = noise((2000, 2000), 16), tmp_path / "film.png"
    write_png(path, image)
    peak = memory_of(lambda: read_image(path))
    assert peak < path.stat().st_size + 1.3 * image.nbytes
