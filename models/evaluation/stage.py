"""The stage `evaluate`: what scores are worth, on validation and on held-out test images."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.evaluation.baselines import baselines, unexpected
from models.evaluation.calibration import Calibration, logistic
from models.evaluation.cost import cost_of, known_speed, total_cost
from models.evaluation.domain import learn_domain
from models.evaluation.external import read_external
from models.evaluation.figures import write_figures
from models.evaluation.measuring import anomaly_figures, calibrated, measure_units, settled
from models.evaluation.predictions import ERROR, RAW, maps_are_older, write_predictions
from models.evaluation.scored import (
    ScoredSplit,
    finite,
    images_digest,
    interval_text,
    notes_on_flagged,
    notes_on_rarity,
)
from models.evaluation.scoring import SPLITS, Floats, ScoredRun, members_of, score_run
from models.evaluation.strata import strata
from models.evaluation.units import UNITS
from models.inference import prepare_process, scoring_compute
from models.metrics import METRICS, OF_PROBABILITIES, PF1, WHERE_RARE, auc, measure
from models.registry import NO_WEIGHTS, Head
from pipeline.folds import Fold
from pipeline.labels import Labels, note_on_labels
from pipeline.leftovers import remove_left_over
from pipeline.progress import Progress, Result, Table
from pipeline.provenance import NO_PATIENTS, has_patients
from pipeline.records import SET_ASIDE, read_json, write_json, write_set_aside
from pipeline.runs import ELSEWHERE, MODEL_FILE, Run, find_run, is_detector
from pipeline.runs import METRICS as METRICS_FILE
from pipeline.stages.evaluation import Evaluate
from pipeline.tables import read_table

TITLES = {
    "auc": "ROC AUC", "partial_auc": "Partial AUC", "pr_auc": "PR AUC", "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "precision": "Precision", "f1": "F1", "mcc": "MCC",
    "sensitivity_at_specificity": "Sens. at 0.90 spec.",
    "specificity_at_sensitivity": "Spec. at 0.90 sens.", "brier": "Brier score",
    "ece": "Calibration error", "pf1": "Probabilistic F1",
}  # fmt: skip
# Options that do not change what an image looks like.
PLACES = {"data", "out", "seed", "workers", "fold"}
OLDER_MAPS = "the heat-maps of this run are of its evaluation before this one: explain it again"
FEW_PATIENTS = 50  # below it the interval of an AUC is some 0.2 wide

ByUnit = Mapping[str, Mapping[str, ScoredSplit]]  # by unit, then by split


def evaluate(options: Evaluate, progress: Progress) -> Result:
    """Measure a trained run, or predictions made elsewhere, on validation and on test.

    Calibration and operating points come from validation alone.

    Returns:
        The run folder with the measures of both splits.

    Raises:
        UserError: There is no such run, its data is gone, a patient of the test images was
            trained on, or a file of predictions is not as it should be.
    """
    if options.predictions is not None:
        return _evaluated(options, lambda: read_external(options, progress), progress)
    return evaluate_run(find_run(options.runs, options.run, options.fold), options, progress)


def evaluate_run(run: Run, options: Evaluate, progress: Progress) -> Result:
    """Measure a run, whatever the options name; else as `evaluate`.

    Raises:
        UserError: Its data is gone, or a patient of the test images was trained on.
    """
    workers, tta = options.workers, options.tta
    return _evaluated(
        options, lambda: score_run(run, options.data, workers, tta, progress), progress
    )


def _evaluated(options: Evaluate, score: Callable[[], ScoredRun], progress: Progress) -> Result:
    started = time.perf_counter()
    prepare_process(options.workers)
    scored_run = score()
    detector = is_detector(scored_run.facts)
    given, options = options, settled(options, scored_run.run, detector)
    calibration = calibrated(options, scored_run)
    by_unit = measure_units(options, scored_run, calibration)
    images = by_unit["image"]
    beside = _baselines(options, scored_run, progress)
    notes = _notes(scored_run, images)
    if beside:
        notes += unexpected(beside, scored_run.rows, options.replicates, options.seed)
    folder = scored_run.run.folder
    remove_left_over(folder)
    if scored_run.facts["strategy"] != ELSEWHERE:
        learn_domain(scored_run, options.workers, options.seed, progress)
    (folder / METRICS_FILE).unlink(missing_ok=True)  # old figures must not outlive old scores
    raw = {name: part.values if detector else logistic(part.values)
           for name, part in scored_run.splits.items()}  # fmt: skip
    for name, scored in images.items():
        rows, point = scored_run.splits[name].rows, scored.point
        path, last = folder / f"predictions_{name}.csv", ERROR if detector else RAW
        write_predictions(path, rows, raw[name], scored.scores, point.threshold, last)
    labels = scored_run.labels
    write_figures(folder, scored_run.run.model, images, raw["test"], options.seed, labels)
    set_aside = sorted({one for part in scored_run.splits.values() for one in part.set_aside})
    _add_set_aside(folder, set_aside)
    measured = _measured(options, scored_run, calibration, by_unit, raw, notes)
    measured["options"] = given.way  # by which an evaluation in the same way is known
    write_json(folder / METRICS_FILE, measured)
    fold = scored_run.run.fold
    return Result(
        folder=folder,
        headline=_headline(scored_run.facts, images["test"]),
        facts={"run": str(folder), "model": scored_run.run.model, **fold.facts,
               "threshold": images["test"].point.threshold, **measured["splits"],
               "units": measured["units"],
               "seconds": round(time.perf_counter() - started, 1)},
        tables=(_table(images, fold), _units_table(by_unit), *_beside_table(beside, scored_run)),
        notes=(*notes, *([OLDER_MAPS] if maps_are_older(folder) else [])),
        set_aside=len(set_aside),
        **_next(scored_run, options),
    )  # fmt: skip


def _next(scored_run: ScoredRun, options: Evaluate) -> dict[str, Any]:
    """Return what comes next: heat-maps of what has one network, else the report."""
    run, facts = scored_run.run, scored_run.facts
    if facts["strategy"] == ELSEWHERE or "members" in facts:
        return {"next_stage": "report", "next_options": {"runs": options.runs}}
    return {"next_stage": "explain", "next_options": {"runs": options.runs, "run": run.name}}


def _baselines(options: Evaluate, scored_run: ScoredRun, progress: Progress) -> Mapping[str, Any]:
    """Return the sanity baselines of the dataset; empty where it is not here."""
    if scored_run.data is None:
        return {}
    return baselines(
        scored_run.data, scored_run.rows, options.runs, options.workers, options.seed, progress
    )


def _cost(run: Run, paces: Mapping[Path, float]) -> dict[str, Any]:
    """Return what using a run costs; an ensemble costs what its members cost together."""
    costs = []
    for member in members_of(run):
        facts, record = read_json(member.folder / MODEL_FILE), member.record()
        compute = scoring_compute()
        kind = (
            str(facts["architecture"]),
            Head.recorded(facts),
            int(facts["input"]["size"]),
            compute,
        )
        pace = paces.get(member.folder)  # batches were scored anyway
        speed = known_speed(*kind, threads=torch.get_num_threads(), batches=pace is None)
        if pace is not None:
            speed = dataclasses.replace(speed, many=pace)
        peak = record["counts"].get("peak_memory")
        seconds = float(record["seconds"])
        costs.append(cost_of(member.folder, facts["parameters"], speed, compute, seconds, peak))
    return total_cost(costs)


def _add_set_aside(folder: Path, found: Sequence[tuple[str, str]]) -> None:
    """Add to what training set aside in the same run folder."""
    earlier: list[tuple[str, str]] = []
    if (folder / SET_ASIDE).is_file():
        table = read_table(folder / SET_ASIDE, ("what", "reason"), "remove it, or mend it")
        earlier = [(line.cells["what"], line.cells["reason"]) for line in table.lines]
    write_set_aside(folder, sorted({*earlier, *found}))


def _measured(
    options: Evaluate,
    scored_run: ScoredRun,
    calibration: Calibration,
    by_unit: ByUnit,
    raw: Mapping[str, Floats],
    notes: Sequence[str],
) -> dict[str, Any]:
    run, facts, test = scored_run.run, scored_run.facts, scored_run.splits["test"]
    points = {
        unit: {"threshold": found["test"].point.threshold, "rule": found["test"].point.rule}
        for unit, found in by_unit.items()
    }
    rare = by_unit["image"]["test"].rare
    figures = {
        unit: {name: scored.figures(rare) for name, scored in found.items()}
        for unit, found in by_unit.items()
    }
    external = facts["strategy"] == ELSEWHERE
    anomaly = anomaly_figures(scored_run, calibration, by_unit["image"])
    scores = calibration.apply(test.values)
    return {
        "model": run.model,
        "run": run.name,
        **run.fold.facts,
        "data": str(scored_run.data.resolve()) if scored_run.data else "",
        "data_hash": scored_run.data_hash,
        **scored_run.labels.record,
        "test_images": images_digest(test.rows),
        "preprocess": _preprocess_options(scored_run.record),
        "unit": facts["unit"],
        "weights": facts["weights"],
        "strategy": facts["strategy"],
        "calibration": calibration.facts,
        "aggregate": options.aggregate,
        "tta": options.tta,
        "replicates": options.replicates,
        "seed": options.seed,
        "operating_point": points["image"],
        "splits": figures["image"],
        "units": {
            unit: {**points[unit], "splits": figures[unit]} for unit in UNITS if unit != "image"
        },
        "uncalibrated": {}
        if anomaly
        else {
            name: uncalibrated(part.targets, raw[name]) for name, part in scored_run.splits.items()
        },
        "anomaly": anomaly,
        "strata": strata(test.rows, scores, options.replicates, options.seed),
        "cost": {} if external else _cost(run, scored_run.paces),
        "notes": list(notes),
    }


def uncalibrated(targets: NDArray[np.bool_], scores: Floats) -> dict[str, float | None]:
    """Return what calibration can change, of scores before it."""
    found = measure(targets, scores, 0.5, np.ones((1, len(scores))))
    return {name: finite(float(found[name][0])) for name in ("brier", "ece")}


def _headline(facts: Mapping[str, Any], test: ScoredSplit) -> str:
    area, count = test.estimates["pr_auc" if test.rare else "auc"], len(test.targets)
    where = f"on {count} images of {len(test.patients)} patients"
    control = "Control with an untrained head: " if facts["untrained_head"] else ""
    if np.isnan(area.value):
        return f"{control}no test AUC: the {count} test images show one class only"
    interval = "too few patients for an interval"
    if not np.isnan(area.low):
        interval = f"95 % interval {interval_text(area.low, area.high)}"
    if test.rare:
        chance = f"; chance {test.malignant / count:.3f}"
        soft = f", pF1 {test.estimates[PF1].value:.3f}" if test.probabilities else ""
        return f"{control}Test PR AUC {area.value:.3f} ({interval}{chance}){soft} {where}"
    return f"{control}Test AUC {area.value:.3f} ({interval}) {where}"


def _table(images: Mapping[str, ScoredSplit], fold: Fold) -> Table:
    shown = [name for name in reversed(SPLITS) if name in images]
    rows = [
        (TITLES[name], *(cell for split in shown for cell in _cells(images[split], name)))
        for name in (WHERE_RARE if images["test"].rare else METRICS)
        if images["test"].probabilities or name not in OF_PROBABILITIES
    ]
    titles = {"test": "Test", "val": "Validation"}
    columns = ("Measure", *(cell for split in shown for cell in (titles[split], "95 % interval")))
    rule = images["test"].point.rule
    where = f" of {fold.name}" if fold.number else ""
    return Table(f"Images, called at {rule}{where}", columns, tuple(rows))


def _cells(scored: ScoredSplit, name: str) -> tuple[float | None, str]:
    found = scored.estimates[name]
    interval = interval_text(found.low, found.high)
    return finite(found.value), interval


def _units_table(by_unit: ByUnit) -> Table:
    rare = by_unit["image"]["test"].rare
    leading, rows = "pr_auc" if rare else "auc", []
    for unit, found in by_unit.items():
        test = found["test"]
        called = (finite(test.estimates[name].value) for name in ("sensitivity", "specificity"))
        chance = (test.malignant / len(test.targets),) if rare else ()
        rows.append((unit, len(test.targets), *_cells(test, leading), *chance, *called))
    area = ("PR AUC", "95 % interval", "Chance") if rare else ("AUC", "95 % interval")
    # With one column more, the whole words would be broken at 80 columns.
    called_so = ("Sens.", "Spec.") if rare else ("Sensitivity", "Specificity")
    columns = ("Test, by", "Number", *area, *called_so)
    return Table("Images, breasts, patients", columns, tuple(rows))


def _beside_table(beside: Mapping[str, Any], scored_run: ScoredRun) -> list[Table]:
    """Return the AUC of every baseline on the test images that were scored."""
    if not beside:
        return []
    rows, test = [], scored_run.splits["test"]
    for one in beside["baselines"]:
        scores = np.array([one["test"].get(row.image_id, np.nan) for row in test.rows])
        known = ~np.isnan(scores)
        area = auc(test.targets[known], scores[known]) if known.any() else float("nan")
        rows.append((one["title"], finite(area)))
    return [Table("Sanity baselines", ("Baseline", "Test AUC"), tuple(rows))]


def _notes(scored_run: ScoredRun, images: Mapping[str, ScoredSplit]) -> list[str]:
    facts, notes = scored_run.facts, []
    if facts["untrained_head"]:
        notes.append("the head was left random on purpose: this is the control, which is chance")
    elif facts["weights"] == NO_WEIGHTS and facts["trained_from"]:
        notes.append("the frozen layers are random: a control, not transfer learning")
    notes += notes_on_flagged(images)
    if images["test"].rare:
        notes += notes_on_rarity(images, scored_run.labels)
    if scored_run.data is not None and facts["strategy"] != ELSEWHERE:
        notes += _notes_on_data(scored_run)
    if not has_patients(scored_run.record):
        notes.append(NO_PATIENTS)
    if "val" not in images:
        notes.append("no validation images: called at 0.5, not calibrated")
    for name, scored in images.items():
        if not scored.both_classes:
            notes.append(f"{name} shows one class only: no AUC")
    if (few := len(images["test"].patients)) < FEW_PATIENTS:
        notes.append(f"{few} test patients are few: every figure is uncertain")
    return notes


def _notes_on_data(scored_run: ScoredRun) -> list[str]:
    facts, record, notes = scored_run.facts, scored_run.record, []
    if scored_run.data_hash != facts["data_hash"]:
        notes.append("this is not the dataset that the run was trained on")
        asked = note_on_labels(scored_run.run.name, Labels.recorded(facts), scored_run.labels)
        notes += [asked] if asked else []
        seen = {row.patient_id for row in scored_run.rows if row.split == "test"}
        if shared := seen & set(facts["patients"]["val"]):
            notes.append(f"{len(shared)} test patients helped to choose the weights (validation)")
    if _look(_preprocess_options(record)) != _look(facts["preprocess"]):
        notes.append("the images were preprocessed otherwise than those of the training")
    if any(row.unit != facts["unit"] for row in scored_run.rows):
        notes.append(f"the run was trained on images of another kind ({facts['unit']})")
    return notes


def _preprocess_options(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how the dataset of a record was preprocessed; None where it was not."""
    return record["options"] if record.get("stage") == "preprocess" else None


def _look(preprocess: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if preprocess is None:
        return None
    return {name: value for name, value in preprocess.items() if name not in PLACES}
