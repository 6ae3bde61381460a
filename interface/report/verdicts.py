"""What a reader has to know before any figure: the report's first screen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from interface.report.data import ShortcutView
from interface.report.groups import Group
from interface.report.reading.words import count, listed, sentence
from interface.report.significance import titles_of

NOTHING = {
    "background": (
        "The background alone predicts the label, with the breast masked out.",
        "the figures below measure how films were made as much as what they show",
    ),
    "untrained": (
        "A network that learnt nothing predicts the label.",
        "the classes must differ in brightness or layout",
    ),
    "shuffled": (
        "A model of shuffled labels predicts the label.",
        "the classes must differ in brightness or layout",
    ),
}


@dataclass(frozen=True)
class Alarm:
    """Something that stands above every figure; a grave one takes all figures their worth."""

    grave: bool
    title: str
    text: str
    link: tuple[str, str] = ("", "")


def alarms_of(
    groups: Sequence[Group],
    shortcuts: Mapping[str, Sequence[ShortcutView]],
    synthetic: Sequence[bool],
) -> list[Alarm]:
    """Return what stands on the first screen, the gravest first.

    Args:
        groups: The runs by the images they were tested on, the main one first.
        shortcuts: The probes of every dataset.
        synthetic: For every dataset, whether a program drew it.
    """
    found = [*_shortcuts(shortcuts), *_from_nothing(groups)]
    found += [*_rare(groups[0]), *_unbeaten(groups[0])]
    if any(synthetic):
        drawn = "Every image was"
        if not all(synthetic):
            drawn = f"The images of {sum(synthetic)} of {len(synthetic)} datasets were"
        found.append(
            Alarm(
                False,
                "Synthetic collection: these figures say nothing about real mammograms.",
                f"{drawn} drawn by a program.",
            )
        )
    return found


def _shortcuts(shortcuts: Mapping[str, Sequence[ShortcutView]]) -> Iterator[Alarm]:
    seen = [view for views in shortcuts.values() for view in views if view.seen and view.warnings]
    if seen:
        warnings = dict.fromkeys(text for view in seen for text in view.warnings)
        yield Alarm(
            True,
            "These figures cannot be believed: something else than the breast predicts the label.",
            "Shortcut probe: " + "; ".join(warnings) + ". A network can score as high without "
            "looking at a breast.",
            ("data", "the data"),
        )


def _from_nothing(groups: Sequence[Group]) -> Iterator[Alarm]:
    """Warn of baselines that are better than guessing where there must be nothing to go by."""
    areas: dict[str, str] = {}
    for group in groups:
        for one in group.baselines:
            if one.tells:
                areas.setdefault(one.name, one.auc.in_words)
    for name, (title, meaning) in NOTHING.items():
        if name in areas:
            text = f"It reaches a test AUC of {areas[name]}: {meaning}."
            yield Alarm(True, title, text, ("models", "the baselines"))


def _rare(group: Group) -> Iterator[Alarm]:
    """Say why accuracy means nothing where few test images are positive."""
    test, share = group.best.test, group.best.test.base_rate
    if group.best.rare and share is not None:
        positive = group.best.labels.positive
        soft = "" if group.best.anomaly else ", and probabilistic F1"
        yield Alarm(
            False,
            f"Only {share:.1%} of the test images are {positive}, so accuracy means nothing here.",
            f"Calling none of the {count(test.images, 'image')} {positive} has an accuracy of "
            f"{1 - share:.3f}. What counts is how much higher PR AUC is than {share:.3f}, which "
            f"guessing reaches{soft}.",
        )


def _unbeaten(group: Group) -> Iterator[Alarm]:
    measured = [one for one in group.baselines if one.differences]
    best, titles = group.best, titles_of(group.runs)
    named = [f"{one.title} (AUC {one.auc.value_text})" for one in measured if one.unbeaten(best)]
    others = [
        titles[run.name]
        for run in group.runs
        if run is not best and any(one.unbeaten(run) for one in measured)
    ]
    if not named and not others:
        return
    if named:
        every = f"any of the {len(named)} sanity baselines"
        than = every if len(named) == len(measured) > 1 else listed(named)
        title = f"{titles[best.name]} is not shown to be better than {than}."
    else:
        title = sentence(_unbeaten_others(others, len(group.runs), "run"))
    rest = ""
    if named and others:
        rest = " " + sentence(_unbeaten_others(others, len(group.runs) - 1, "other run"))
    differences = [found for one in measured for found in one.differences.values()]
    reason = "With so few patients, the difference in AUC has no interval."
    if any(found.known for found in differences):
        reason = (
            "The 95\u00a0% interval of the difference in AUC on the same images, over patients, "
            "reaches zero or below."
        )
    yield Alarm(False, title, reason + rest, ("models", "the comparison"))


def _unbeaten_others(names: Sequence[str], of: int, noun: str) -> str:
    """Say how many of some runs are not better than every baseline, in agreement with numbers."""
    if len(names) == of <= 2:
        who = f"the {noun} is not" if of == 1 else f"neither of the {noun}s is"
    elif len(names) == of:
        who = f"none of the {count(of, noun)} is"
    else:
        who = f"{len(names)} of the {count(of, noun)} {'is' if len(names) == 1 else 'are'} not"
    return f"{who} shown to be better than every baseline"


def result_of(group: Group) -> tuple[str, str, str]:
    """Return the main result as who, what and on which images.

    The run is the one that was best on validation: choosing it by its test AUC would make that
    AUC too high.
    """
    best = group.best
    several = len(group.runs) > 1
    who = titles_of(group.runs)[best.name]
    how = "best of {} runs on validation" if "val" in best.scores else "highest of {} runs on test"
    chosen = f", the {how.format(len(group.runs))}," if several else ""
    test = best.test
    unit = {"crop": "crop", "patch": "patch"}.get(best.unit, "image")
    if best.rare:
        what = f"{test.of('pr_auc').in_words}, where guessing has {test.base_rate or 0:.3f}"
        soft = f", and a probabilistic F1 of {test.of('pf1').in_words}"
        return (
            f"{who}{chosen} reaches a test PR AUC of",
            what + ("" if best.anomaly else soft),
            f"on {count(test.images, unit)} of {count(test.patients, 'patient')}",
        )
    return (
        f"{who}{chosen} reaches a test AUC of",
        test.of("auc").in_words,
        f"on {count(test.images, unit)} of {count(test.patients, 'patient')}",
    )
