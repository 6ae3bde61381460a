"""What is said of a comparison, in words."""

import itertools
import re

import numpy as np
import pytest

from models.comparison.significance import Pair, in_words


def told(areas, *differing):
    """Pairs of models A, B, ... of these AUCs; those named, as "AB", differ."""
    pairs = []
    for a, b in itertools.combinations("ABCDEFGH"[: len(areas)], 2):
        value = areas["ABCDEFGH".index(a)] - areas["ABCDEFGH".index(b)]
        p = 0.01 if a + b in differing else 0.4
        pairs.append(Pair(a, b, value, value - 0.02, value + 0.04, p, p, p, p))
    return pairs


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "With fewer than two models there is nothing to compare."),
        (
            told([0.7, 0.8], "AB"),
            "B is better than A: the difference in AUC is 0.100 (95 % interval 0.060 to 0.120, "
            "p = 0.010).",
        ),
        (
            told([0.8, 0.7]),
            "A and B cannot be ranked: the difference in AUC is 0.100 (95 % interval 0.080 to "
            "0.140, p = 0.400).",
        ),
        (
            told([0.7, 0.8, 0.75]),
            "None of the 3 pairs differs in AUC after Holm's correction (5 % level), so no order "
            "of the models can be told.",
        ),
        (
            told([0.7, 0.8, 0.75], "AB"),
            "Of 3 pairs, 1 differs in AUC after Holm's correction (5 % level). B has the highest "
            "AUC and is better than A. Between B and C no order can be told. C and A cannot be "
            "ranked.",
        ),
        (
            told([0.7, 0.8, 0.75], "AC"),
            "Of 3 pairs, 1 differs in AUC after Holm's correction (5 % level). B has the highest "
            "AUC but cannot be told apart from any other model. C is better than A.",
        ),
        (
            told([0.8, 0.8, 0.7, 0.6], "BC", "BD", "CD"),
            "Of 6 pairs, 3 differ in AUC after Holm's correction (5 % level). B shares the highest "
            "AUC and is better than C and D. Between B and A no order can be told. Of the 3 pairs "
            "without B 1 can and 2 cannot be ranked.",
        ),
        (
            told([0.9, 0.8, 0.75, 0.6], "AD", "BC"),
            "Of 6 pairs, 2 differ in AUC after Holm's correction (5 % level). A has the highest "
            "AUC and is better than D. A cannot be told apart from B and C. Of the 3 pairs "
            "without A 1 can and 2 cannot be ranked.",
        ),
        (
            told([0.9, 0.6, 0.6, 0.6], "AB", "AC", "AD"),
            "Of 6 pairs, 3 differ in AUC after Holm's correction (5 % level). A is better than "
            "every other model. Of the 3 pairs without A none can be ranked.",
        ),
    ],
)
def test_what_is_said(pairs, words):
    assert in_words(pairs) == words
    assert in_words(pairs[::-1]) == words


def of_the_best(areas, *differing):
    """Pairs of the highest AUC with the others; those named differ."""
    best = "ABCDEFGHIJKL"[int(np.argmax(areas))]
    return [
        Pair(best, name, max(areas) - area, 0.0, 0.1, p, p, p, p, p)
        for name, area in zip("ABCDEFGHIJKL", areas, strict=False)
        for p in [0.01 if name in differing else 0.4]
        if name != best
    ]


TESTED = (
    "{} pairs with the model of the highest AUC were tested, with Holm's correction and one for "
    "choosing it on these images (5 % level). "
)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (
            of_the_best([0.7, 0.8, 0.75]),
            TESTED.format(2)
            + "B has the highest AUC but cannot be told apart from any other model.",
        ),
        (
            of_the_best([0.7, 0.8, 0.75, 0.72], "A", "D"),
            TESTED.format(3)
            + "B has the highest AUC and is better than D and A. B cannot be told apart from C.",
        ),
        (
            of_the_best([0.8, 0.8, 0.7], "C"),
            TESTED.format(2)
            + "A shares the highest AUC and is better than C. A cannot be told apart from B.",
        ),
        (
            of_the_best([0.7 + number / 100 for number in range(12)], "A"),
            TESTED.format(11) + "L has the highest AUC and is better than A. L cannot be told "
            "apart from K, J, I and 7 others.",
        ),
    ],
)
def test_what_is_said_of_the_best(pairs, words):
    assert in_words(pairs) == words
    assert in_words(pairs[::-1]) == words


def test_a_pair_differs_only_where_the_choice_of_the_best_is_allowed_for():
    def pair(adjusted, choice):
        return Pair("A", "B", 0.1, 0.0, 0.2, adjusted, 0.01, 0.01, adjusted, choice)

    assert pair(0.01, 0.02).differ
    assert not pair(0.01, 0.2).differ
    assert not pair(0.2, 0.01).differ
    assert pair(0.01, np.nan).differ  # all pairs were tested
    assert (pair(0.01, 0.2).p, pair(0.3, 0.2).p, pair(0.3, np.nan).p) == (0.2, 0.3, 0.3)


def is_true(sentence, pairs):
    """Judge a sentence about at least three models by their pairs alone."""
    better = {pair.ordered for pair in pairs if pair.differ}
    names = {name for pair in pairs for name in (pair.first, pair.second)}
    lower = {pair.ordered[1] for pair in pairs if pair.difference != 0}
    told = set(re.findall(r"\b[A-H]\b", sentence))
    top, rest = sentence[0], set(re.findall(r"\b[A-H]\b", sentence[1:]))
    if sentence.startswith(("Among", "Between")):
        return not any(set(pair) <= told for pair in better)
    if counts := re.fullmatch(r"Of (\d+) pairs, (\d+) differs? in .*\.", sentence):
        return [int(count) for count in counts.groups()] == [len(pairs), len(better)]
    if counts := re.fullmatch(r"Of the (\d+) pairs without (\w) (.*) be ranked\.", sentence):
        others = [pair for pair in pairs if counts[2] not in (pair.first, pair.second)]
        ranked = sum(pair.differ for pair in others)
        both = f"{ranked} can and {len(others) - ranked} cannot"
        words = {0: "none can", len(others): "all can"}.get(ranked, both)
        return (int(counts[1]), counts[3]) == (len(others), words)
    if "every other" in sentence:
        return {(top, name) for name in names - {top}} <= better
    if "any other" in sentence:
        return top not in lower and not any(top in pair for pair in better)
    if "highest" in sentence and top in lower:
        return False
    if "better than" in sentence:
        return {(top, name) for name in rest} <= better
    if "cannot be" in sentence:
        return not any({top, name} in map(set, better) for name in rest)
    raise AssertionError(sentence)


def test_what_is_said_is_true_of_any_pairs():
    generator = np.random.default_rng(0)
    for _ in range(400):
        areas = generator.integers(0, 8, generator.integers(3, 9)) / 8
        names = "ABCDEFGH"[: len(areas)]
        few = generator.random()
        differing = [
            a + b for a, b in itertools.combinations(names, 2) if generator.random() < few**2
        ]
        pairs = told(areas, *differing)
        sentences = re.findall(r"[^.]+\.", in_words(pairs))
        assert 1 <= len(sentences) <= 4
        if len(sentences) > 1:
            assert all(is_true(sentence.strip(), pairs) for sentence in sentences), in_words(pairs)
        else:
            assert not any(pair.differ for pair in pairs)
