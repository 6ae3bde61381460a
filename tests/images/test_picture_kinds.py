"""Pictures that say how they are to be seen: turned, white as 0, several pages, another white."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from images.files import read_image
from pipeline.errors import UserError

GREY_16 = np.random.default_rng(4).integers(0, 65536, (60, 40)).astype(np.uint16)
# Smooth, as JPEG keeps it, and no two corners alike.
SMOOTH = (np.linspace(0, 200, 60)[:, None] + np.linspace(0, 55, 40)).astype(np.uint8)
LONG = 4  # type of all tags
TURNS = {3: 2, 6: 1, 8: 3}  # EXIF orientation -> quarters, counter-clockwise, that it undoes


def write_tiff(path, pages, order="<", big=False):
    """Write uncompressed grey pages, (image, further tags) each, as TIFF or BigTIFF."""
    counted, entry, place = ("Q", "HHQI4x", "Q") if big else ("H", "HHII", "I")
    content = b"II" if order == "<" else b"MM"
    content += struct.pack(f"{order}3HQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    for number, (image, more) in enumerate(pages):
        pixels = image.astype(image.dtype.newbyteorder(order)).tobytes()
        tags = {256: image.shape[1], 257: image.shape[0], 258: 8 * image.itemsize, 259: 1, 262: 1,
                273: 0, 277: 1, 278: image.shape[0], 279: len(pixels), **more}  # fmt: skip
        sizes = map(struct.calcsize, (order + counted, order + place))
        after = len(content) + sum(sizes) + len(tags) * struct.calcsize(order + entry)
        tags[273] = after
        content += struct.pack(order + counted, len(tags))
        for tag, value in sorted(tags.items()):
            content += struct.pack(order + entry, tag, LONG, 1, value)
        last = number == len(pages) - 1
        content += struct.pack(order + place, 0 if last else after + len(pixels)) + pixels
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(("orientation", "quarters"), TURNS.items())
def test_a_picture_is_turned_as_exif_says(tmp_path, suffix, orientation, quarters):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"film{suffix}"
    Image.fromarray(np.rot90(SMOOTH, quarters).copy()).save(path, exif=exif)
    image = read_image(path)
    assert image.shape == SMOOTH.shape
    assert np.abs(image / 257 - SMOOTH).max() < 8


@pytest.mark.parametrize("white", [100, 1023, 4095])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_white_of_a_pgm_becomes_white(tmp_path, white, text, samples):
    stored = GREY_16 % (white + 1)
    stored[0, :2] = 0, white
    values = np.repeat(stored.ravel(), samples)
    kind = {1: (b"P5", b"P2"), 3: (b"P6", b"P3")}[samples][text]
    path = tmp_path / "film.pgm"
    content = values.astype(">u2" if white > 255 else np.uint8).tobytes()
    if text:
        content = b" ".join(b"%d" % value for value in values)
    path.write_bytes(kind + b" # drawn\n40\n# upright\n60 %d\n" % white + content)
    image = read_image(path)
    assert (image[0, 0], image[0, 1]) == (0, 65535)
    # OpenCV rounds text of 8 bits to 8 bits.
    assert np.abs(image - stored / white * 65535).max() <= (514 if white < 256 else 0.5)


def test_a_pgm_with_values_above_its_white_is_refused(tmp_path):
    path = tmp_path / "film.pgm"
    path.write_bytes(b"P5\n40 60\n4095\n" + (GREY_16 >> 4).astype("<u2").tobytes())
    with pytest.raises(UserError, match="above the 4,095 that its header calls white"):
        read_image(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("image", [GREY_16, SMOOTH], ids=["16 bits", "8 bits"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_black_and_white_of_a_tiff(tmp_path, order, big, image, photometric):
    white = np.iinfo(image.dtype).max
    stored = image if photometric else white - image
    path = write_tiff(tmp_path / "film.tif", [(stored, {262: photometric})], order, big)
    np.testing.assert_array_equal(read_image(path), image * np.uint16(65535 // white))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("mark", [{254: 1}, {254: 4}, {255: 2}], ids=["small", "mask", "old"])
@pytest.mark.parametrize("first", [False, True])
def test_of_small_copies_and_masks_the_film_is_told(tmp_path, order, big, mark, first):
    pages = [(GREY_16, {}), (GREY_16[::4, ::4].copy(), mark)]
    path = write_tiff(tmp_path / "film.tif", pages[::-1] if first else pages, order, big)
    np.testing.assert_array_equal(read_image(path), GREY_16)


def test_a_tiff_of_several_pages_is_refused(tmp_path):
    path = write_tiff(tmp_path / "film.tif", [(GREY_16, {}), (GREY_16, {}), (SMOOTH, {})])
    with pytest.raises(UserError, match="holds 3 pages; only single images are read"):
        read_image(path)


def test_random_damage_of_a_tiff_is_told_and_never_a_traceback(tmp_path):
    path = write_tiff(tmp_path / "film.tif", [(GREY_16[::4, ::4].copy(), {254: 1}), (GREY_16, {})])
    content, dice, refused = path.read_bytes(), np.random.default_rng(5), 0
    places = [*range(130), *range(len(content) - 5000, len(content) - 4800)]
    for _ in range(300):
        damaged = bytearray(content)
        for place in dice.choice(places, 3):
            damaged[place] = dice.integers(256)
        path.write_bytes(damaged[: dice.choice([len(content), 200, 700])])
        try:
            read_image(path)
        except UserError:
            refused += 1
    assert refused > 100


def test_a_tiff_whose_pages_lead_back_to_the_first_is_read(tmp_path):
    path = write_tiff(tmp_path / "film.tif", [(GREY_16, {})])
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 8 + 2 + 9 * 12, 8)
    path.write_bytes(content)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == GREY_16.shape
    np.testing.assert_array_equal(read_image(path), GREY_16)
