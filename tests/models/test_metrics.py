import time
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from models.bootstrap import estimates, fewest_patients, patient_weights, tail_of
from models.metrics import (
    METRICS,
    PF1,
    WHERE_RARE,
    auc,
    bin_of,
    confusion,
    measure,
    rank,
    validation_figures,
    weighted_loss,
    youden_threshold,
)

THRESHOLD = 0.5


def example(count=200, seed=0, decimals=2):
    """Targets and scores with many ties."""
    generator = np.random.default_rng(seed)
    targets = generator.random(count) < 0.4
    scores = np.clip(generator.normal(0.4 + 0.2 * targets, 0.2), 0, 1).round(decimals)
    return targets, scores


def by_scikit_learn(targets, scores, weights):
    called = scores >= THRESHOLD
    given = {"sample_weight": weights}
    false, true, _ = reference.roc_curve(targets, scores, drop_intermediate=False, **given)
    return {
        "auc": reference.roc_auc_score(targets, scores, **given),
        "partial_auc": reference.roc_auc_score(targets, scores, max_fpr=0.2, **given),
        "pr_auc": reference.average_precision_score(targets, scores, **given),
        "accuracy": reference.accuracy_score(targets, called, **given),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, called, **given),
        "sensitivity": reference.recall_score(targets, called, **given),
        "specificity": reference.recall_score(~targets, ~called, **given),
        "precision": reference.precision_score(targets, called, zero_division=0, **given),
        "f1": reference.f1_score(targets, called, zero_division=0, **given),
        "mcc": reference.matthews_corrcoef(targets, called, **given),
        "sensitivity_at_specificity": true[false <= 0.1 + 1e-12].max(),
        "specificity_at_sensitivity": 1 - false[true >= 0.9 - 1e-12].min(),
        "brier": reference.brier_score_loss(targets, scores, **given),
        "ece": calibration_error(targets, scores, weights),
    }


def calibration_error(targets, scores, weights):
    total = 0.0
    for tenth in range(10):
        inside = (scores >= tenth / 10) & ((scores < (tenth + 1) / 10) | (tenth == 9))
        if weight := weights[inside].sum():
            share = np.average(targets[inside], weights=weights[inside])
            total += weight * abs(share - np.average(scores[inside], weights=weights[inside]))
    return total / weights.sum()


def check(targets, scores, weights):
    found = measure(targets, scores, THRESHOLD, weights)
    assert tuple(found) == (*METRICS, PF1)
    for index, row in enumerate(weights):
        expected = by_scikit_learn(targets, scores, row)
        for name in METRICS:
            assert found[name][index] == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("shift", [0.0, -1.0], ids=["some called", "none called"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole weights", "any weights"])
def test_every_measure_equals_scikit_learn_for_every_row_of_weights(shift, whole):
    targets, scores = example()
    generator = np.random.default_rng(1)
    weights = generator.integers(0, 4, (6, len(scores))).astype(float)
    if not whole:
        weights *= generator.random(weights.shape)
    weights[0] = 1
    check(targets, np.clip(scores + shift, 0, 0.99), weights)


@pytest.mark.parametrize("seed", range(40))
def test_every_measure_equals_scikit_learn_on_few_images(seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(2, 40))
    targets = np.arange(count) < generator.integers(1, count)
    # Tenths put scores on the ends of bins, and 10 benign images the rates on 0.1 and 0.2.
    scores = (generator.random(count) ** 2 * 0.8 + 0.2 * targets).round(1 + seed % 3)
    check(targets, scores, np.ones((1, count)))


def test_a_weight_is_as_good_as_a_repeated_image():
    targets, scores = example(60)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60))
    found = measure(targets, scores, THRESHOLD, weights)
    for index, times in enumerate(weights):
        repeated = np.repeat(targets, times), np.repeat(scores, times)
        alone = measure(*repeated, THRESHOLD, np.ones((1, times.sum())))
        for name in METRICS:
            assert found[name][index] == pytest.approx(alone[name][0], abs=1e-12), name


def test_measuring_leaves_the_weights_alone():
    targets, scores = example()
    weights = np.ones((2, 200))
    measure(targets, scores, THRESHOLD, weights)
    assert (weights == 1).all()


def test_rates_that_are_just_reached_count():
    # One of ten benign images above all malignant ones: a false positive rate of exactly 0.1.
    targets = np.array([False, True, *[False] * 9])
    found = measure(targets, np.linspace(1, 0, 11), THRESHOLD, np.ones((1, 11)))
    assert found["sensitivity_at_specificity"][0] == 1
    assert found["specificity_at_sensitivity"][0] == 0.9


def test_the_partial_auc_is_half_for_guessing_and_one_for_knowing():
    targets = np.arange(100) % 2 > 0
    for scores, expected in ((np.full(100, 0.5), 0.5), (targets * 0.9, 1.0)):
        found = measure(targets, scores, THRESHOLD, np.ones((1, 100)))
        assert found["partial_auc"][0] == pytest.approx(expected)


