import numpy as np

from images.square import fit_square


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
