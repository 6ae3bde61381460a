import csv
import itertools
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from models.bootstrap import estimates, fewest_patients, patient_weights, tail_of
from models.comparison.significance import (
    LEVEL,
    REPLICATES_PER_PAIR,
    bootstrap_aucs,
    bootstrap_difference,
    compare_all,
    delong,
    delong_test,
    holm,
    in_words,
    mcnemar,
)
from models.metrics import aucs
from pipeline.progress import Silent

# As many images as each patient of CBIS-DDSM's mass test set has (361 of 201).
IMAGES = np.repeat([1, 2, 3, 4], [55, 137, 4, 5])
INDEX = np.repeat(np.arange(len(IMAGES)), IMAGES)
PATIENTS = INDEX.astype(str).tolist()
MALIGNANT = 85 / 201  # of its patients
SHARED = 0.8  # of the variance of scores, by the images of a patient
TRUTH = 0.75
ASAH = Path(__file__).parents[2] / "data" / "asah.csv"


def asah():
    with ASAH.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    scores = np.array([[float(row[name]) for row in rows] for name in ("wfns", "s100b", "ndka")])
    return np.array([row["outcome"] == "Poor" for row in rows]), scores


def simulated(models, seed):
    """Scores of a binormal model whose true AUC is Phi(d / sqrt(2)) at a distance of d."""
    generator = np.random.default_rng(seed)
    malignant = generator.random(len(IMAGES)) < MALIGNANT
    shared = generator.normal(size=(models, len(IMAGES)))[:, INDEX]
    own = generator.normal(size=(models, len(INDEX)))
    distance = NormalDist().inv_cdf(TRUTH) * np.sqrt(2)
    targets = malignant[INDEX]
    scores = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own + distance * targets
    return targets, scores


def many_ties(models=4, images=60, seed=0):
    generator = np.random.default_rng(seed)
    targets = generator.random(images) < 0.4
    return targets, (generator.normal(size=(models, images)) + targets).round()


def naive_delong(targets, scores):
    """The definition: every malignant image against every benign one."""
    wins = [
        [[(a > b) + (a == b) / 2 for b in row[~targets]] for a in row[targets]] for row in scores
    ]
    wins = np.array(wins)  # (M, P, N)
    over, under = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(over) / over.shape[1] + np.cov(under) / under.shape[1]
    return wins.mean(axis=(1, 2)), covariance


def test_delong_gives_the_published_variances():
    """Against the figures in pROC's own tests, test-var.R and test-cov.R."""
    _, covariance = delong(*asah())
    expected = [
        [0.00146991470882363, 0.00119615567376754, -0.000532967856762438],
        [0.00119615567376754, 0.00266868245717244, -0.000756164938056579],
        [-0.000532967856762438, -0.000756164938056579, 0.0031908105493913],
    ]
    assert covariance == pytest.approx(np.array(expected), abs=1e-14)


