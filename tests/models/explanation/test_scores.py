"""Scores of maps beside lesions that are known to the pixel."""

import numpy as np
import pytest

from models.explanation.baselines import blob_in
from models.explanation.chosen import Case
from models.explanation.scores import THRESHOLDS, Judged, ScoredMaps, best_threshold, mean_of

SIZE = 100


def box(rows, columns):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[rows, columns] = True
    return mask


LESION = box(slice(20, 40), slice(50, 70))
BREAST = box(slice(10, 90), slice(30, 100))


def peak(y, x):
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[y, x] = 1
    return heat


@pytest.mark.parametrize(
    ("y", "x", "hit"), [(20, 50, 1), (39, 69, 1), (42, 60, 1), (43, 60, 0), (60, 10, 0)]
)
def test_a_peak_hits_in_the_lesion_and_up_to_three_percent_of_the_side_beside_it(y, x, hit):
    assert Judged.of(peak(y, x), LESION, BREAST).pointing == hit


def test_the_lesion_itself_as_a_map_is_perfect():
    judged = Judged.of(LESION.astype(np.float32), LESION, BREAST)
    assert (judged.pointing, judged.energy) == (1, 1)
    assert judged.iou == (1.0,) * len(THRESHOLDS)


def test_an_empty_map_scores_as_one_that_is_equally_warm():
    empty = Judged.of(np.zeros((SIZE, SIZE), np.float32), LESION, BREAST)
    assert empty == Judged.of(np.ones((SIZE, SIZE), np.float32), LESION, BREAST)
    assert empty.energy == pytest.approx(LESION.mean())
    assert LESION.mean() < empty.pointing < 2 * LESION.mean()


def test_pixel_auc_is_1_of_the_lesion_and_one_half_of_what_is_the_same_everywhere():
    areas = [
        Judged.of(heat, LESION, BREAST).pixel_auc
        for heat in (
            LESION.astype(np.float32),
            np.full((SIZE, SIZE), np.float32(0.3)),
            (~LESION).astype(np.float32),
            # Beside the breast nothing counts, however hot.
            np.where(BREAST, LESION, np.float32(1)).astype(np.float32),
        )
    ]
    assert areas == [1, 0.5, 0, 1]


def test_an_image_without_pixel_auc_is_left_out_of_its_mean():
    filled = Judged.of(LESION.astype(np.float32), LESION, LESION)
    assert filled.pixel_auc is None
    other = Judged.of(LESION.astype(np.float32), LESION, BREAST)
    scored = ScoredMaps.of([filled, other, other], np.ones(3, bool), list("abc"), 0.5)
    found = scored.figures(200, 1)["all"]
    assert found["pixel_auc"]["value"] == found["pointing"]["value"] == 1


def test_half_of_the_heat_in_the_lesion_and_half_of_the_union():
    heat = (LESION | box(slice(20, 40), slice(70, 90))).astype(np.float32)
    judged = Judged.of(heat, LESION, BREAST)
    assert judged.energy == pytest.approx(0.5)
    assert judged.iou[0] == pytest.approx(0.5)


def test_several_maps_of_an_image_count_as_their_mean():
    hit, miss = (Judged.of(peak(y, 60), LESION, BREAST) for y in (30, 80))
    both = Judged.mean([hit, miss])
    assert (both.pointing, both.energy) == (0.5, 0.5)
    assert both.iou[0] == pytest.approx(hit.iou[0] / 2)
    assert both.pixel_auc == pytest.approx((hit.pixel_auc + miss.pixel_auc) / 2)
    outside = Judged.of(peak(30, 60), LESION, LESION)  # a breast of lesions alone
    assert Judged.mean([outside, outside]).pixel_auc is None


def test_the_threshold_is_the_one_that_suits_validation():
    heat = np.where(LESION, np.float32(0.8), np.float32(0.3))
    judged = Judged.of(heat, LESION, BREAST)
    assert 0.3 < best_threshold([judged]) <= 0.8
    assert best_threshold([]) == 0.5


def test_intervals_draw_patients_and_few_patients_have_none():
    values = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    apart = mean_of(values, [f"P{number}" for number in range(8)], 500, 1)
    together = mean_of(values, list("aabbabab"), 500, 1)
    assert apart.value == together.value == 0.5
    assert 0 <= apart.low < 0.5 < apart.high <= 1
    assert np.isnan(together.low)
    assert np.isnan(mean_of(np.zeros(0), [], 500, 1).value)


def test_a_lead_over_the_same_maps_is_nothing_and_has_no_width():
    generator = np.random.default_rng(1)
    judged = [Judged(float(one), one, (one,) * 19, one) for one in generator.random(12)]
    malignant = np.arange(12) % 2 == 0
    scored = ScoredMaps.of(judged, malignant, [f"P{n}" for n in range(12)], 0.5)
    lead = scored.figures(200, 1, scored)["malignant"]["energy"]
    assert lead == {"value": 0, "low": 0, "high": 0}
    found = scored.figures(200, 1)["benign"]["energy"]["value"]
    assert found == pytest.approx(np.mean([one.energy for one in judged[1::2]]))


def test_the_blob_is_hottest_at_the_centre_of_the_breast():
    breast = box(slice(10, 90), slice(0, 40))
    heat = blob_in(breast)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert (y, x) == pytest.approx((49.5, 19.5), abs=0.6)
    assert heat.max() == 1


@pytest.mark.parametrize(
    ("label", "probability", "outcome"),
    [("malignant", 0.3, "TP"), ("malignant", 0.29, "FN"), ("benign", 0.3, "FP"),
     ("benign", 0.1, "TN")],
)  # fmt: skip
def test_the_outcome_is_that_of_the_operating_point(label, probability, outcome):
    assert Case("I", "P", "LEFT", "CC", label, probability, 0.3).outcome == outcome
