"""Crop and annotation removal on films unlike those of the synthetic collection."""

import numpy as np
import pytest

from images.borders import find_border_box
from images.breast import breast_mask
from tests.images.drawn.film_cases import TRAITS, draw, plan_cases


@pytest.mark.parametrize("trait", TRAITS)
def test_no_breast_is_cut_and_no_mark_survives(trait):
    for case in plan_cases(trait):
        film = draw(case)
        box = find_border_box(film.pixels)
        inside = np.zeros(film.breast.shape, bool)
        kept = inside.copy()
        box.of(inside)[:] = True
        box.of(kept)[:] = breast_mask(box.of(film.pixels))
        marks, size = film.marks > 0, film.breast.sum()
        assert (film.breast & ~inside).sum() < 0.02 * size
        assert (film.breast & inside & ~kept).sum() < 0.01 * size
        # Of what overlaps the breast's edge, a little may stay rather than breast go.
        assert (marks & kept).sum() <= (0.1 if "touching" in trait else 0.002) * marks.sum()
        assert (film.border & kept).mean() < 0.005
