"""How quickly intervals and comparisons are computed on one core, against the plain way.

    python -m tests.benchmarks.statistics --rounds 3

- intervals: every measure of 3,000 images of 1,500 patients with its interval from 10,000
  replicates. The plain way is a loop of scikit-learn's functions over drawn patients; some of its
  replicates are run in each round and counted up to 10,000.
- delong: covariance of the AUCs of 11 models on the same images. The plain way is the definition,
  each malignant image against each benign one, in numpy.
- pairs: all 55 pairs of 11 models on 361 images of 201 patients; the plain way, a loop of
  scikit-learn's roc_auc_score over as many replicates as ours draws, is counted up too.

Both sides take turns in one process; seconds are medians over the rounds. At the end the figures
of the two are compared.
"""

import argparse
import statistics
import time

import numpy as np
from sklearn import metrics as sklearn
from threadpoolctl import threadpool_limits

from models.bootstrap import estimates
from models.comparison.significance import REPLICATES_PER_PAIR, compare_all, delong
from models.metrics import BINS, METRICS
from models.metrics import measure as measured

REPLICATES = 10_000
MODELS = 11
IMAGES, PATIENTS = 3000, 1500
TEST_IMAGES, TEST_PATIENTS = 361, 201  # CBIS-DDSM's masses
PAIRS = MODELS * (MODELS - 1) // 2


def study(images, patients, models):
    """Labels, probabilities (models, images) and patients, the views of a patient alike."""
    generator = np.random.default_rng(1)
    owner = np.arange(images) % patients
    targets = (generator.random(patients) < 0.4)[owner]
    logits = generator.normal(size=(models, patients))[:, owner] + targets
    logits += generator.normal(0, 0.5, (models, images))
    return targets, 1 / (1 + np.exp(-logits)), owner


def by_scikit_learn(targets, scores):
    """Every measure of `models.metrics`, the calibration error in numpy."""
    called = scores >= 0.5
    false, true, _ = sklearn.roc_curve(targets, scores, drop_intermediate=False)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return {
        "auc": sklearn.roc_auc_score(targets, scores),
        "partial_auc": sklearn.roc_auc_score(targets, scores, max_fpr=0.2),
        "pr_auc": sklearn.average_precision_score(targets, scores),
        "accuracy": sklearn.accuracy_score(targets, called),
        "balanced_accuracy": sklearn.balanced_accuracy_score(targets, called),
        "sensitivity": sklearn.recall_score(targets, called),
        "specificity": sklearn.recall_score(~targets, ~called),
        "precision": sklearn.precision_score(targets, called),
        "f1": sklearn.f1_score(targets, called),
        "mcc": sklearn.matthews_corrcoef(targets, called),
        "sensitivity_at_specificity": true[false <= 0.1 + 1e-9].max(),
        "specificity_at_sensitivity": 1 - false[true >= 0.9 - 1e-9].min(),
        "brier": sklearn.brier_score_loss(targets, scores),
        "ece": np.abs(np.bincount(bins, scores - targets, BINS)).sum() / len(scores),
    }


def drawn(owner, replicates):
    """Yield the images of patients drawn with replacement."""
    generator = np.random.default_rng(2)
    images = [np.flatnonzero(owner == one) for one in range(owner.max() + 1)]
    for _ in range(replicates):
        yield np.concatenate(
            [images[one] for one in generator.integers(len(images), size=len(images))]
        )


def plain_intervals(targets, scores, owner, replicates):
    """Loop over replicates with scikit-learn; return intervals (2, measures)."""
    found = [
        list(by_scikit_learn(targets[one], scores[one]).values())
        for one in drawn(owner, replicates)
    ]
    return np.percentile(found, (2.5, 97.5), axis=0)


def plain_delong(targets, scores):
    """DeLong's covariance from all pairs of images."""
    wins = [
        (row[targets][:, None] > row[~targets]) + 0.5 * (row[targets][:, None] == row[~targets])
        for row in scores
    ]
    over, under = (np.array([one.mean(axis=axis) for one in wins]) for axis in (1, 0))
    return np.cov(over) / over.shape[1] + np.cov(under) / under.shape[1]


def plain_pairs(targets, scores, owner, replicates):
    """AUCs of all models in all replicates."""
    return [
        [sklearn.roc_auc_score(targets[one], row[one]) for row in scores]
        for one in drawn(owner, replicates)
    ]


def timed(function, *arguments):
    """Return seconds and the result."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def one_round(options, large, small):
    """Run each way once; return seconds by what and side, and the results to compare."""
    targets, scores, owner = large
    names = owner.astype(str).tolist()
    ours, mine = timed(estimates, targets, scores[0], 0.5, names, REPLICATES, 1)
    plain, theirs = timed(plain_intervals, targets, scores[0], owner, options.replicates)
    seconds = {"intervals": (ours, plain * REPLICATES / options.replicates)}
    (ours, (_, found)), (plain, expected) = (
        timed(delong, targets, scores),
        timed(plain_delong, targets, scores),
    )
    seconds["delong"] = ours, plain
    targets, scores, owner = small
    models = [str(number) for number in range(MODELS)]
    ours, _ = timed(
        compare_all, models, targets, scores, scores > 0.5, owner.astype(str).tolist(), 2000, 1
    )
    plain, _ = timed(plain_pairs, targets, scores, owner, options.replicates)
    seconds["pairs"] = ours, plain * REPLICATES_PER_PAIR * PAIRS / options.replicates
    return seconds, (mine, theirs, found, expected)


def check(large, mine, theirs, found, expected):
    """Compare the figures of both sides: values exactly, intervals as far as chance allows."""
    np.testing.assert_allclose(found, expected, atol=1e-10)
    targets, scores, _ = large
    exact = by_scikit_learn(targets, scores[0])
    values = measured(targets, scores[0], 0.5, np.ones((1, len(targets))))
    for column, name in enumerate(METRICS):
        np.testing.assert_allclose(values[name][0], exact[name], atol=1e-9, err_msg=name)
        width = mine[name].high - mine[name].low
        ends = mine[name].low, mine[name].high
        np.testing.assert_allclose(ends, theirs[:, column], atol=width / 4, err_msg=name)


def main():
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicates", type=int, default=200, help="of the plain way")
    options = parser.parse_args()
    large, small = study(IMAGES, PATIENTS, MODELS), study(TEST_IMAGES, TEST_PATIENTS, MODELS)
    with threadpool_limits(1):
        rounds = [one_round(options, large, small) for _ in range(options.rounds)]
    check(large, *rounds[-1][1])
    for what in rounds[0][0]:
        ours, plain = (statistics.median(one[what][side] for one, _ in rounds) for side in (0, 1))
        print(f"{what:10} {ours:8.3f} s, plain {plain:8.2f} s: {plain / ours:6.1f} times as quick")


if __name__ == "__main__":
    main()
