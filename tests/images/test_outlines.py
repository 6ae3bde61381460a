"""Outlines of lesions: where they run, and that they show on any tissue."""

import numpy as np
import pytest

from images.outlines import draw_outlines, outlines_of


def rectangle(top, left, bottom, right, shape=(40, 60)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_outline_runs_through_the_centres_of_the_outermost_pixels():
    (points,) = outlines_of(rectangle(10, 20, 15, 40))
    assert sorted(map(tuple, points)) == [(20.5, 10.5), (20.5, 14.5), (39.5, 10.5), (39.5, 14.5)]


def test_every_part_of_a_mask_has_its_outline_and_holes_have_none():
    mask = rectangle(5, 5, 20, 20) | rectangle(30, 30, 35, 50)
    mask[10:15, 10:15] = False
    assert len(outlines_of(mask)) == 2
    assert outlines_of(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize("tissue", [0, 128, 255])
def test_line_is_bright_beside_dark_whatever_the_tissue(tissue):
    image = np.full((40, 60), tissue, np.uint8)
    drawn = draw_outlines(image, outlines_of(rectangle(10, 20, 31, 41)))
    assert drawn.shape == (40, 60, 3)
    blue, green, red = drawn[20, 20]
    assert blue < 32
    assert min(green, red) > 160
    assert drawn[20, (19, 21)].max() < 96
    assert (drawn[20, 24:37] == tissue).all()  # the lesion itself stays as it is
    assert (image == tissue).all()


def test_colours_stay_under_an_outline():
    image = np.full((40, 60, 3), (200, 10, 10), np.uint8)
    drawn = draw_outlines(image, outlines_of(rectangle(10, 20, 31, 41)))
    assert tuple(drawn[0, 0]) == (200, 10, 10)
    assert drawn[20, 20, 2] > 160
