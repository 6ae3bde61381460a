"""Which of several models is better on the same images, and which cannot be ranked.

scipy has the binomial distribution. A bootstrap that draws whole patients and Holm's correction are
in no library that this project requires.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from models.bootstrap import enough_patients, with_interval
from models.delong import delong, delong_test
from models.metrics import EQUAL, Floats
from models.resampling import Tally, p_of_choice, replicates_of
from pipeline.progress import Progress, Silent

Flags = NDArray[np.bool_]
LEVEL = 0.05
# The smallest p-value of R replicates is 2 / (R + 1), and Holm multiplies it by the number of
# pairs: 2,000 replicates could not tell any of the 55 pairs of 11 models apart. With 200 for each
# pair the smallest corrected p-value is 0.01.
REPLICATES_PER_PAIR = 200
INTERVAL_REPLICATES = 10_000  # at most, of the intervals: more would need memory for each model
NAMED, NAMED_OF_MANY = 8, 3  # models in a sentence; of more than 8 the others are counted
NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """A difference of two AUCs with its 95 % interval and two-sided p; NaN where unknown."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Pair:
    """Two models compared on the same images."""

    first: str  # name of a model
    second: str  # name of the other one
    difference: float  # AUC of the first minus that of the second
    low: float  # lower end of its 95 % interval over patients; NaN with too few patients of a class
    high: float  # upper end
    p_bootstrap: float  # two-sided, from the bootstrap over patients
    p_delong: float  # deLong's, which takes every image for independent
    p_mcnemar: float  # exact McNemar of what each calls rightly, which does so too
    p_adjusted: float  # `p_bootstrap` after Holm's correction over the pairs that were tested
    # Where one is the best of several on these images: see `p_of_choice`; else NaN.
    p_choice: float = NAN

    @property
    def p(self) -> float:
        """The larger of `p_adjusted` and `p_choice`; NaN without the first."""
        return self.p_adjusted if math.isnan(self.p_choice) else max(self.p_adjusted, self.p_choice)

    @property
    def ordered(self) -> tuple[str, str]:
        """The two names, that of the higher AUC first."""
        names = (self.first, self.second)
        return names[::-1] if self.difference < 0 else names

    @property
    def differ(self) -> bool:
        """Whether one can be called the better of the two."""
        return self.p <= LEVEL and abs(self.difference) > EQUAL


def bootstrap_aucs(
    targets: Flags, scores: Floats, patients: Sequence[str], replicates: int, seed: int
) -> Floats:
    """Return the AUC of every model in every replicate of a bootstrap over patients.

    All models see the same draws, so that differences of columns are paired.

    Args:
        targets: (N,), true for malignant.
        scores: (M, N), higher is more suspicious.
        patients: The patient of each image; whole patients are drawn.
        replicates: How many draws.
        seed: The same gives the same draws.

    Returns:
        (R, M); NaN in replicates without an image of either class.
    """
    parts = replicates_of(targets, scores, patients, replicates, seed)
    return np.concatenate([part.areas for part in parts])


def bootstrap_difference(value: float, drawn: Floats) -> Difference:
    """Return a difference with its 95 % percentile interval and p-value over replicates.

    The p-value is twice the share of replicates on the rarer side of 0, the data as they are
    counted as one more replicate (Davison & Hinkley 1997, section 4.2), so at least 2 / (R + 1).

    Args:
        value: The difference in the data as they are.
        drawn: (R,), the difference in every replicate; NaN ones do not count.
    """
    # Differences within a replicate are paired: what is hard in a draw is hard for both models.
    found = with_interval(value, drawn)
    beyond = min(np.count_nonzero(drawn <= EQUAL), np.count_nonzero(drawn >= -EQUAL))
    share = (beyond + 1) / (np.count_nonzero(~np.isnan(drawn)) + 1)
    p = NAN if math.isnan(found.low) else min(1.0, 2 * share)
    return Difference(found.value, found.low, found.high, p)


