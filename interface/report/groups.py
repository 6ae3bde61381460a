"""Runs that were tested on the same images: their figures, baselines beside them, significance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interface.report.baselines import Baseline, against, baselines_of
from interface.report.detectors import measures
from interface.report.reading.runs import RunView
from interface.report.reading.scores import UNITS, Scores
from interface.report.reading.words import count
from interface.report.sheets import Sheet, SheetRow, forest_of, rare_forest_of, run_row
from interface.report.significance import Significance, significance

SHOWN = {
    "auc": "AUC", "pr_auc": "PR AUC", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy", "mcc": "MCC", "brier": "Brier", "ece": "ECE",
}  # fmt: skip
RARE_SHOWN = {  # where few images are positive
    "pr_auc": "PR AUC", "pf1": "pF1", "f1": "F1", "auc": "AUC", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "precision": "Precision", "ece": "ECE",
}  # fmt: skip
PART = "Sanity baselines: scores without a trained network"


@dataclass(frozen=True)
class Group:
    """Runs that were tested on the same images, the highest test AUC first."""

    runs: Sequence[RunView]
    baselines: Sequence[Baseline]
    tables: Mapping[str, Sheet]
    against: Sheet | None  # runs against baselines, where there are any
    significance: Significance | None  # None with a single run, or without predictions
    confusion: Sheet

    @property
    def best(self) -> RunView:
        """The run that was best on validation: the test images had no say in choosing it."""
        return max(self.runs, key=lambda run: run.val_auc)

    @property
    def test(self) -> Scores:
        """Of the first run; how many images and patients there are holds for all."""
        return self.runs[0].test


def groups_of(runs: Sequence[RunView], folder: Path) -> list[Group]:
    """Part runs by the images they were tested on, since only such figures compare.

    Args:
        runs: In the order in which they are to be listed.
        folder: The folder of all runs, with the baselines in it.

    Returns:
        The group of most runs first.
    """
    by_test_set: dict[Any, list[RunView]] = {}
    for run in runs:
        by_test_set.setdefault(run.test_set, []).append(run)
    ordered = sorted(by_test_set.values(), key=lambda group: (-len(group), -group[0].test.images))
    return [_group(group, folder, place) for place, group in enumerate(ordered, start=1)]


def _group(runs: Sequence[RunView], folder: Path, place: int) -> Group:
    baselines = baselines_of(runs, folder)
    mark = "" if place == 1 else f"_{place}"
    return Group(
        runs=runs,
        baselines=baselines,
        tables={unit: _table(unit, runs, baselines, mark) for unit in UNITS},
        against=against(runs, baselines, mark),
        significance=significance(runs, mark),
        confusion=_confusion(runs, mark),
    )


def _table(unit: str, runs: Sequence[RunView], baselines: Sequence[Baseline], mark: str) -> Sheet:
    test = runs[0].units[unit].splits["test"]
    every_measure = RARE_SHOWN if runs[0].rare else SHOWN
    shown = {name: every_measure[name] for name in measures(every_measure, runs)}
    leading = next(iter(shown))
    intervals = [run.units[unit].splits["test"].of(leading) for run in runs]
    every = [*intervals, *(one.units[unit][leading] for one in baselines if one.units)]
    forest = forest_of(f"Interval of the test {shown[leading]}", every)
    if runs[0].rare:
        forest = rare_forest_of(f"Interval of the test {shown[leading]}", every, test.base_rate)
    several = len({run.tested.preprocessing for run in runs}) > 1
    rows = []
    for run, area in zip(runs, intervals, strict=True):
        scores = run.units[unit].splits["test"]
        cells = [scores.of(name) for name in shown]
        row = run_row(run, cells, whisker=forest.whisker(area))
        if several:
            row = replace(row, detail=f"{row.detail}, {run.tested.preprocessing or 'unknown'}")
        rows.append(row)
    for one in baselines:
        figures = one.units.get(unit, {})
        rows.append(
            SheetRow(
                head=one.title,
                cells=[figures.get(name) for name in shown],
                detail=one.problem,
                part=PART,
                whisker=forest.whisker(figures[leading]) if figures else None,
            )
        )
    how = {"max": "highest", "mean": "mean"}.get(runs[0].aggregate, runs[0].aggregate)
    score = "" if unit == "image" else f" A {unit}'s score is the {how} of its images'."
    caption = (
        f"Held-out test set: {count(test.images, unit)} of {count(test.patients, 'patient')}, "
        f"{test.malignant:,} {runs[0].labels.positive}, so that guessing has a PR AUC of "
        f"{test.base_rate or 0:.3f}.{score} "
        + (
            f"Small figures: 95\u00a0% intervals, {runs[0].replicates:,} bootstrap replicates over "
            "patients."
            if any(area.known for area in intervals)
            else "There are no intervals: the patients are too few."
        )
    )
    if len(shown) < len(every_measure):
        caption += (
            " Measures of probabilities stand with each classifier: an anomaly detector's scores "
            "are errors."
        )
    columns = ["Run", *shown.values()]
    return Sheet(f"comparison_{unit}{mark}", caption, columns, rows, forest)


def _confusion(runs: Sequence[RunView], mark: str) -> Sheet:
    cells = {"tn": "True negative", "fp": "False positive", "fn": "False negative",
             "tp": "True positive"}  # fmt: skip
    rows = [
        SheetRow(run.title, [run.threshold_text(unit),
                             *(run.units[unit].splits["test"].confusion[cell] for cell in cells)],
                 run.folder.name, part=f"By {unit}")
        for unit in UNITS for run in runs
    ]  # fmt: skip
    caption = "Confusion matrices on test, each at its operating point from validation"
    return Sheet(f"confusion{mark}", caption, ["Run", "Threshold", *cells.values()], rows)
