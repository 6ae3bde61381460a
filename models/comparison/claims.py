"""What may be said of detectors beside classifiers, from intervals alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.comparison.costs import Costs, Range
from models.comparison.seeds import Stability, ratio_of_spreads
from models.comparison.significance import Pair
from models.comparison.subjects import CLASSIFIER, DETECTOR, PLAIN, Subject

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """A difference in AUC as it may be said."""

    difference: float  # of the first less the second
    low: float
    high: float
    # "better", "worse", "equal" (its interval includes 0), "not confirmed" (Holm's p does not hold)
    # or "unknown" (too few patients).
    word: str

    @property
    def text(self) -> str:
        """The figures, to stand in brackets."""
        return f"{self.difference:+.3f} AUC, {self.low:+.3f} to {self.high:+.3f}"


def verdict(pairs: Sequence[Pair], first: str, second: str) -> Verdict:
    """Return what a pair says of the first of two names, in whichever order it was compared."""
    pair = next(one for one in pairs if {one.first, one.second} == {first, second})
    found = pair.difference, pair.low, pair.high
    if pair.first != first:
        found = -pair.difference, -pair.high, -pair.low
    difference, low, high = found
    if math.isnan(low) or math.isnan(pair.p_adjusted):
        word = "unknown"
    elif low <= 0 <= high:
        word = "equal"
    elif pair.p_adjusted > LEVEL:
        word = "not confirmed"
    else:
        word = "better" if low > 0 else "worse"
    return Verdict(difference, low, high, word)


def beaten(subject: Subject, subjects: Sequence[Subject], pairs: Sequence[Pair]) -> dict[str, bool]:
    """Return, by title, whether a run is better than each plain score."""
    return {
        one.name: verdict(pairs, subject.name, one.name).word == "better"
        for one in subjects if one.kind == PLAIN
    }  # fmt: skip


def on_accuracy(
    chosen: Sequence[Subject],
    subjects: Sequence[Subject],
    pairs: Sequence[Pair],
    labels: Mapping[str, str],
) -> list[str]:
    """Say which is more accurate: one run of each model, where it beats the plain scores.

    Args:
        chosen: One run of each model.
        subjects: All, the plain scores among them.
        pairs: Of them, from `significance.compare_all`.
        labels: What each run is called, by name.
    """
    lines, sound = [], []
    silent: dict[tuple[str, ...], list[str]] = {}
    for one in chosen:
        missed = tuple(name for name, is_won in beaten(one, subjects, pairs).items() if not is_won)
        if missed:
            silent.setdefault(missed, []).append(labels[one.name])
        else:
            sound.append(one)
    for missed, names in silent.items():
        plain = listed([name[0].lower() + name[1:] for name in missed], "or")
        beat = "does not beat" if len(names) == 1 else "do not beat"
        lines.append(f"No claim for {listed(names)}, which {beat} {plain} alone.")
    won = [labels[one.name] for one in sound if one.kind == DETECTOR]
    if won:
        lines.append(f"{listed(won)} {'beats' if len(won) == 1 else 'beat'} both plain scores.")
    others = [one for one in sound if one.kind == CLASSIFIER]
    for one in (one for one in sound if one.kind == DETECTOR):
        words: dict[str, list[str]] = {}
        for other in others:
            found = verdict(pairs, one.name, other.name)
            words.setdefault(found.word, []).append(f"{labels[other.name]} ({found.text})")
        lines += [_accuracy_line(labels[one.name], word, found) for word, found in words.items()]
    if any(one.kind == CLASSIFIER for one in chosen) and not (won and others):
        lines.append("So no detector can be called more or less accurate than a classifier.")
    return lines


def _accuracy_line(name: str, word: str, others: Sequence[str]) -> str:
    than = listed(others)
    return {
        "better": f"{name} is more accurate than {than}.",
        "worse": f"{name} is less accurate than {than}.",
        "equal": f"{name} is equal in accuracy, as far as the intervals tell, to {than}.",
        "not confirmed": f"{name} differs from {than}, but not after correction for all tests: "
        "no claim.",
        "unknown": f"{name} cannot be compared with {than}: there are too few patients.",
    }[word]


def on_reliability(found: Sequence[Stability]) -> list[str]:
    """Say whose AUC moves less with the seed."""
    known = [one for one in found if len(one.areas) > 1]
    single = [one.model for one in found if len(one.areas) == 1]
    lines = []
    for one in (one for one in known if one.kind == DETECTOR):
        for other in (other for other in known if other.kind == CLASSIFIER):
            ratio, low, high = ratio_of_spreads(one, other)
            if math.isnan(ratio):
                continue
            word = _than(low, high, "more reliable than", "less reliable than",
                         "equally reliable, as far as the interval tells, to")  # fmt: skip
            lines.append(
                f"{one.model} is {word} {other.model}: the AUC's standard deviation over seeds is "
                f"{ratio:.2f} times as large ({low:.2f} to {high:.2f})."
            )
    if single:
        lines.append(f"How reliable {'is' if len(single) == 1 else 'are'} {listed(single)}? Not "
                     "known: one seed was trained.")  # fmt: skip
    return lines


def on_cost(
    chosen: Sequence[Subject], keys: Mapping[str, str], costs: Costs, labels: Mapping[str, str]
) -> list[str]:
    """Say what is cheaper: each detector beside the classifier that is best on validation.

    Args:
        chosen: One run of each model.
        keys: What the costs of a run's network go by, by the run's name.
        costs: What was measured.
        labels: What each run is called, by name.
    """
    classifiers = [one for one in chosen if one.kind == CLASSIFIER and one.name in keys]
    if not classifiers:
        return []
    other = max(classifiers, key=lambda one: one.val_auc)
    lines = []
    for one in chosen:
        if one.kind != DETECTOR or one.name not in keys:
            continue
        parts = []
        for what, text in (("step", "a training step"), ("forward", "a forward pass")):
            ratio = costs.ratio(keys[one.name], keys[other.name], what)
            parts.append(f"{_cost_word(ratio)} in {text} ({_times(ratio)} times the seconds)")
        lines.append(f"{labels[one.name]} is {listed(parts)} than {labels[other.name]}.")
    return lines


def _cost_word(ratio: Range) -> str:
    return _than(ratio.low, ratio.high, "cheaper", "dearer", "not cheaper nor dearer")


def _times(ratio: Range) -> str:
    return f"{ratio.value:.2f}, {ratio.low:.2f} to {ratio.high:.2f}"


def _than(low: float, high: float, below: str, above: str, equal: str) -> str:
    if high < 1:
        return below
    return above if low > 1 else equal


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as a sentence lists them; of more than 8 the first 7 and a count."""
    if len(names) > 8:
        names = [*names[:7], f"{len(names) - 7} more"]
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
