"""The pictures: truth masks, independence of what is around the lesion, reproducibility."""

import dataclasses

import cv2
import numpy as np
import pytest

from sources.synthetic.films import render_film
from sources.synthetic.lesions import draw_lesion
from sources.synthetic.plan import CALC, MASS, FilmPlan, Lesion, plan_collection

HEIGHT = 400


def lesion(finding=MASS, spiculated=True, number=1, **changes):
    values = {
        "finding": finding, "number": number, "assessment": 4, "subtlety": 5,
        "pathology": "MALIGNANT" if spiculated else "BENIGN",
        "shape": "IRREGULAR" if spiculated else "OVAL",
        "margins": "SPICULATED" if spiculated else "CIRCUMSCRIBED",
        "spiculated": spiculated, "radius": 0.06,
    }  # fmt: skip
    return Lesion(**(values | changes))


def film(*lesions, patient="P_00001", side="LEFT", view="CC", density=2):
    return FilmPlan(
        patient_id=patient, laterality=side, view=view, density=density,
        lesions=lesions, splits={MASS: "train"},
    )  # fmt: skip


def test_the_same_plan_and_seed_give_the_same_pixels_and_another_seed_does_not():
    plan = film(lesion())
    first, again, other = (render_film(plan, HEIGHT, seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_everything_but_the_lesion_is_the_same_for_either_pathology():
    benign = render_film(film(lesion(spiculated=False)), HEIGHT, 5)
    malignant = render_film(film(lesion(spiculated=True)), HEIGHT, 5)
    assert np.array_equal(benign.border, malignant.border)
    assert np.array_equal(benign.marks, malignant.marks)
    assert np.array_equal(benign.breast, malignant.breast)
    different = benign.pixels != malignant.pixels
    assert different.any()
    near = cv2.dilate(benign.breast, np.ones((5, 5), np.uint8))
    assert not different[near == 0].any()


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("side", ["LEFT", "RIGHT"])
def test_the_chest_wall_is_on_the_side_of_the_breast(side, view):
    breast = render_film(film(lesion(), side=side, view=view), HEIGHT, 3).breast
    half = breast.shape[1] // 2
    left, right = breast[:, :half].sum(), breast[:, half:].sum()
    assert (left > right) == (side == "LEFT")


@pytest.mark.parametrize("number", range(6))
def test_truth_masks_do_not_overlap_and_lesions_lie_in_the_breast(number):
    plan = film(lesion(), lesion(CALC), patient=f"P_{number:05d}", view=("CC", "MLO")[number % 2])
    made = render_film(plan, HEIGHT, 3)
    assert made.pixels.dtype == np.uint16
    assert {mask.shape for mask in (made.breast, made.marks, made.border, *made.lesions)} == {
        made.pixels.shape
    }
    assert not (made.breast & made.marks).any()
    assert not (made.border & (made.breast | made.marks)).any()
    for mask in made.lesions:
        assert mask.any()
        assert mask[made.breast == 0].sum() <= 0.02 * mask.sum()


def test_marks_are_brighter_than_the_background_which_is_never_black():
    made = render_film(film(lesion()), HEIGHT, 3)
    background = (made.breast | made.marks | made.border) == 0
    assert made.pixels[background].min() > 0
    assert made.pixels[made.marks > 0].mean() > 2 * made.pixels[background].mean()


@pytest.fixture(scope="module")
def drawn_masses():
    """All masses of a plan, drawn at one size and contrast: spiculated -> drawings."""
    films = plan_collection(3, 120)
    masses = [one for film in films for one in film.lesions if one.finding == MASS]
    drawn = {True: [], False: []}
    for number, one in enumerate(masses):
        same = dataclasses.replace(one, subtlety=5)
        drawn[one.spiculated].append(draw_lesion(same, 20, np.random.default_rng(number)))
    return drawn


def test_outlines_and_so_crops_are_as_large_for_either_pathology(drawn_masses):
    sides = [
        np.mean([max(np.ptp(axis) for axis in np.nonzero(one.mask)) for one in drawn])
        for drawn in drawn_masses.values()
    ]
    assert sides[0] == pytest.approx(sides[1], rel=0.06)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_grey_values_are_distributed_alike_for_either_pathology(drawn_masses, power):
    moments = [
        np.mean([np.sum(one.added**power) for one in drawn]) for drawn in drawn_masses.values()
    ]
    assert moments[0] == pytest.approx(moments[1], rel=0.08)


def test_an_obvious_mass_stands_out_more_than_a_subtle_one():
    def contrast(subtlety):
        plan = film(lesion(spiculated=False, subtlety=subtlety), density=1)
        made = render_film(plan, HEIGHT, 3)
        inside = made.lesions[0] > 0
        return made.pixels[inside].mean() - made.pixels[made.breast > 0].mean()

    assert contrast(5) > 1.2 * contrast(1)


def test_denser_breasts_are_brighter():
    means = []
    for density in (1, 4):
        films = [
            render_film(film(lesion(), patient=f"P_{n:05d}", density=density), HEIGHT, 3)
            for n in range(3)
        ]
        means.append(np.mean([made.pixels[made.breast > 0].mean() for made in films]))
    assert means[1] > 1.05 * means[0]


@pytest.mark.parametrize("shape", ["COARSE", "LUCENT_CENTER", "PLEOMORPHIC"])
@pytest.mark.parametrize("margins", ["LINEAR", "DIFFUSELY_SCATTERED", "N/A"])
def test_calcifications_of_every_kind_are_drawn_inside_their_outline(shape, margins):
    one = lesion(CALC, spiculated=shape == "PLEOMORPHIC", shape=shape, margins=margins)
    with_it = render_film(film(one), HEIGHT, 3)
    faint = render_film(film(dataclasses.replace(one, subtlety=1)), HEIGHT, 3)
    changed = with_it.pixels.astype(int) - faint.pixels > 600
    assert changed.any()
    assert (changed & (with_it.lesions[0] > 0)).sum() >= 0.95 * changed.sum()


def test_a_real_size_film_has_grain_and_its_masks_fit():
    made = render_film(film(lesion(), view="MLO"), 3000, 3)
    assert made.pixels.shape[0] > 1900
    rows, columns = (int(np.median(axis)) for axis in np.nonzero(made.breast))
    patch = made.pixels[rows : rows + 40, columns : columns + 40].astype(np.int32)
    assert np.abs(np.diff(patch, axis=1)).mean() > 100
    assert made.lesions[0].shape == made.pixels.shape
