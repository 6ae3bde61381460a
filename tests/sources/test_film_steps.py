import cv2
import numpy as np
import pytest

from sources.film_frame import CENTRE, LEFT, RIGHT
from sources.film_steps import (
    blur,
    chest_wall_side,
    clahe,
    reduce_by_area,
    remove_annotations,
    resize_and_pad,
    to_uint8,
)


def texture(shape, seed=0):
    """Smooth 16-bit noise, as uneven as tissue."""
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * 50000 + 4000).astype(np.uint16)


def test_remove_annotations_is_0_outside_and_untouched_inside():
    image = texture((20, 30))
    mask = np.zeros((20, 30), bool)
    mask[:, :12] = True
    result = remove_annotations(image, mask)
    assert result.dtype == np.uint16
    assert np.array_equal(result[:, :12], image[:, :12])
    assert result[:, 12:].max() == 0


def test_reduce_by_area_is_the_mean_of_whole_blocks():
    image = np.arange(6 * 7, dtype=np.uint16).reshape(6, 7) * 100
    result = reduce_by_area(image, 3)
    blocks = image[:, :6].reshape(2, 3, 2, 3).mean(axis=(1, 3))
    assert result.tolist() == np.rint(blocks).astype(int).tolist()
    assert reduce_by_area(image, 1) is image


def test_chest_wall_is_where_the_film_is_bright():
    image = np.zeros((10, 30), np.uint16)
    image[2:8, :14] = 30000
    assert chest_wall_side(image) == LEFT
    assert chest_wall_side(image[:, ::-1]) == RIGHT


@pytest.mark.parametrize(
    ("shape", "place", "rows", "columns"),
    [
        ((40, 20), LEFT, (0, 20), (0, 10)),
        ((40, 20), RIGHT, (0, 20), (10, 20)),
        ((40, 20), CENTRE, (0, 20), (5, 15)),
        ((20, 40), RIGHT, (0, 10), (0, 20)),
        ((20, 40), CENTRE, (5, 15), (0, 20)),
        ((10, 5), LEFT, (0, 20), (0, 10)),
    ],
)
def test_resize_and_pad_keeps_the_aspect_ratio_at_its_place(shape, place, rows, columns):
    result, scale = resize_and_pad(np.full(shape, 500, np.uint16), 20, place)
    expected = np.zeros((20, 20), np.uint16)
    expected[slice(*rows), slice(*columns)] = 500
    assert np.array_equal(result, expected)
    assert scale == 20 / max(shape)


def test_blur_of_one_pixel_is_the_gaussian_of_16_bits():
    image = np.zeros((7, 7), np.uint16)
    image[3, 3] = 60000
    result = blur(image, 3)
    assert result[2:5, 2:5].tolist() == [
        [3750, 7500, 3750],
        [7500, 15000, 7500],
        [3750, 7500, 3750],
    ]
    assert result.sum() == 60000
    assert np.array_equal(blur(np.full((9, 9), 777, np.uint16), 5), np.full((9, 9), 777))


@pytest.mark.parametrize("clip", [1.0, 2.0, 4.0])
def test_clahe_of_16_bits_is_opencvs_of_8_bits_within_rounding(clip):
    image = texture((512, 512))  # tiles of 16,384 pixels: OpenCV's counts are whole numbers
    eight = cv2.createCLAHE(clip, (4, 4)).apply(to_uint8(image)).astype(int)
    sixteen = clahe(image, np.ones(image.shape, bool), clip, 4)
    assert np.abs(to_uint8(sixteen) - eight).max() <= 2 + clip
    assert np.unique(sixteen).size > 1000


def test_clahe_leaves_the_background_black_and_ignores_it():
    image = texture((128, 128))
    mask = np.zeros(image.shape, bool)
    mask[20:110, :70] = True
    result = clahe(image, mask, 2.0, 4)
    assert result[~mask].max() == 0
    other = np.where(mask, image, 65535).astype(np.uint16)
    assert np.array_equal(clahe(other, mask, 2.0, 4), result)


def test_clahe_raises_contrast_with_its_limit():
    image = (texture((128, 128)) // 8 + 20000).astype(np.uint16)
    spreads = [clahe(image, np.ones(image.shape, bool), clip, 4).std() for clip in (1, 2, 4, 8)]
    assert spreads == sorted(spreads)
    assert spreads[-1] > 2 * image.std()


@pytest.mark.parametrize("tiles", [1, 7, 64])
def test_clahe_takes_any_number_of_tiles_and_an_empty_mask(tiles):
    image = texture((64, 64))
    assert clahe(image, np.ones(image.shape, bool), 2.0, tiles).std() > 0
    assert clahe(image, np.zeros(image.shape, bool), 2.0, tiles).max() == 0


def test_to_uint8_is_the_inverse_of_257_and_rounds():
    grey = np.arange(256, dtype=np.uint16)[None]
    assert np.array_equal(to_uint8(grey * 257), grey)
    assert to_uint8(np.array([[128, 129, 65535]], np.uint16)).tolist() == [[0, 1, 255]]
