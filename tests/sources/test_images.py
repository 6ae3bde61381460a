import os
import shutil
import sys

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pipeline.errors import UserError
from sources.images import read_image, write_png

GREY_16 = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(60, 40)
GREY_8 = (GREY_16 >> 8).astype(np.uint8)


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says that access is denied")
def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


def test_float_pixels_are_refused(tmp_path):
    path = save(tmp_path / "film.tif", GREY_16.astype(np.float32))
    with pytest.raises(UserError, match="float32 pixels"):
        read_image(path)


@pytest.mark.parametrize("image", [GREY_8, GREY_16], ids=["8 bits", "16 bits"])
def test_png_keeps_depth_and_values_and_its_bytes_are_the_same_each_time(tmp_path, image):
    write_png(tmp_path / "a" / "film.png", image)
    write_png(tmp_path / "b.png", np.asfortranarray(image))
    content = (tmp_path / "a" / "film.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)


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
