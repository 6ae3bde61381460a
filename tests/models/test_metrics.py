import time

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from models.metrics import (
    METRICS,
    auc,
    confusion,
    estimates,
    measure,
    patient_weights,
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
    return {
        "auc": reference.roc_auc_score(targets, scores, **given),
        "pr_auc": reference.average_precision_score(targets, scores, **given),
        "accuracy": reference.accuracy_score(targets, called, **given),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, called, **given),
        "sensitivity": reference.recall_score(targets, called, **given),
        "specificity": reference.recall_score(~targets, ~called, **given),
        "precision": reference.precision_score(targets, called, zero_division=0, **given),
        "f1": reference.f1_score(targets, called, zero_division=0, **given),
        "mcc": reference.matthews_corrcoef(targets, called, **given),
        "brier": reference.brier_score_loss(targets, scores, **given),
    }


@pytest.mark.parametrize("shift", [0.0, -1.0], ids=["some called", "none called"])
def test_every_measure_equals_scikit_learn_for_every_row_of_weights(shift):
    targets, scores = example()
    scores = np.clip(scores + shift, 0, 0.99)
    weights = np.random.default_rng(1).integers(0, 4, (6, len(scores))).astype(float)
    weights[0] = 1
    found = measure(targets, scores, THRESHOLD, weights)
    assert tuple(found) == METRICS
    for index, row in enumerate(weights):
        expected = by_scikit_learn(targets, scores, row)
        for name in METRICS:
            assert found[name][index] == pytest.approx(expected[name], abs=1e-12), name


def test_auc_by_hand():
    targets = np.array([True, False, True, False])
    assert auc(targets, np.array([0.9, 0.8, 0.7, 0.6])) == 0.75
    assert auc(targets, np.full(4, 0.5)) == 0.5
    assert np.isnan(auc(np.ones(4, bool), np.arange(4.0)))


def test_without_malignant_images_only_what_exists_is_a_figure():
    targets, scores = np.zeros(5, bool), np.linspace(0.1, 0.9, 5)
    found = measure(targets, scores, THRESHOLD, np.ones((1, 5)))
    known = {name for name in METRICS if not np.isnan(found[name][0])}
    assert known == {"accuracy", "specificity", "brier"}


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


def test_two_patients_of_a_class_have_no_interval():
    targets = np.array([1, 1, 0, 0, 0, 0, 0, 0]) > 0
    scores = np.linspace(0.9, 0.1, 8)
    found = estimates(targets, scores, 0.5, list("aabcdefg"), 200, 1)["auc"]
    assert found.value == 1
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_two_thousand_replicates_of_five_hundred_images_are_quick():
    targets, scores = example(500)
    names = [str(one // 2) for one in range(500)]
    started = time.process_time()
    estimates(targets, scores, THRESHOLD, names, 2000, 1)
    assert time.process_time() - started < 2


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
