"""Runs that differ by fold or seed alone: mean, spread, and what all folds say together."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from interface.report.detectors import measures
from interface.report.reading.runs import Prediction, RunView
from interface.report.reading.scores import UNKNOWN, Interval, interval_of
from interface.report.sheets import Cell, Note, Sheet, SheetRow

FREE = {"fold", "seed", "seeds", "resume", "runs", "workers", "device", "model", "missing"}
SHOWN = {
    "auc": "AUC", "pr_auc": "PR AUC", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy", "brier": "Brier",
}  # fmt: skip


@dataclass(frozen=True)
class Repeats:
    """Two runs or more of one model with the same settings, on the same test images."""

    runs: Sequence[RunView]  # of each fold and seed
    # AUC of the validation images of all folds together, each scored by runs that were not trained
    # on its patient; unknown without folds.
    pooled: Interval
    images: int  # how many images that is

    @property
    def title(self) -> str:
        """Its model and what differs: "ResNet18_CFT: 5 folds, 2 seeds"."""
        folds = {run.fold.number for run in self.runs} - {0}
        seeds = {run.record["options"].get("seed") for run in self.runs}
        parts = []
        if folds:
            of = max(run.fold.count for run in self.runs)
            parts.append(
                f"{len(folds)} folds" if len(folds) == of else f"{len(folds)} of {of} folds"
            )
        if len(seeds) > 1 or not folds:
            parts.append(f"{len(seeds)} seeds")
        return ", ".join(parts)


def repeats_of(runs: Sequence[RunView]) -> list[Repeats]:
    """Put runs together that share model, settings and test images; leave out single ones."""
    by_settings: dict[str, list[RunView]] = {}
    for run in runs:
        if run.record["stage"] == "train":
            by_settings.setdefault(_settings(run), []).append(run)
    found = []
    for group in by_settings.values():
        if len(group) > 1:
            group.sort(key=lambda run: (run.fold.number, run.name))
            found.append(Repeats(group, *_pooled(group)))
    return found


def _settings(run: RunView) -> str:
    options = {name: value for name, value in run.record["options"].items() if name not in FREE}
    folded = bool(run.fold.number)
    return json.dumps([run.model, run.test_set, folded, options], sort_keys=True, default=str)


def _pooled(runs: Sequence[RunView]) -> tuple[Interval, int]:
    """Return the out-of-fold AUC over all validation images, and how many they are.

    An image's score is the mean over the runs that validated on it (one for each seed). The
    bootstrap draws patients.
    """
    from models.bootstrap import estimates

    if len({run.fold.number for run in runs}) < 2:
        return UNKNOWN, 0
    said: dict[str, list[Prediction]] = {}
    for run in runs:
        for one in run.predictions["val"]:
            said.setdefault(one.image_id, []).append(one)
    rows = [found[0] for found in said.values()]
    targets = np.array([one.malignant for one in rows], bool)
    if len(set(targets.tolist())) < 2:
        return UNKNOWN, len(rows)
    scores = np.array([np.mean([one.probability for one in found]) for found in said.values()])
    patients = [one.patient_id for one in rows]
    area = estimates(targets, scores, 0.5, patients, runs[0].replicates, runs[0].seed)["auc"]
    return interval_of(vars(area)), len(rows)


def repeats_sheet(found: Sequence[Repeats]) -> Sheet | None:
    """Return mean and spread of all repeats; None without any."""
    if not found:
        return None
    rows = []
    shown = measures(SHOWN, [run for one in found for run in one.runs])
    for one in found:
        cells: list[Cell] = [_spread(run.test.of(name).value for run in one.runs) for name in shown]
        cells.append(_spread(run.val_auc or None for run in one.runs))
        cells.append(one.pooled if one.images else None)
        cells.append(one.images or None)
        rows.append(SheetRow(one.runs[0].model, cells, one.title, one.runs[0].anchor))
    figures = [f"Test {title}" if name == "auc" else title for name, title in SHOWN.items()
               if name in shown]  # fmt: skip
    columns = ["Model", *figures, "Validation AUC", "Out-of-fold AUC", "Its images"]
    caption = (
        "Runs that differ by fold or seed alone, on the same test images: mean \u00b1 standard "
        "deviation over the runs. It is the spread of training, not the uncertainty of the test "
        "set. Out of fold: the validation images of all folds together, each scored by runs that "
        "never saw its patient, with a 95\u00a0% interval over patients."
    )
    return Sheet("folds_and_seeds", caption, columns, rows)


def _spread(values: Iterable[float | None]) -> Note | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    spread = f" \u00b1 {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return Note(f"{statistics.fmean(known):.3f}{spread}")
