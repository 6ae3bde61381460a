"""The steps of preprocessing: exact pixels, at the edges of the rows worked on at a time too."""

import tracemalloc

import cv2
import numpy as np
import pytest

from images.frame import CENTRE, LEFT, RIGHT
from images.steps import (
    bilateral,
    blur,
    chest_wall_side,
    clahe,
    flip,
    median,
    reduce_by_area,
    remove_annotations,
    resize_and_pad,
    to_uint8,
)

LONG = (600, 37)  # several times the rows that are worked on at a time


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


@pytest.mark.parametrize("kernel", [3, 5, 7, 31])
@pytest.mark.parametrize("shape", [LONG, (1, 1), (1, 40), (257, 3)])
def test_blur_is_opencvs_of_the_whole_film(shape, kernel):
    image = np.random.default_rng(kernel).integers(0, 65536, shape).astype(np.uint16)
    assert np.array_equal(blur(image, kernel), cv2.GaussianBlur(image, (kernel, kernel), 0))


def test_bilateral_smooths_grain_and_keeps_an_edge():
    grain = np.random.default_rng(5).normal(0, 600, LONG)
    image = np.full(LONG, 20000) + grain
    image[:, 20:] += 15000
    image = image.astype(np.uint16)
    result = bilateral(image, 5)
    assert result.dtype == np.uint16
    assert result.shape == LONG
    for side in (result[:, 2:20], result[:, 20:-2]):
        assert 0 < side.std() < 400
    assert np.abs(result[:, 19] - 20000.0).max() < 2500
    assert np.abs(result[:, 20] - 35000.0).max() < 2500
    assert np.abs(blur(image, 5)[:, 19] - 20000.0).min() > 2500  # a Gaussian does not


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_bilateral_is_that_of_the_whole_film(kernel):
    image = texture(LONG)
    space = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    whole = cv2.bilateralFilter(image.astype(np.float32), kernel, 0.03 * 65535, space)
    assert np.abs(bilateral(image, kernel) - np.rint(whole)).max() <= 1


@pytest.mark.parametrize("kernel", [3, 5])
def test_median_takes_specks_and_keeps_an_edge(kernel):
    image = np.full(LONG, 1000, np.uint16)
    image[:, 20:] = 60000
    specked = image.copy()
    specked[10::40, 5] = 65535
    specked[10::40, 30] = 0
    assert np.array_equal(median(specked, kernel), image)


@pytest.mark.parametrize("kernel", [1, 4, 7])
def test_median_refuses_what_opencv_does_not_take(kernel):
    with pytest.raises(ValueError, match="must be 3 or 5"):
        median(texture((9, 9)), kernel)


def test_flip_mirrors_left_to_right():
    image = texture((5, 8))
    result = flip(image)
    assert np.array_equal(result, image[:, ::-1])
    assert result.dtype == np.uint16
    assert result.flags.c_contiguous
    assert np.array_equal(flip(result), image)


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


def direct_clahe(image, mask, clip, tiles):
    """CLAHE as its docstring says it, pixel by pixel and in float64; (H, W) float."""
    height, width = image.shape
    row, column = (np.arange(side) * tiles // side for side in image.shape)
    area, whole = height * width / tiles**2, np.bincount(image[mask] // 256, minlength=256)
    curves = np.zeros((tiles, tiles, 257))
    for tile in np.ndindex(tiles, tiles):
        inside = mask & (row == tile[0])[:, None] & (column == tile[1])
        counts = np.bincount(image[inside] // 256, minlength=256).astype(float)
        counts += max(area - counts.sum(), 0) * whole / whole.sum()
        cut = np.minimum(counts, clip * area / 256)
        cut += (counts - cut).sum() / 256
        curves[tile][1:] = np.minimum(np.cumsum(cut) / cut.sum(), 1)
    result = np.zeros(image.shape)
    for y, x in np.argwhere(mask):
        down = min(max((y + 0.5) * tiles / height - 0.5, 0), tiles - 1)
        right = min(max((x + 0.5) * tiles / width - 0.5, 0), tiles - 1)
        for i, j in np.ndindex(2, 2):
            weight = (1 - abs(down - int(down) - i)) * (1 - abs(right - int(right) - j))
            tile = min(int(down) + i, tiles - 1), min(int(right) + j, tiles - 1)
            result[y, x] += weight * np.interp(image[y, x] / 256, np.arange(257), curves[tile])
    return result * 65535


@pytest.mark.parametrize(("shape", "tiles"), [(LONG, 1), (LONG, 3), ((90, 70), 8), ((5, 9), 16)])
def test_clahe_is_what_its_text_says(shape, tiles):
    image = texture(shape)
    mask = texture(shape, seed=1) > 25000
    result = clahe(image, mask, 2.0, tiles)
    assert 0.2 < mask.mean() < 0.9
    assert np.abs(result - direct_clahe(image, mask, 2.0, tiles)).max() <= 1


def test_clahe_takes_a_strip_of_any_length():
    image = texture((2, 40_000))
    assert clahe(image, np.ones(image.shape, bool), 2.0, 8)[:, -1].min() > 0


@pytest.mark.parametrize(
    "step",
    [lambda image, mask: clahe(image, mask, 2.0, 8), lambda image, _mask: bilateral(image, 3)],
    ids=["clahe", "bilateral"],
)
def test_a_step_takes_little_memory_beside_its_result(step):
    image = np.tile(texture((256, 1000)), (12, 1))
    mask = np.ones(image.shape, bool)
    tracemalloc.start()
    try:
        step(image, mask)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.nbytes < peak < 2.5 * image.nbytes


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
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_uint8(grey), np.rint(grey / 257))
