"""Crop and annotation removal where border, bare film or tape touches the breast."""

import numpy as np
import pytest

from images.borders import find_border_box
from images.breast import breast_mask
from tests.images.drawn.attached_films import KINDS, draw_attached, plan_attached

FILMS = 6  # of a kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_touches_the_breast_goes_without_it(kind):
    lost, border_left, marks_left = [], [], []
    for seed in range(FILMS):
        film = draw_attached(plan_attached(kind, seed))
        box = find_border_box(film.pixels)
        kept = np.zeros(film.breast.shape, bool)
        box.of(kept)[:] = breast_mask(box.of(film.pixels))
        marks = film.marks > 0
        lost.append((film.breast & ~kept).sum() / film.breast.sum())
        border_left.append((film.border & kept).sum() / max(1, film.border.sum()))
        marks_left.append((marks & kept).sum() / max(1, marks.sum()))
    assert np.mean(lost) <= 0.005
    assert max(lost) <= 0.02
    assert max(border_left) <= 0.02
    assert max(marks_left) <= 0.05
