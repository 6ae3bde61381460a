"""From a run's scores to figures: calibration, operating points, images, breasts and patients."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.evaluation.calibration import (
    LEAST_NORMAL,
    Calibration,
    fit_calibration,
    fit_normals,
    logit,
)
from models.evaluation.operating_point import BY_NORMALS, OperatingPoint, choose, choose_by_normals
from models.evaluation.scored import ScoredSplit
from models.evaluation.scoring import ScoredRun
from models.evaluation.units import UNITS, Unit, grouped
from pipeline.errors import UserError
from pipeline.runs import Run, is_detector
from pipeline.stages.evaluation import AUTO, Evaluate

TARGETS = {"sensitivity": 0.9, "specificity": 0.9, "cost": 10.0, "quantile": 0.95}
SHARES = ("sensitivity", "specificity", "quantile")  # of which a target is at most 1
ByUnit = Mapping[str, Mapping[str, ScoredSplit]]  # by unit, then by split


def settled(options: Evaluate, run: Run, detector: bool) -> Evaluate:
    """Return options with operating point and calibration that suit a run.

    Args:
        options: As they were given.
        run: For the message.
        detector: Whether it is an anomaly detector's.

    Raises:
        UserError: A calibration is asked for of what gives no probabilities; or a target is beyond
            what it is of.
    """
    point, calibration = options.operating_point, options.calibration
    if detector and calibration not in (AUTO, "none"):
        raise UserError(
            f"--calibration {calibration}: {run.name} gives errors, which are no probabilities",
            "leave it out",
        )
    if detector and point == "half":
        raise UserError(
            f"--operating-point half: {run.name} gives errors, which are no probabilities",
            "leave it out",
        )
    if point in SHARES and (options.target or 0) > 1:
        raise UserError(f"--target {options.target:g}: a {point} is at most 1", "give one below it")
    return dataclasses.replace(
        options,
        operating_point=("normals" if detector else "youden") if point == AUTO else point,
        calibration="temperature" if calibration == AUTO else calibration,
    )


def calibrated(options: Evaluate, scored_run: ScoredRun) -> Calibration:
    """Fit the calibration of a run on its validation images.

    Raises:
        UserError: It is an anomaly detector, and too few of them are normal, or all alike.
    """
    val, detector = scored_run.splits.get("val"), is_detector(scored_run.facts)
    if val is None and detector:
        raise UserError(
            f"{scored_run.run.name}: has no validation images, whose errors set the threshold",
            "give the file a column split, with val and test",
        )
    if val is None:
        return fit_calibration("none", np.zeros(0, bool), np.zeros(0))
    if detector:
        return fit_normals(val.normal, val.values)
    return fit_calibration(options.calibration, val.targets, val.values)


def measure_units(options: Evaluate, scored_run: ScoredRun, calibration: Calibration) -> ByUnit:
    """Measure images, breasts and patients, each at an operating point of its own."""
    by_unit: dict[str, dict[str, ScoredSplit]] = {}
    for unit in UNITS:
        items = {
            name: grouped(part.rows, calibration.apply(part.values), unit, options.aggregate)
            for name, part in scored_run.splits.items()
        }
        point = OperatingPoint(0.5, "0.5, because there are no validation images")
        if "val" in items:
            of_images = by_unit["image"]["val"].point if by_unit else None
            point = _point(options, items["val"], of_images)
        by_unit[unit] = {
            name: ScoredSplit.of(
                one, point, options.replicates, options.seed, calibration.normal is None
            )
            for name, one in items.items()
        }
    return by_unit


def _point(options: Evaluate, val: Unit, of_images: OperatingPoint | None) -> OperatingPoint:
    """Choose an operating point; where too few breasts or patients are normal, that of images."""
    choice = options.operating_point
    target = options.target or TARGETS.get(choice, 0.0)
    if choice in BY_NORMALS:
        if of_images and np.count_nonzero(val.normal) < LEAST_NORMAL:
            return of_images
        target = options.k if choice == "normals" else target
        return choose_by_normals(choice, target, val.normal, val.scores)
    return choose(choice, target, val.targets, val.scores)


def anomaly_figures(
    scored_run: ScoredRun, calibration: Calibration, images: Mapping[str, ScoredSplit]
) -> dict[str, Any] | None:
    """Return what metrics.json says of an anomaly detector's threshold; None of a classifier."""
    if calibration.normal is None:
        return None
    mean, sd = calibration.normal
    return {
        "error": scored_run.facts["head"]["error"],
        "mean": mean,
        "sd": sd,
        "threshold": mean + sd * float(logit(np.array(images["test"].point.threshold))),
        "normals": {name: int(one.unit.normal.sum()) for name, one in images.items()},
        "flagged": {name: one.flagged for name, one in images.items()},
    }