@pytest.mark.parametrize(
    ("first", "second", "z", "p", "low", "high"),
    [
        (0, 1, 2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
        (0, 2, 2.79777591868904, 0.00514557970691098, 0.0634011709339876, 0.3600405634833566),
        (2, 1, -1.39077002573558, 0.164295175223054, -0.2876917446341914, 0.0488706064228094),
    ],
    ids=["wfns and s100b", "wfns and ndka", "ndka and s100b"],
)
def test_delong_gives_the_published_tests(first, second, z, p, low, high):
    """Against the figures in pROC's own tests, test-roc.test.R."""
    areas, covariance = delong(*asah())
    assert delong_test(areas, covariance, first, second) == pytest.approx((z, p), abs=1e-10)
    # pROC's interval is the difference and 1.96 standard errors on either side.
    assert areas[first] - areas[second] == pytest.approx((low + high) / 2, abs=1e-10)
    assert abs(areas[first] - areas[second]) / abs(z) == pytest.approx(
        (high - low) / 2 / 1.959963984540054, abs=1e-10
    )


@pytest.mark.parametrize("models", [1, 4])
def test_delong_equals_its_definition_with_ties(models):
    targets, scores = many_ties(models)
    areas, covariance = delong(targets, scores)
    expected_areas, expected = naive_delong(targets, scores)
    assert areas == pytest.approx(expected_areas, abs=1e-10)
    assert covariance == pytest.approx(expected.reshape(models, models), abs=1e-10)


@pytest.mark.parametrize(
    ("targets", "scores", "p"),
    [
        ("1100", [[4, 2, 3, 1], [4, 2, 3, 1]], 1.0),
        ("1100", [[4, 2, 3, 1], [9, 5, 7, 0]], 1.0),
        ("1100", [[1, 1, 1, 1], [1, 1, 1, 1]], 1.0),
        ("1100", [[2, 2, 1, 1], [4, 3, 2, 1]], 1.0),
        ("1100", [[2, 2, 1, 1], [1, 1, 2, 2]], np.nan),
        ("1111", [[4, 2, 3, 1], [1, 2, 3, 4]], np.nan),
        ("1000", [[4, 2, 3, 1], [3, 2, 4, 1]], np.nan),
    ],
    ids=["equal", "equal ranks", "constant", "perfect", "opposite", "one class", "one malignant"],
)
def test_delong_without_a_variance(targets, scores, p):
    labels = np.array([letter == "1" for letter in targets])
    found = delong_test(*delong(labels, np.array(scores, float)), 0, 1)
    assert found == pytest.approx((0.0 if p == 1 else np.nan, p), nan_ok=True)


def test_replicates_are_those_of_the_intervals():
    targets, scores = simulated(2, seed=0)
    drawn = bootstrap_aucs(targets, scores, PATIENTS, 300, seed=7)
    assert drawn.shape == (300, 2)
    tail = tail_of(fewest_patients(targets, np.array(PATIENTS)))
    for model in (0, 1):
        expected = estimates(targets, scores[model], 0.5, PATIENTS, 300, seed=7)["auc"]
        found = np.quantile(drawn[:, model], (tail, 1 - tail))
        assert found == pytest.approx((expected.low, expected.high))


def test_a_paired_difference_is_told_where_two_intervals_overlap():
    targets, scores = simulated(1, seed=3)
    noise = np.random.default_rng(3).normal(0, 0.1, len(targets))
    scores = np.vstack([scores, scores - 0.25 * targets + noise])
    drawn = bootstrap_aucs(targets, scores, PATIENTS, 1000, seed=1)
    areas, _ = delong(targets, scores)
    better, worse = np.percentile(drawn, (2.5, 97.5), axis=0).T
    assert better[0] < worse[1]
    found = bootstrap_difference(areas[0] - areas[1], drawn[:, 0] - drawn[:, 1])
    assert 0 < found.low < found.value < found.high < 0.1
    assert found.p == 2 / 1001


def test_the_bootstrap_p_value_by_hand():
    # 2 of 19 replicates are at or below 0; with the data themselves 3 of 20, on both sides.
    drawn = np.array([-0.1, 0.0, *np.linspace(0.1, 0.5, 17), np.nan])
    assert bootstrap_difference(0.3, drawn).p == pytest.approx(2 * 3 / 20)
    assert bootstrap_difference(-0.3, -drawn).p == pytest.approx(2 * 3 / 20)
    assert bootstrap_difference(0.0, np.zeros(19)).p == 1
    unknown = bootstrap_difference(np.nan, np.full(3, np.nan))
    assert np.isnan([unknown.low, unknown.high, unknown.p]).all()


def test_mcnemar_equals_a_textbook_example():
    """Two media for sputum cultures: 20 grow on both, 12 and 2 on one, 16 on none; p = 0.0129.

    Armitage & Berry 1994, p. 127; by hand 2 (1 + 14 + 91) / 2^14.
    """
    first = np.repeat([True, True, False, False], [20, 12, 2, 16])
    second = np.repeat([True, False, True, False], [20, 12, 2, 16])
    assert mcnemar(np.ones(50, bool), first, second) == pytest.approx(212 / 2**14)
    assert mcnemar(np.zeros(50, bool), first, second) == pytest.approx(212 / 2**14)
    # With malignant and benign images 4 and 10 are right of one alone: 2 (1 + ... + 1001) / 2^14.
    assert mcnemar(np.arange(50) < 22, first, second) == pytest.approx(2942 / 2**14)
    assert mcnemar(np.ones(50, bool), first, first) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, np.nan, 0.04, 0.03, 0.005], [0.03, np.nan, 0.06, 0.06, 0.02]),
        ([0.5, 0.9, 0.4], [1, 1, 1]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_holm_by_hand(given, expected):
    assert holm(given) == pytest.approx(expected, nan_ok=True)


def test_all_pairs_of_seven_models_from_one_draw():
    targets, scores = simulated(7, seed=5)
    scores[4] += 2 * targets
    names = [f"model {number}" for number in range(7)]
    pairs = compare_all(names, targets, scores, scores > 0.5, PATIENTS, 100, seed=1)
    assert [(pair.first, pair.second) for pair in pairs] == list(itertools.combinations(names, 2))
    assert [pair.p_adjusted for pair in pairs] == holm([pair.p_bootstrap for pair in pairs])
    # 100 replicates were asked for, which could not tell any of 21 pairs apart.
    assert all(pair.differ == ("model 4" in (pair.first, pair.second)) for pair in pairs)
    areas, covariance = delong(targets, scores)
    one = pairs[0]
    assert one.difference == areas[0] - areas[1]
    assert one.p_delong == delong_test(areas, covariance, 0, 1)[1]
    assert one.p_mcnemar == mcnemar(targets, scores[0] > 0.5, scores[1] > 0.5)
    assert in_words(pairs).startswith(
        "Of 21 pairs, 6 differ in AUC after Holm's correction (5 % level). "
        "model 4 is better than every other model."
    )


class Bar(Silent):
    """What a stage is told of its progress."""

    def __init__(self):
        self.total = self.done = 0

    @contextmanager
    def track(self, _text, total, _unit, _done=0):
        self.total = total
        yield self.advance

    def advance(self, steps):
        self.done += steps


def test_the_best_against_every_other_and_holm_over_these_pairs():
    targets, scores = simulated(7, seed=5)
    scores[4] += 2 * targets
    names = [f"model {number}" for number in range(7)]
    bar = Bar()
    pairs = compare_all(
        names, targets, scores, scores > 0.5, PATIENTS, 5000, 1, best_only=True, progress=bar
    )
    others = [name for name in names if name != "model 4"]
    assert [(pair.first, pair.second) for pair in pairs] == [("model 4", name) for name in others]
    assert [pair.p_adjusted for pair in pairs] == holm([pair.p_bootstrap for pair in pairs])
    assert all(pair.differ and pair.p_choice == 1 / 5001 for pair in pairs)
    assert bar.done == bar.total == 5000  # 200 for each of 6 pairs would be fewer
    # The same draws as for all pairs, so the same differences.
    every = compare_all(names, targets, scores, scores > 0.5, PATIENTS, 5000, seed=1)
    found = {frozenset((pair.first, pair.second)): pair for pair in every}
    for pair in pairs:
        other = found[frozenset((pair.first, pair.second))]
        assert abs(other.difference) == pair.difference
        ends = sorted((abs(other.low), abs(other.high)))
        assert ends == pytest.approx((pair.low, pair.high), abs=1e-12)
        assert other.p_mcnemar == pair.p_mcnemar
    assert in_words(pairs) == (
        "6 pairs with the model of the highest AUC were tested, with Holm's correction and one "
        "for choosing it on these images (5 % level). model 4 is better than every other model."
    )


def test_pairs_are_counted_over_all_replicates():
    targets, scores = simulated(4, seed=3)
    pairs = compare_all("abcd", targets, scores, scores > 0.5, PATIENTS, 1500, seed=6)
    drawn = bootstrap_aucs(targets, scores, PATIENTS, 1500, seed=6)
    for pair in pairs:
        first, second = "abcd".index(pair.first), "abcd".index(pair.second)
        expected = bootstrap_difference(pair.difference, drawn[:, first] - drawn[:, second])
        assert (pair.low, pair.high, pair.p_bootstrap) == (expected.low, expected.high, expected.p)


def test_replicates_follow_the_number_of_tested_pairs():
    targets, scores = simulated(11, seed=2)
    names = [str(number) for number in range(11)]
    for best_only, pairs in ((True, 10), (False, 55)):
        bar = Bar()
        found = compare_all(names, targets, scores, scores > 0.5, PATIENTS, 100, 1,
                            best_only=best_only, progress=bar)  # fmt: skip
        assert len(found) == pairs
        assert bar.done == bar.total == REPLICATES_PER_PAIR * pairs


@pytest.mark.slow
def test_memory_does_not_follow_the_number_of_pairs():
    """All AUCs of 30 models in the 87,000 replicates for 435 pairs would be 21 MB."""
    targets, scores = simulated(30, seed=2)
    names = [str(number) for number in range(30)]
    tracemalloc.start()
    compare_all(names, targets, scores, scores > 0.5, PATIENTS, 500, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6


@pytest.mark.slow
def test_the_best_of_many_equal_models_is_not_better_than_any():
    """Chosen on the same images, it is ahead of the worst by more than Holm's correction takes."""
    by_holm, told = [], []
    for seed in range(40):
        targets, scores = simulated(40, seed)
        names = [str(number) for number in range(40)]
        pairs = compare_all(names, targets, scores, scores > 0.5, PATIENTS, 500, seed,
                            best_only=True)  # fmt: skip
        by_holm.append(any(pair.p_adjusted <= LEVEL for pair in pairs))
        told.append(any(pair.differ for pair in pairs))
    assert np.mean(by_holm) > 0.2
    assert np.mean(told) <= 0.1


@pytest.mark.parametrize("decimals", [1, 6], ids=["many ties", "no ties"])
@pytest.mark.parametrize("patients", [6, 60, 3000], ids=["few", "some", "by sorted images"])
def test_aucs_of_replicates_are_those_of_the_weights_to_the_last_digit(patients, decimals):
    generator = np.random.default_rng(patients)
    index = np.repeat(np.arange(patients), generator.choice([1, 2, 5], patients))
    targets = generator.random(len(index)) < 0.4  # a patient may have images of both classes
    scores = (generator.normal(size=(3, len(index))) + targets).round(decimals)
    names = [f"{one:04d}" for one in index]
    count = 6 if patients > 1000 else 400
    expected = np.concatenate([
        np.stack([aucs(targets, row, weights) for row in scores], axis=1)
        for weights in patient_weights(names, count, seed=3)
    ])  # fmt: skip
    np.testing.assert_array_equal(bootstrap_aucs(targets, scores, names, count, 3), expected)
    assert np.isnan(expected).any() == (patients == 6)


def test_threads_change_nothing():
    targets, scores = simulated(5, seed=1)
    given = ("abcde", targets, scores, scores > 0.5, PATIENTS, 300, 1)
    assert compare_all(*given, workers=3) == compare_all(*given)


def test_too_few_patients_cannot_be_compared():
    targets = np.array([1, 1, 1, 0, 0, 0, 0, 0]) > 0
    scores = np.vstack([np.arange(8.0), -np.arange(8.0)])
    (pair,) = compare_all("ab", targets, scores, scores > 4, list("aabcdefg"), 100, seed=1)
    assert pair.difference == -1
    assert np.isnan([pair.low, pair.p_bootstrap, pair.p_adjusted]).all()
    assert in_words([pair]).startswith("No two models can be compared")


def test_two_models_need_two_names():
    targets, scores = many_ties(2)
    with pytest.raises(ValueError, match="one name"):
        compare_all(["a", "a"], targets, scores, scores > 0, ["p"] * 60, 10, seed=1)


def coverage(studies, units, replicates):
    """Return the share of simulated studies whose interval holds the true AUC."""
    held = []
    for seed in range(studies):
        targets, scores = simulated(1, seed)
        drawn = bootstrap_aucs(targets, scores, units, replicates, seed)
        low, high = np.percentile(drawn, (2.5, 97.5))
        held.append(low <= TRUTH <= high)
    return np.mean(held)


@pytest.mark.slow
def test_intervals_over_patients_hold_the_truth():
    assert 0.93 <= coverage(500, PATIENTS, replicates=600) <= 0.97


def test_intervals_over_images_drawn_one_by_one_fall_short():
    images = [str(image) for image in range(len(INDEX))]
    assert coverage(200, images, replicates=500) < 0.91