def mcnemar(targets: Flags, first: Flags, second: Flags) -> float:
    """Return the exact p of what two models call at their operating points (McNemar 1947).

    Only images that one of the two calls rightly say anything: without any, p is 1.

    Args:
        targets: (N,), true for malignant.
        first: (N,), true where the first model calls an image malignant.
        second: (N,), the same of the second model.
    """
    # Images that both call rightly, or both wrongly, say nothing about which is better.
    right, other = first == targets, second == targets
    alone, opposite = int((right & ~other).sum()), int((other & ~right).sum())
    discordant = alone + opposite
    # The distribution is symmetric: both tails are twice the shorter one.
    return min(1.0, 2 * float(bdtr(min(alone, opposite), discordant, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979, Scand J Stat 6:65).

    Args:
        p_values: One for each test. NaN is no test: it stays NaN and is not counted.
    """
    found = np.asarray(p_values, np.float64)
    order = np.argsort(found)[: np.count_nonzero(~np.isnan(found))]  # NaN sorts last
    adjusted = np.full(len(found), NAN)
    factors = np.arange(len(order), 0, -1)
    # Step-down: a larger p-value may not be adjusted to less than a smaller one.
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * found[order]))
    result: list[float] = adjusted.tolist()
    return result


def compare_all(
    names: Sequence[str],
    targets: Flags,
    scores: Floats,
    called: Flags,
    patients: Sequence[str],
    replicates: int,
    seed: int,
    *,
    best_only: bool = False,
    couples: Sequence[tuple[int, int]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Pair]:
    """Compare every two models on the same images, or the best with every other.

    With too few patients of a class (`models.bootstrap.enough_patients`) there is neither an
    interval nor a p-value of the bootstrap (NaN).

    Args:
        names: Of the M models, each different.
        targets: (N,), true for malignant.
        scores: (M, N), higher is more suspicious.
        called: (M, N), true where a model calls an image malignant at its operating point.
        patients: The patient of each image.
        replicates: At least; more are drawn where there are so many pairs that Holm's correction
            needs them (`REPLICATES_PER_PAIR`). Intervals take `INTERVAL_REPLICATES` of them.
        seed: Of the bootstrap.
        best_only: Whether only the first model of the highest AUC is compared with the others.
        couples: The places of the models of each pair, where only these are compared.
        workers: Threads.
        progress: Where it reports; None for nowhere.

    Returns:
        The pairs in the order of `names`, the best one's first; none of fewer than two models.

    Raises:
        ValueError: Two models have one name.
    """
    if len(set(names)) < len(names):
        raise ValueError("two models of one name cannot be told apart")
    areas, covariance = delong(targets, scores)
    couples = _couples(areas, best_only) if couples is None else list(couples)
    found = [Difference(float(areas[a] - areas[b]), NAN, NAN, NAN) for a, b in couples]
    choice = [NAN] * len(couples)
    if couples and enough_patients(targets, np.asarray(patients, np.str_)):
        needed = max(replicates, REPLICATES_PER_PAIR * len(couples))
        tally = Tally(couples, min(needed, max(replicates, INTERVAL_REPLICATES)))
        with (progress or Silent()).track("Drawing patients", needed, "replicates") as advance:
            tally.add_all(targets, scores, patients, needed, seed, workers, advance)
        found = _differences(areas, tally)
        if best_only and len(couples) > 1:
            choice = p_of_choice(areas, tally.kept()[:replicates], couples)
    adjusted = holm([one.p for one in found])
    return [
        Pair(names[a], names[b], one.value, one.low, one.high, one.p,
             p_delong=delong_test(areas, covariance, a, b)[1],
             p_mcnemar=mcnemar(targets, called[a], called[b]), p_adjusted=p, p_choice=q)
        for (a, b), one, p, q in zip(couples, found, adjusted, choice, strict=True)
    ]  # fmt: skip


def _couples(areas: Floats, best_only: bool) -> list[tuple[int, int]]:
    places = range(len(areas))
    if not best_only or not len(areas):
        return list(itertools.combinations(places, 2))
    best = int(np.argmax(areas >= np.max(areas) - EQUAL))  # the first where all are NaN
    return [(best, other) for other in places if other != best]


def _differences(areas: Floats, tally: Tally) -> list[Difference]:
    drawn, found = tally.kept(), []
    for (a, b), p in zip(tally.couples, tally.p_values(), strict=True):
        # Differences within a replicate are paired: what is hard in a draw is hard for both.
        one = with_interval(float(areas[a] - areas[b]), drawn[:, a] - drawn[:, b])
        found.append(Difference(one.value, one.low, one.high, NAN if math.isnan(one.low) else p))
    return found


def in_words(pairs: Sequence[Pair]) -> str:
    """Say in one to four sentences what can be ranked and what cannot.

    Args:
        pairs: All pairs of the models, or those of the best one, from `compare_all`, in any order.
    """
    tested = [pair for pair in pairs if not math.isnan(pair.p_adjusted)]
    if not pairs:
        return "With fewer than two models there is nothing to compare."
    if not tested:
        return "No two models can be compared: there are too few patients of a class."
    if len(pairs) == 1:
        return _two_in_words(pairs[0])
    if len(pairs) < len({name for pair in pairs for name in (pair.first, pair.second)}):
        return _best_in_words(pairs)
    telling = [pair for pair in pairs if pair.differ]
    if not telling:
        return (
            f"None of the {len(pairs)} pairs differs in AUC after Holm's correction (5 % level), "
            "so no order of the models can be told."
        )
    verb = "differs" if len(telling) == 1 else "differ"
    sentences = [
        f"Of {len(pairs)} pairs, {len(telling)} {verb} in AUC after Holm's correction (5 % level)."
    ]
    return " ".join(sentences + _ranking(pairs))


def _two_in_words(pair: Pair) -> str:
    better, worse = pair.ordered
    low, high = (-pair.high, -pair.low) if pair.difference < 0 else (pair.low, pair.high)
    verdict = f"is better than {worse}" if pair.differ else f"and {worse} cannot be ranked"
    p = f"p = {pair.p:.3f}" if pair.p >= 0.001 else "p < 0.001"
    return (
        f"{better} {verdict}: the difference in AUC is {abs(pair.difference):.3f} "
        f"(95 % interval {low:.3f} to {high:.3f}, {p})."
    )


def _best_in_words(pairs: Sequence[Pair]) -> str:
    """Say what the first of every pair is better than, and what it cannot be told apart from."""
    top = pairs[0].first
    ordered = sorted(pairs, key=lambda pair: (pair.difference, pair.second))
    shared = ordered[0].difference <= EQUAL
    beaten = [pair.second for pair in ordered if pair.differ]
    equals = [pair.second for pair in ordered if not pair.differ]
    sentences = [
        f"{len(pairs)} pairs with the model of the highest AUC were tested, with Holm's "
        "correction and one for choosing it on these images (5 % level).",
        *_of_the_best(top, shared, beaten, equals),
    ]
    if beaten and equals:
        sentences.append(f"{top} cannot be told apart from {_listed(equals)}.")
    return " ".join(sentences)


def _ranking(pairs: Sequence[Pair]) -> list[str]:
    """Say what the best model is better than, what it is not, and how the others stand.

    Where several share the highest AUC the best is the one that is better than most.
    """
    lead = dict.fromkeys((name for pair in pairs for name in (pair.first, pair.second)), 0.0)
    wins: dict[str, set[str]] = {name: set() for name in lead}
    for pair in pairs:
        lead[pair.first] += pair.difference
        lead[pair.second] -= pair.difference
        if pair.differ:
            better, worse = pair.ordered
            wins[better].add(worse)
    order = sorted(lead, key=lambda name: -lead[name])  # that of the AUCs, the pairs being all
    leaders = [name for name in order if lead[name] >= lead[order[0]] - len(lead) * EQUAL]
    top = max(leaders, key=lambda name: len(wins[name]))
    beaten = [name for name in order if name in wins[top]]
    equals = [name for name in order if name not in wins[top] and name != top]
    others = [pair for pair in pairs if top not in (pair.first, pair.second)]
    sentences = _of_the_best(top, len(leaders) > 1, beaten, equals)
    if beaten and equals:
        sentences.append(_of_its_equals(top, equals, wins))
    sentences.append(_of_the_others(top, others))
    return sentences


def _of_the_best(top: str, shared: bool, beaten: list[str], equals: list[str]) -> list[str]:
    if not equals:
        return [f"{top} is better than every other model."]
    highest = f"{top} {'shares' if shared else 'has'} the highest AUC"
    if not beaten:
        return [f"{highest} but cannot be told apart from any other model."]
    return [f"{highest} and is better than {_listed(beaten)}."]


def _of_its_equals(top: str, equals: list[str], wins: dict[str, set[str]]) -> str:
    """Say whether the equals of the best are equals of each other: that is not transitive."""
    if any(wins[name] & set(equals) for name in equals):
        return f"{top} cannot be told apart from {_listed(equals)}."
    between = "Between" if len(equals) == 1 else "Among"
    return f"{between} {_listed([top, *equals])} no order can be told."


def _of_the_others(top: str, others: Sequence[Pair]) -> str:
    ranked = sum(pair.differ for pair in others)
    if len(others) == 1:
        better, worse = others[0].ordered
        return (
            f"{better} is better than {worse}."
            if ranked
            else f"{better} and {worse} cannot be ranked."
        )
    rest = len(others) - ranked
    found = f"{ranked} can and {rest} cannot" if rest else "all can"
    if not ranked:
        found = "none can"
    return f"Of the {len(others)} pairs without {top} {found} be ranked."


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED:
        names = [*names[:NAMED_OF_MANY], f"{len(names) - NAMED_OF_MANY} others"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