def test_bins_hold_their_lower_end_and_the_last_one_both():
    assert bin_of(np.array([0.0, 0.1, 0.3, 0.35, 0.7, 0.99, 1.0])).tolist() == [0, 1, 3, 3, 7, 9, 9]


def test_auc_by_hand():
    targets = np.array([True, False, True, False])
    assert auc(targets, np.array([0.9, 0.8, 0.7, 0.6])) == 0.75
    assert auc(targets, np.full(4, 0.5)) == 0.5
    assert np.isnan(auc(np.ones(4, bool), np.arange(4.0)))


def test_without_malignant_images_only_what_exists_is_a_figure():
    targets, scores = np.zeros(5, bool), np.linspace(0.1, 0.9, 5)
    found = measure(targets, scores, THRESHOLD, np.ones((1, 5)))
    known = {name for name in METRICS if not np.isnan(found[name][0])}
    assert known == {"accuracy", "specificity", "brier", "ece"}


def test_without_benign_images_only_what_exists_is_a_figure():
    targets, scores = np.ones(5, bool), np.linspace(0.1, 0.9, 5)
    found = measure(targets, scores, THRESHOLD, np.ones((1, 5)))
    unknown = {name for name in METRICS if np.isnan(found[name][0])}
    assert unknown == {"auc", "partial_auc", "balanced_accuracy", "specificity", "mcc",
                       "sensitivity_at_specificity", "specificity_at_sensitivity"}  # fmt: skip


def test_confusion_counts_images():
    targets = np.array([True, True, False, False, False])
    scores = np.array([0.9, 0.2, 0.5, 0.4, 0.1])
    assert confusion(targets, scores, 0.5) == {"tn": 2, "fp": 1, "fn": 1, "tp": 1}


def test_the_threshold_has_the_largest_youden_index():
    targets, scores = example()
    false, true, _ = reference.roc_curve(targets, scores, drop_intermediate=False)
    found = measure(targets, scores, youden_threshold(targets, scores), np.ones((1, 200)))
    index_j = found["sensitivity"][0] + found["specificity"][0] - 1
    assert index_j == pytest.approx((true - false).max())


def test_the_threshold_lies_between_two_scores():
    targets, scores = np.array([False, True]), np.array([0.2, 0.6])
    assert youden_threshold(targets, scores) == pytest.approx(0.4)
    neighbours = np.array([0.5, np.nextafter(0.5, 1)])
    assert confusion(targets, neighbours, youden_threshold(targets, neighbours))["fp"] == 0


def test_one_class_has_no_threshold():
    assert youden_threshold(np.zeros(3, bool), np.arange(3.0)) is None


def test_whole_patients_are_drawn():
    patients = ["a", "b", "b", "c", "c", "c"]
    rows = np.concatenate(list(patient_weights(patients, 500, seed=1)))
    assert rows.shape == (500, 6)
    assert (rows[:, 1] == rows[:, 2]).all()
    assert (rows[:, 3] == rows[:, 5]).all()
    assert (rows[:, 0] + rows[:, 1] + rows[:, 3] == 3).all()  # as many patients as there are


def test_how_many_replicates_are_drawn_at_a_time_changes_nothing():
    count = 1001  # so that 249 odd rows are drawn at a time
    generator = np.random.default_rng(5)
    expected = [
        np.bincount(row, minlength=count) for row in generator.integers(count, size=(600, count))
    ]
    patients = [f"{one:04d}" for one in range(count)]
    parts = list(patient_weights(patients, 600, seed=5))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_intervals_are_wider_where_images_repeat_patients():
    targets, scores = example(60, decimals=6)
    copies = np.repeat(np.arange(60), 5)
    names = [str(one) for one in copies]
    by_patient = estimates(targets[copies], scores[copies], THRESHOLD, names, 1000, 1)["auc"]
    alone = [str(one) for one in range(300)]
    by_image = estimates(targets[copies], scores[copies], THRESHOLD, alone, 1000, 1)["auc"]
    assert by_patient.low < by_image.low < by_patient.value < by_image.high < by_patient.high


