"""Image files in and out: grey at the full 16-bit range; PNG that every decoder reads."""

import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from images.files import read_image, write_png
from pipeline.errors import UserError

GREY_16 = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(60, 40)
GREY_8 = (GREY_16 >> 8).astype(np.uint8)
DEPTHS = {"1 bit": np.bool_, "8 bits": np.uint8, "16 bits": np.uint16}
SHAPES = [(1, 1), (1, 37), (37, 1), (5, 8), (33, 7), (64, 129), (3, 40_001), (700, 601)]


def datasets():
    """Load torchvision after models.networks, which does so without torch's compiler."""
    import torchvision.datasets

    return torchvision.datasets


def save(path, image, *settings):
    _, content = cv2.imencode(path.suffix, image, settings)
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_kept(tmp_path, suffix):
    image = read_image(save(tmp_path / f"film{suffix}", GREY_16))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, GREY_16)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".pgm"])
def test_8_bits_span_the_full_range(tmp_path, suffix):
    image = read_image(save(tmp_path / f"film{suffix}", GREY_8))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, GREY_8.astype(np.uint16) * 257)
    assert image.max() == 65535


def test_jpeg_is_near_what_was_written(tmp_path):
    image = read_image(save(tmp_path / "film.JPG", GREY_8, cv2.IMWRITE_JPEG_QUALITY, 95))
    assert image.shape == (60, 40)
    assert np.abs(image / 257 - GREY_8).max() < 8


@pytest.mark.parametrize(("depth", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_colour_becomes_luma(tmp_path, depth, white):
    blue, green, red = (np.zeros((4, 4, 3), depth) for _ in range(3))
    for channel, image in enumerate((blue, green, red)):
        image[:, :, channel] = white
    weights = [
        read_image(save(tmp_path / f"{name}.png", image))[0, 0] / 65535
        for name, image in (("r", red), ("g", green), ("b", blue))
    ]
    assert weights == pytest.approx([0.299, 0.587, 0.114], abs=0.002)  # ITU-R BT.601


def test_alpha_is_dropped(tmp_path):
    grey = np.dstack([GREY_8] * 3 + [np.full_like(GREY_8, 10)])
    image = read_image(save(tmp_path / "film.png", grey))
    np.testing.assert_array_equal(image, GREY_8.astype(np.uint16) * 257)


def test_a_path_outside_ascii(tmp_path):
    path = tmp_path / "Größe 写真" / "мама.png"
    write_png(path, GREY_16)
    np.testing.assert_array_equal(read_image(path), GREY_16)


@pytest.mark.parametrize("name", ["film.dcm", "film", "000001"])
def test_dicom_is_known_by_suffix_or_content(tmp_path, name):
    source = get_testdata_file("MR_small.dcm")
    path = tmp_path / name
    shutil.copyfile(source, path)
    expected = pydicom.dcmread(source).pixel_array.astype(np.int64) + 32768
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".pgm"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, capfd, suffix, share):
    path = save(tmp_path / f"film{suffix}", GREY_8)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"film\{suffix}: (is truncated|cannot be decoded)"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_jpeg_that_lacks_its_last_bytes_is_refused(tmp_path):
    path = save(tmp_path / "film.jpg", GREY_8)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"no image\n" * 40, "not an image")]
)
def test_what_is_no_image_is_refused(tmp_path, content, reason):
    path = tmp_path / "film.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_image(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"film\.png: no such file"):
        read_image(tmp_path / "film.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


def test_float_pixels_are_refused(tmp_path):
    path = save(tmp_path / "film.tif", GREY_16.astype(np.float32))
    with pytest.raises(UserError, match="float32 pixels"):
        read_image(path)


def noise(shape, depth):
    """Pixels of every value that the depth has, (H, W)."""
    values = np.random.default_rng(9).integers(0, 65536, shape).astype(np.uint16)
    return {np.bool_: values > 32767, np.uint8: (values >> 8).astype(np.uint8)}.get(depth, values)


@pytest.mark.parametrize("depth", DEPTHS.values(), ids=DEPTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_opencv_and_pillow_read_what_was_written(tmp_path, shape, depth):
    image, path = noise(shape, depth), tmp_path / "film.png"
    write_png(path, image)
    white = {np.bool_: 65535, np.uint8: 257, np.uint16: 1}[depth]
    np.testing.assert_array_equal(read_image(path), image * np.uint16(white))
    decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert decoded.dtype == (np.uint16 if depth == np.uint16 else np.uint8)
    np.testing.assert_array_equal(decoded, image * np.uint8(255) if depth == np.bool_ else image)
    with Image.open(path) as opened:
        assert opened.mode == {np.bool_: "1", np.uint8: "L", np.uint16: "I;16"}[depth]
        np.testing.assert_array_equal(np.asarray(opened), image)


@pytest.mark.parametrize("depth", [np.bool_, np.uint8], ids=["1 bit", "8 bits"])
def test_imagefolder_reads_what_was_written(tmp_path, depth):
    images = [noise(shape, depth) for shape in SHAPES]
    for number, image in enumerate(images):
        write_png(tmp_path / "benign" / f"{number}.png", image)
    folder = datasets().ImageFolder(tmp_path)
    for (picture, label), image in zip(folder, images, strict=True):
        assert label == 0
        grey = image * np.uint8(255) if depth == np.bool_ else image
        np.testing.assert_array_equal(np.asarray(picture), np.dstack([grey] * 3))


def test_imagefolder_reads_16_bits_with_the_loader_of_the_readme(tmp_path):
    write_png(tmp_path / "benign" / "film.png", GREY_16)
    folder = datasets().ImageFolder(
        tmp_path,
        loader=lambda path: Image.fromarray((np.asarray(Image.open(path)) // 257).astype("uint8")),
    )
    np.testing.assert_array_equal(np.asarray(folder[0][0]), GREY_16 // 257)


@pytest.mark.parametrize("depth", DEPTHS.values(), ids=DEPTHS)
def test_the_bytes_of_a_png_are_the_same_each_time(tmp_path, depth):
    image = noise((700, 601), depth)
    write_png(tmp_path / "a" / "film.png", image)
    write_png(tmp_path / "b.png", np.asfortranarray(image))
    assert (tmp_path / "a" / "film.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_writing_takes_less_memory_than_the_image(tmp_path):
    image = noise((2000, 2000), np.uint16)
    tracemalloc.start()
    try:
        write_png(tmp_path / "film.png", image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < image.nbytes / 2


def test_every_damaged_byte_of_a_png_is_told_without_a_line_of_the_decoder(tmp_path, capfd):
    path = tmp_path / "film.png"
    write_png(path, GREY_16)
    content = path.read_bytes()
    for position in range(8, len(content), 53):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"film\.png: is (damaged|truncated)"):
            read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)]
)
def test_writing_anything_else_is_a_programming_error(tmp_path, image):
    with pytest.raises(ValueError, match="must be"):
        write_png(tmp_path / "film.png", image)


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"film\.png: cannot be written"):
        write_png(tmp_path / "out" / "film.png", GREY_8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of file size are POSIX")
def test_a_write_that_does_not_fit_leaves_nothing(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=r"film\.png: cannot be written"):
            write_png(tmp_path / "film.png", GREY_16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
