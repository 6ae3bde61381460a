"""Sanity baselines on the test images of the runs, and how far each run is from each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interface.report.reading.runs import RunView
from interface.report.reading.scores import UNITS, Interval, interval_of
from interface.report.sheets import Note, Sheet, run_row
from models.evaluation.tested import kept_baselines
from pipeline.manifest import Row

WITHOUT_THRESHOLD = ("auc", "pr_auc", "brier", "ece", "pf1")  # a baseline has no operating point
CHANCE = ("background", "untrained", "shuffled")  # that must not be better than guessing
PREDICTS = 0.55  # the lower end of an AUC's interval above which evaluate, too, calls it so
REPLICATES = 1000  # of the bootstrap of models against baselines


@dataclass(frozen=True)
class Baseline:
    """What a score without a trained network reaches on the test images."""

    name: str  # "background", "assessment" and the like
    title: str  # as people read it
    description: str  # what it is, in a sentence
    problem: str  # why there is none, or empty
    # Figures of images, breasts and patients; empty where there is none.
    units: Mapping[str, Mapping[str, Interval]]
    # AUC of each run, by name, minus that of the baseline, on the same images.
    differences: Mapping[str, Interval]

    @property
    def auc(self) -> Interval:
        """Of single images."""
        return self.units["image"]["auc"]

    @property
    def tells(self) -> bool:
        """Whether it is better than guessing where it must not be."""
        return self.name in CHANCE and bool(self.units) and (self.auc.low or 0) > PREDICTS

    def unbeaten(self, run: RunView) -> bool:
        """Whether a run cannot be said to be better than it."""
        found = self.differences.get(run.name)
        return found is not None and found.value is not None and not _above_zero(found)


def _above_zero(difference: Interval) -> bool:
    """Return whether all of an interval is above zero; few patients give none, so it is not."""
    return (difference.low or 0) > 0


def baselines_of(runs: Sequence[RunView], folder: Path) -> list[Baseline]:
    """Return the baselines of runs that were tested on the same images.

    Those that read pixels depend on the preprocessing, so each kind of it has its own.

    Args:
        runs: Of one test set.
        folder: The folder of all runs, with the baselines in it.
    """
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for run in runs:
        if not found.get(run.tested.preprocessing):
            found[run.tested.preprocessing] = kept_baselines(folder, run.data_hash)
    several = sum(map(bool, found.values())) > 1
    return [
        _judged(item, runs, f" ({preprocessing or 'unknown'})" if several else "")
        for preprocessing, kept in found.items()
        for item in kept
    ]


def _judged(item: Mapping[str, Any], runs: Sequence[RunView], of: str) -> Baseline:
    """Measure a baseline on the test images that it has a probability for."""
    from models.bootstrap import estimates
    from models.evaluation.units import grouped

    run = runs[0]
    known = [one for one in run.predictions["test"] if one.image_id in item["test"]]
    units: dict[str, Mapping[str, Interval]] = {}
    differences: dict[str, Interval] = {}
    if len({one.malignant for one in known}) == 2:
        rows = [
            Row(image_id=one.image_id, patient_id=one.patient_id, laterality=one.laterality,
                split="test", label=one.label, path="")
            for one in known
        ]  # fmt: skip
        scores = np.array([float(item["test"][one.image_id]) for one in known])
        for name in UNITS:
            unit = grouped(rows, scores, name, run.aggregate)
            found = estimates(
                unit.targets, unit.scores, 0.5, unit.patients, run.replicates, run.seed
            )
            units[name] = {metric: interval_of(vars(found[metric])) for metric in WITHOUT_THRESHOLD}
        differences = _differences(rows, scores, runs)
    return Baseline(
        name=str(item["name"]),
        title=str(item["title"]) + of,
        description=str(item["description"]),
        problem=str(item["problem"]) or ("" if units else "no prediction of these images"),
        units=units,
        differences=differences,
    )


def _differences(
    rows: Sequence[Row], scores: np.ndarray, runs: Sequence[RunView]
) -> dict[str, Interval]:
    """Return the paired difference in AUC of every run from a baseline, run minus baseline."""
    from models.bootstrap import enough_patients
    from models.comparison.significance import bootstrap_aucs, bootstrap_difference
    from models.metrics import auc

    found: dict[str, np.ndarray] = {}
    for run in runs:
        said = {one.image_id: one.probability for one in run.predictions["test"]}
        if all(row.image_id in said for row in rows):
            found[run.name] = np.array([said[row.image_id] for row in rows])
    targets = np.array([row.is_positive for row in rows])
    patients = [row.patient_id for row in rows]
    table = np.stack([scores, *found.values()])
    areas = [auc(targets, line) for line in table]
    drawn = np.full((1, len(table)), np.nan)
    if enough_patients(targets, np.array(patients)):
        drawn = bootstrap_aucs(targets, table, patients, REPLICATES, runs[0].seed)
    differences = (
        bootstrap_difference(areas[place] - areas[0], drawn[:, place] - drawn[:, 0])
        for place in range(1, len(table))
    )
    return {name: interval_of(vars(one)) for name, one in zip(found, differences, strict=True)}


def against(runs: Sequence[RunView], baselines: Sequence[Baseline], mark: str) -> Sheet | None:
    """Return how far each run is from each baseline; None where there is no baseline."""
    measured = [one for one in baselines if one.differences]
    if not measured:
        return None
    rows = [
        run_row(run, [_difference(one.differences.get(run.name)) for one in measured])
        for run in runs
    ]
    caption = (
        "AUC of each run minus that of each baseline, on the same images and over the same "
        "bootstrap draws. Bold: the run is better, its 95\u00a0% interval lies above zero."
    )
    return Sheet(f"against_baselines{mark}", caption, ["Run", *(o.title for o in measured)], rows)


def _difference(found: Interval | None) -> Note | None:
    if found is None or found.value is None:
        return None
    between = f"{found.low:+.3f} to {found.high:+.3f}" if found.known else ""
    return Note(f"{found.value:+.3f}", between, _above_zero(found))