def test_intervals_repeat_with_the_seed_and_enclose_the_value():
    targets, scores = example()
    names = [str(one // 2) for one in range(200)]
    first = estimates(targets, scores, THRESHOLD, names, 300, 7)
    assert first == estimates(targets, scores, THRESHOLD, names, 300, 7)
    assert first != estimates(targets, scores, THRESHOLD, names, 300, 8)
    assert all(one.low < one.value < one.high for one in first.values())


def test_intervals_are_quantiles_of_the_measures_of_all_replicates():
    targets, scores = example()
    names = [f"{one % 70:02d}" for one in range(200)]
    weights = np.concatenate(list(patient_weights(names, 400, 7)))
    expected = measure(targets, scores, THRESHOLD, weights)
    tail = tail_of(fewest_patients(targets, np.array(names)))
    for name, found in estimates(targets, scores, THRESHOLD, names, 400, 7).items():
        bounds = np.quantile(expected[name], (tail, 1 - tail))
        assert (found.low, found.high) == pytest.approx(tuple(bounds), abs=1e-12), name


def test_few_patients_leave_out_fewer_replicates():
    """Worked from Student's t of 29 and 99 degrees of freedom: 2.04523 and 1.98422."""
    assert tail_of(30) == pytest.approx(NormalDist().cdf(-2.04523 * (30 / 29) ** 0.5), rel=1e-4)
    assert tail_of(100) == pytest.approx(NormalDist().cdf(-1.98422 * (100 / 99) ** 0.5), rel=1e-4)
    assert tail_of(10**6) == pytest.approx(0.025, rel=1e-4)


def test_two_patients_of_a_class_have_no_interval():
    targets = np.array([1, 1, 0, 0, 0, 0, 0, 0]) > 0
    scores = np.linspace(0.9, 0.1, 8)
    found = estimates(targets, scores, 0.5, list("aabcdefg"), 200, 1)["auc"]
    assert found.value == 1
    assert np.isnan(found.low)
    assert np.isnan(found.high)


@pytest.mark.slow
def test_ten_thousand_replicates_of_three_thousand_images_take_less_than_five_seconds():
    targets, scores = example(3000, decimals=9)
    names = [str(one // 2) for one in range(3000)]
    started = time.process_time()
    estimates(targets, scores, THRESHOLD, names, 10_000, 1)
    assert time.process_time() - started < 5


def test_the_loss_is_the_one_of_training():
    targets, scores = example()
    logits = 6 * scores - 3
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(1.7))
    expected = loss(torch.from_numpy(logits), torch.from_numpy(targets.astype(float)))
    assert weighted_loss(targets, logits, 1.7) == pytest.approx(float(expected))


def test_the_better_state_has_the_higher_auc_then_the_smaller_loss():
    targets = np.array([True, True, False, False])
    good = validation_figures(targets, np.array([2.0, 1.0, -1.0, -2.0]), 1.0)
    timid = validation_figures(targets, np.array([0.2, 0.1, -0.1, -0.2]), 1.0)
    wrong = validation_figures(targets, np.array([-2.0, 1.0, -1.0, 2.0]), 1.0)
    assert rank(good) > rank(timid) > rank(wrong)
    assert (good["sensitivity"], wrong["specificity"]) == (1.0, 0.5)
    one_class = np.ones(4, bool)
    sure = validation_figures(one_class, np.full(4, 2.0), 1.0)
    unsure = validation_figures(one_class, np.full(4, 1.0), 1.0)
    assert np.isnan(sure["val_auc"])
    assert np.isnan(sure["specificity"])
    assert rank(sure) > rank(unsure)


def kaggle_pf1(labels, predictions):
    """The metric of the RSNA Screening Mammography competition, as its page gave it (beta 1)."""
    true_count, found, wrong = 0, 0.0, 0.0
    for label, prediction in zip(labels, predictions, strict=True):
        prediction = min(max(prediction, 0), 1)
        if label:
            true_count += 1
            found += prediction
        else:
            wrong += prediction
    precision = found / (found + wrong)
    recall = found / true_count
    if precision > 0 and recall > 0:
        return 2 * (precision * recall) / (precision + recall)
    return 0.0


@pytest.mark.parametrize("share", [0.02, 0.4])
def test_probabilistic_f1_is_that_of_kaggle(share):
    generator = np.random.default_rng(3)
    targets = generator.random(400) < share
    scores = np.clip(generator.normal(0.1 + 0.4 * targets, 0.2), 0, 1)
    counts = generator.integers(0, 4, (5, 400))
    found = measure(targets, scores, THRESHOLD, counts.astype(float))[PF1]
    expected = [kaggle_pf1(np.repeat(targets, count), np.repeat(scores, count)) for count in counts]
    assert found == pytest.approx(expected, abs=1e-12)


def test_probabilistic_f1_of_certain_scores_is_f1_and_needs_a_positive():
    targets, called = np.arange(50) % 7 == 0, np.arange(50) % 3 == 0
    ones = np.ones((1, 50))
    certain = measure(targets, called.astype(float), THRESHOLD, ones)
    assert certain[PF1] == pytest.approx(certain["f1"])
    assert measure(targets, np.zeros(50), THRESHOLD, ones)[PF1] == [0]
    assert np.isnan(measure(np.zeros(50, bool), np.full(50, 0.3), THRESHOLD, ones)[PF1]).all()


def test_where_few_are_positive_every_measure_is_told_once():
    assert sorted(WHERE_RARE) == sorted((*METRICS, PF1))
    assert WHERE_RARE[:2] == ("pr_auc", PF1)
    assert WHERE_RARE[-1] == "accuracy"


def test_probabilistic_f1_has_an_interval_over_patients():
    generator = np.random.default_rng(1)
    targets = np.repeat(generator.random(150) < 0.08, 2)
    scores = np.clip(generator.normal(0.1 + 0.4 * targets, 0.1), 0, 1)
    patients = [f"P_{number // 2}" for number in range(300)]
    found = estimates(targets, scores, THRESHOLD, patients, 300, 1)[PF1]
    assert found.value == pytest.approx(kaggle_pf1(targets, scores))
    assert found.low < found.value < found.high
