"""What `compare --anomaly` sets beside each other: detectors, classifiers, plain scores."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Estimate, estimates
from models.comparison.entries import Entry
from models.evaluation.predictions import read_predicted
from models.evaluation.scored import UNKNOWN
from models.evaluation.units import Unit, grouped
from pipeline.errors import UserError
from pipeline.manifest import LABELS, NORMAL, Row
from pipeline.paths import from_here
from pipeline.records import read_json
from pipeline.runs import ENSEMBLE, MODEL_FILE, Run, is_detector
from pipeline.stages.evaluation import Compare

CLASSIFIER, DETECTOR, PLAIN = "classifier", "detector", "plain"
MALIGNANT = LABELS[1]
TOLD = ("pointing", "pixel_auc")  # scores of explanations.json


@dataclass(frozen=True)
class Subject:
    """A run, or a plain score."""

    name: str  # of the run, or the score's title
    kind: str  # CLASSIFIER, DETECTOR or PLAIN
    unit: Unit  # test images, breasts or patients with their truth and scores
    area: Estimate  # AUC of the dataset's question
    normal: Estimate  # AUC of malignant against normal alone; NaN where neither is known
    run: Run | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # model.json
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # metrics.json
    threshold: float = 0.5  # operating point

    @property
    def is_ensemble(self) -> bool:
        """Whether it is the mean of several runs."""
        return self.run is not None and self.run.model == ENSEMBLE

    @property
    def val_auc(self) -> float:
        """AUC on validation, by which one of several runs is chosen; 0 where there is none."""
        split = self.measured.get("splits", {}).get("val")
        return float(split["metrics"]["auc"]["value"] or 0) if split else 0.0

    @property
    def localisation(self) -> dict[str, Mapping[str, Any] | None]:
        """What `explain` scored of its maps beside masks, by name; None where it did not."""
        found: dict[str, Mapping[str, Any] | None] = dict.fromkeys(TOLD)
        if self.run is None:
            return found
        path = self.run.folder / "explanations" / "explanations.json"
        if path.is_file():
            scores = read_json(path)["scores"].get("map", {}).get("all", {})
            found |= {name: scores.get(name) for name in TOLD}
        return found


def chosen_group(entries: Sequence[Entry], detectors: set[str], runs: Path) -> list[Entry]:
    """Return the runs on the test set that most runs were tested on, a detector among them.

    Args:
        entries: Runs and baselines.
        detectors: The names of runs that are anomaly detectors.
        runs: The folder of runs, for the message.

    Raises:
        UserError: No detector is among them.
    """
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "run":
            groups.setdefault(entry.tested_on, []).append(entry)
    fitting = [group for group in groups.values() if any(one.name in detectors for one in group)]
    if not fitting:
        raise UserError(
            f"{runs}: holds no evaluated anomaly detector",
            "run: python main.py train --model anomaly, then evaluate --run all",
        )
    return max(fitting, key=len)


def detectors_of(runs: Sequence[Run]) -> set[str]:
    """Return the names of the runs that are anomaly detectors."""
    return {run.name for run in runs if is_detector(read_json(run.folder / MODEL_FILE))}


def dataset_of(group: Sequence[Entry], detectors: set[str]) -> Path:
    """Return the dataset whose images are measured: that of the first detector.

    Raises:
        UserError: It is gone.
    """
    said = next(one.tested.data for one in group if one.name in detectors)
    data = from_here(Path(said))
    if not said or not data.is_dir():
        raise UserError(
            f"{said or 'the dataset'}: is gone, and brightness and contrast of its images are what "
            "a detector has to beat",
            "evaluate the detectors again with --data",
        )
    return data


def read_subject(entry: Entry, run: Run, rows: Mapping[str, Row], options: Compare) -> Subject:
    """Return a run as a subject.

    Args:
        entry: What `compare` measured of it.
        run: Its folder.
        rows: The dataset's, by image_id: they know which images are normal.
        options: Of what is counted, and of the bootstrap.

    Raises:
        UserError: A file of it cannot be read.
    """
    facts, measured = read_json(run.folder / MODEL_FILE), run.metrics()
    said, scores = read_predicted(run.folder / "predictions_test.csv")
    known = [rows.get(row.image_id, row) for row in said]
    unit = grouped(known, np.array(scores), options.unit, str(measured["aggregate"]))
    kind = DETECTOR if is_detector(facts) else CLASSIFIER
    return Subject(
        run.name, kind, unit, entry.scored.estimates["auc"],
        area_of_normals(known, unit, options), run, facts, measured, entry.scored.point.threshold,
    )  # fmt: skip


def plain_subject(
    title: str, scores: Mapping[str, float], rows: Sequence[Row], options: Compare
) -> Subject:
    """Return scores of images as a subject.

    Args:
        title: What they are called.
        scores: By image_id, in [0, 1]; higher is more suspicious.
        rows: Of the test images.
        options: Of what is counted, and of the bootstrap.

    Raises:
        UserError: An image has no score.
    """
    if missing := [row.image_id for row in rows if row.image_id not in scores]:
        raise UserError(
            f"{len(missing)} test images ({missing[0]}, ...) cannot be read from the dataset",
            "evaluate again",
        )
    unit = grouped(rows, np.array([scores[row.image_id] for row in rows]), options.unit, "max")
    area = estimates(
        unit.targets, unit.scores, 0.5, unit.patients, options.replicates, options.seed
    )["auc"]
    return Subject(title, PLAIN, unit, area, area_of_normals(rows, unit, options))


def area_of_normals(rows: Sequence[Row], unit: Unit, options: Compare) -> Estimate:
    """Return the AUC of malignant against normal items alone; NaN where neither is known.

    Args:
        rows: Of the images behind the unit, in their order.
        unit: With their scores.
        options: Of what is counted, and of the bootstrap.
    """
    if not any(row.diagnosis == NORMAL for row in rows):
        return UNKNOWN
    found = np.array([row.diagnosis == MALIGNANT for row in rows], np.float64)
    malignant: NDArray[np.bool_] = grouped(rows, found, options.unit, "max").scores > 0
    chosen = malignant | unit.normal
    if not malignant.any() or not unit.normal.any():
        return UNKNOWN
    patients = [who for who, is_in in zip(unit.patients, chosen, strict=True) if is_in]
    return estimates(
        malignant[chosen], unit.scores[chosen], 0.5, patients, options.replicates, options.seed
    )["auc"]


def interval(found: Any) -> dict[str, float | None]:
    """Return a figure with its interval as JSON has it: there is no NaN."""
    return {
        part: None if math.isnan(value := getattr(found, part)) else float(value)
        for part in ("value", "low", "high")
    }


def representatives(subjects: Sequence[Subject]) -> list[Subject]:
    """Return one run of each model: the best on validation, the newest of equal ones."""
    best: dict[str, Subject] = {}
    for one in subjects:
        if one.run is None:
            continue
        known = best.get(one.run.model)
        if known is None or (one.val_auc, one.name) > (known.val_auc, known.name):
            best[one.run.model] = one
    return list(best.values())
