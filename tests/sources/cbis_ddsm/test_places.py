"""Where patches are cut, on drawn films whose breast and lesions are known."""

import numpy as np
import pytest

from images.frame import Box
from sources.cbis_ddsm.patches import patch_side
from sources.cbis_ddsm.places import Tissue, film_box, lesion_box

HEIGHT, WIDTH, SIDE = 400, 240, 64
WHOLE = Box(0, 0, WIDTH, HEIGHT)


def film():
    """A breast on the left of a dark film, brighter in its lower half."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    inside = ((y - HEIGHT / 2) / 180) ** 2 + (x / 190) ** 2 < 1
    grey = np.where(inside, 0.35 + 0.2 * (y > HEIGHT / 2), 0.04)
    grey = grey + 0.01 * random.standard_normal(grey.shape)
    return (np.clip(grey, 0, 1) * 65535).astype(np.uint16), inside


def spot(y, x, radius=12):
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_a_lesion_lies_in_the_middle_and_at_the_edge_as_far_as_the_film_goes():
    assert lesion_box(spot(200, 100), SIDE, WHOLE) == Box(100 - 32, 200 - 32, SIDE, SIDE)
    assert lesion_box(spot(20, 15), SIDE, WHOLE) == Box(0, 0, SIDE, SIDE)
    assert lesion_box(spot(390, 230, 8), SIDE, WHOLE) == Box(WIDTH - 64, HEIGHT - 64, SIDE, SIDE)


def test_a_patch_keeps_off_the_border_unless_the_lesion_lies_there():
    without = Box(10, 20, WIDTH - 20, HEIGHT - 40)
    assert lesion_box(spot(45, 30), SIDE, without) == Box(10, 20, SIDE, SIDE)
    assert lesion_box(spot(12, 30), SIDE, without) == Box(0, 0, SIDE, SIDE)


def test_of_a_lesion_larger_than_the_patch_a_part_in_its_middle_is_shown():
    mask = spot(200, 120, 70)
    assert lesion_box(mask, SIDE, WHOLE) == Box(120 - 32, 200 - 32, SIDE, SIDE)
    ring = mask & ~spot(200, 120, 60)  # nothing of it lies in its middle
    assert lesion_box(ring, SIDE, WHOLE).of(ring).any()


def test_a_film_that_is_only_a_little_larger_than_a_patch_keeps_its_borders():
    image, _ = film()
    image[:, -30:] = 65535
    assert film_box(image, SIDE).width <= WIDTH - 30
    assert film_box(image, WIDTH) == WHOLE


@pytest.mark.parametrize("at", [(200, 60), (120, 100), (290, 90), (200, 150)])
def test_normal_tissue_is_clear_of_lesions_and_like_the_lesions_patch(at):
    image, inside = film()
    masks = [spot(*at), spot(330, 40)]
    box = lesion_box(masks[0], SIDE, WHOLE)
    tissue = Tissue.of(image, masks, SIDE, WHOLE)
    around = max(0, at[0] - 32), max(0, at[1] - 32)
    for seed in range(5):
        found = tissue.normal_box(box, [], seed, "film")
        wide = Box(max(0, found.x - 8), max(0, found.y - 8), SIDE + 16, SIDE + 16)
        assert not any(wide.of(mask).any() for mask in masks)
        assert found.of(inside).mean() == pytest.approx(box.of(inside).mean(), abs=0.15)
        assert found.of(inside)[SIDE // 2, SIDE // 2]
        assert (found.y, found.x) != around


def test_normal_tissue_is_taken_where_it_is_as_grey_as_around_the_lesion():
    image, _ = film()
    for y, low in ((110, False), (290, True)):
        mask = spot(y, 60)
        tissue = Tissue.of(image, [mask], SIDE, WHOLE)
        box = lesion_box(mask, SIDE, WHOLE)
        found = [tissue.normal_box(box, [], seed, "film") for seed in range(5)]
        assert all((one.y + SIDE / 2 > HEIGHT / 2) == low for one in found)


def test_a_draw_depends_on_seed_and_name_alone_and_two_overlap_by_half_at_most():
    image, _ = film()
    mask = spot(200, 60)
    box = lesion_box(mask, SIDE, WHOLE)
    tissue = Tissue.of(image, [mask], SIDE, WHOLE)
    first = tissue.normal_box(box, [], 1, "film")
    assert first == Tissue.of(image, [mask], SIDE, WHOLE).normal_box(box, [], 1, "film")
    assert {first} < {tissue.normal_box(box, [], seed, "film") for seed in range(20)}
    second = tissue.normal_box(box, [first], 1, "film")
    assert max(abs(second.x - first.x), abs(second.y - first.y)) >= SIDE / 2


def test_where_lesions_leave_no_room_there_is_none():
    image, _ = film()
    mask = spot(200, 60, 130)
    tissue = Tissue.of(image, [mask], SIDE, WHOLE)
    assert tissue.normal_box(lesion_box(mask, SIDE, WHOLE), [], 1, "film") is None
    empty = Tissue.of(np.zeros_like(image), [spot(200, 60)], SIDE, WHOLE)  # no breast is found
    assert empty.normal_box(Box(28, 168, SIDE, SIDE), [], 1, "film") is None


@pytest.mark.parametrize(
    ("heights", "side"),
    [([5000], 1024), ([3700, 7100, 5400], 1024), ([640, 640], 128), ([256], 64), ([], 0)],
)
def test_the_side_follows_the_films(heights, side):
    assert patch_side([(high, high // 2) for high in heights]) == side
