"""The square that a network takes, and the way back."""

import numpy as np
import pytest

from images.square import fit_square, unfit_square


@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (33, 80), (128, 128), (20, 31)])
def test_a_map_comes_back_to_where_the_image_was(shape):
    film = np.zeros(shape, np.uint16)
    top, left = shape[0] // 4, shape[1] // 2
    film[top : top + shape[0] // 4, left : left + shape[1] // 4] = 65535
    back = unfit_square(fit_square(film, 64), shape)
    assert back.shape == shape
    assert np.abs(back / 255 - film / 65535).mean() < 0.03
    inside = np.argwhere(back > 127).mean(axis=0)
    np.testing.assert_allclose(inside, np.argwhere(film).mean(axis=0), atol=0.6)


def test_padding_is_left_out():
    square = np.full((10, 10), 7, np.uint8)
    square[:, 3:7] = 200
    assert (unfit_square(square, (20, 8)) == 200).all()


def test_an_image_of_the_right_size_comes_back_pixel_for_pixel():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    assert np.array_equal(fit_square(image.astype(np.uint16) * 257, 8), image)


def test_aspect_is_kept_and_the_rest_is_black():
    square = fit_square(np.full((40, 20), 65535, np.uint16), 8)
    assert square.tolist() == [[0, 0, 255, 255, 255, 255, 0, 0]] * 8


def test_shrinking_averages_over_area():
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 65535).astype(np.uint16)
    assert set(np.unique(fit_square(board, 4))) <= {127, 128}


def test_small_images_are_enlarged():
    assert (fit_square(np.full((3, 3), 514, np.uint16), 9) == 2).all()
