"""The stage `evaluate`: scores of a trained run on validation and held-out test images."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.figures import write_figures
from models.inference import (
    Scored,
    TrainedModel,
    choose_compute,
    image_logits,
    load_run,
    place,
    prepare_process,
    probabilities,
)
from models.loading import Split, load_split
from models.metrics import METRICS, estimates, youden_threshold
from models.registry import NO_WEIGHTS
from pipeline.errors import UserError
from pipeline.folds import Fold, read_rows
from pipeline.manifest import MANIFEST, Row
from pipeline.progress import Progress, Result, Table
from pipeline.records import (
    SET_ASIDE,
    file_digest,
    read_record,
    write_json,
    write_set_aside,
    write_table,
)
from pipeline.runs import METRICS as METRICS_FILE
from pipeline.runs import Run, find_run
from pipeline.stages import Evaluate

SPLITS = ("val", "test")
COLUMNS = (
    "image_id", "patient_id", "laterality", "view", "label", "target", "probability", "predicted",
)  # fmt: skip
TITLES = {
    "auc": "ROC AUC", "pr_auc": "PR AUC", "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "precision": "Precision", "f1": "F1", "mcc": "MCC",
    "brier": "Brier score",
}  # fmt: skip
# Options that do not change what an image looks like.
PLACES = {"data", "out", "seed", "workers", "fold"}
FEW_PATIENTS = 50  # below it the interval of an AUC is some 0.2 wide


def evaluate(options: Evaluate, progress: Progress) -> Result:
    """Score a trained run on validation and test; the threshold comes from validation alone.

    Args:
        options: Which run, on which data.
        progress: Where it reports.

    Returns:
        The run folder with the measures of both splits.

    Raises:
        UserError: There is no such run, its data is gone, or a patient of the test images was
            trained on.
    """
    started = time.perf_counter()
    prepare_process(options.workers)
    run = find_run(options.runs, options.run, options.fold)
    fold = run.fold
    model = load_run(run.folder)
    data = options.data or Path(str(model.facts["data"]))
    record = read_record(data, "preprocess", "organize")
    rows, _ = read_rows(data, record, fold.number)  # any other fold was trained on
    _refuse_leaks(run, model.facts, data, rows)
    splits, scores = _score(model, data, rows, options.workers, progress)
    threshold, rule = _operating_point(splits["val"], scores["val"])
    scored = {
        name: Scored(
            splits[name],
            scores[name],
            threshold,
            estimates(
                splits[name].targets > 0, scores[name], threshold,
                [row.patient_id for row in splits[name].rows], options.replicates, options.seed,
            ),
        )
        for name in SPLITS
    }  # fmt: skip
    notes = _notes(model.facts, data, record, rows, scored)
    (run.folder / METRICS_FILE).unlink(missing_ok=True)  # old figures must not outlive old scores
    for name in SPLITS:
        _write_predictions(run.folder / f"predictions_{name}.csv", scored[name])
    write_figures(run.folder, run.model, scored["val"], scored["test"])
    set_aside = [one for name in SPLITS for one in splits[name].set_aside]
    _add_set_aside(run.folder, set_aside)
    measured = _measured(options, run, model.facts, data, scored, notes)
    measured["operating_point"] = {"threshold": threshold, "rule": rule}
    write_json(run.folder / METRICS_FILE, measured)
    return Result(
        folder=run.folder,
        headline=_headline(model.facts, scored["test"]),
        facts={"run": str(run.folder), "model": run.model, **fold.facts, "threshold": threshold,
               "test": measured["splits"]["test"], "val": measured["splits"]["val"],
               "seconds": round(time.perf_counter() - started, 1)},
        tables=(_table(scored, fold),),
        notes=tuple(notes),
        set_aside=len(set_aside),
        next_stage="report",
        next_options={"runs": options.runs},
    )  # fmt: skip


def _refuse_leaks(run: Run, facts: Mapping[str, Any], data: Path, rows: Sequence[Row]) -> None:
    """Refuse images of patients that were trained on, and data without the splits needed."""
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise UserError(f"{data / MANIFEST}: holds no {split} images", "give another --data")
    trained = set(facts["patients"]["train"])
    for split in ("test", "val"):
        known = sorted({row.patient_id for row in rows if row.split == split} & trained)
        if known:
            raise UserError(
                f"{data}: {len(known)} {split} patients ({known[0]}, ...) were trained on in "
                f"{run.name}, so its scores would be too good (a leak)",
                "evaluate on the data it was trained on, or train again on this data",
            )


def _score(
    model: TrainedModel, data: Path, rows: Sequence[Row], workers: int, progress: Progress
) -> tuple[dict[str, Split], dict[str, NDArray[np.float64]]]:
    # Computed as in training, so that the same images get the same scores.
    compute = choose_compute("auto", str(model.facts["precision"]))
    place(model.network, compute)
    splits, scores = {}, {}
    for name in SPLITS:
        split = load_split(data, rows, name, model.size, workers, progress)
        if not len(split):
            raise UserError(f"{data}: no {name} image can be read ({split.set_aside[0][1]})")
        with progress.track(f"Scoring {name} images", len(split), "images") as advance:
            found = image_logits(
                model.network, split.images, model.transform(compute), compute, advance
            )
        splits[name], scores[name] = split, probabilities(found)
    return splits, scores


def _operating_point(val: Split, scores: NDArray[np.float64]) -> tuple[float, str]:
    threshold = youden_threshold(val.targets > 0, scores)
    if threshold is None:
        return 0.5, "0.5, because validation shows one class only"
    return threshold, "Youden's J on validation"


def _write_predictions(path: Path, scored: Scored) -> None:
    lines = []
    for row, score in zip(scored.split.rows, scored.scores.tolist(), strict=True):
        called = int(score >= scored.threshold)
        target = int(row.label == "malignant")
        lines.append((row.image_id, row.patient_id, row.laterality, row.view, row.label, target,
                      repr(score), called))  # fmt: skip
    write_table(path, COLUMNS, lines)


def _add_set_aside(folder: Path, found: Sequence[tuple[str, str]]) -> None:
    """Add to what training set aside in the same run folder."""
    earlier: list[tuple[str, str]] = []
    if (folder / SET_ASIDE).is_file():
        with (folder / SET_ASIDE).open(encoding="utf-8", newline="") as file:
            earlier = [(line["what"], line["reason"]) for line in csv.DictReader(file)]
    write_set_aside(folder, sorted({*earlier, *found}))


def _measured(
    options: Evaluate,
    run: Run,
    facts: Mapping[str, Any],
    data: Path,
    scored: Mapping[str, Scored],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "model": run.model,
        "run": run.name,
        **run.fold.facts,
        "data": str(data.resolve()),
        "data_hash": file_digest(data / MANIFEST),
        "unit": facts["unit"],
        "weights": facts["weights"],
        "strategy": facts["strategy"],
        "operating_point": {},
        "replicates": options.replicates,
        "seed": options.seed,
        "splits": {name: _split_figures(scored[name]) for name in SPLITS},
        "notes": list(notes),
    }


def _split_figures(scored: Scored) -> dict[str, Any]:
    malignant = int(scored.targets.sum())
    return {
        "images": len(scored.split),
        "patients": len(scored.split.patients),
        "benign": len(scored.split) - malignant,
        "malignant": malignant,
        "metrics": {
            name: {part: _finite(value) for part, value in asdict(scored.estimates[name]).items()}
            for name in METRICS
        },
        "confusion": scored.confusion,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON has no NaN


def _headline(facts: Mapping[str, Any], test: Scored) -> str:
    area, split = test.estimates["auc"], test.split
    where = f"on {len(split)} images of {len(split.patients)} patients"
    control = "Control with an untrained head: " if facts["untrained_head"] else ""
    if np.isnan(area.value):
        return f"{control}no test AUC: the {len(split)} test images show one class only"
    interval = "too few patients for an interval"
    if not np.isnan(area.low):
        interval = f"95 % interval {area.low:.2f} to {area.high:.2f}"
    return f"{control}Test AUC {area.value:.2f} ({interval}) {where}"


def _table(scored: Mapping[str, Scored], fold: Fold) -> Table:
    rows = [
        (TITLES[name], *(cell for split in ("test", "val") for cell in _cells(scored[split], name)))
        for name in METRICS
    ]
    columns = ("Measure", "Test", "95 % interval", "Validation", "95 % interval")
    title = f"At the operating point chosen on {fold.name or 'validation'}"
    return Table(title, columns, tuple(rows))


def _cells(scored: Scored, name: str) -> tuple[float | None, str]:
    found = scored.estimates[name]
    interval = "-" if np.isnan(found.low) else f"{found.low:.2f} to {found.high:.2f}"
    return _finite(found.value), interval


def _notes(
    facts: Mapping[str, Any],
    data: Path,
    record: Mapping[str, Any],
    rows: Sequence[Row],
    scored: Mapping[str, Scored],
) -> list[str]:
    notes = []
    if facts["untrained_head"]:
        notes.append("the head was left random on purpose: this is the control, which is chance")
    elif facts["weights"] == NO_WEIGHTS and facts["trained_from"]:
        notes.append("the frozen layers are random: a control, not transfer learning")
    if file_digest(data / MANIFEST) != facts["data_hash"]:
        notes.append("this is not the dataset that the run was trained on")
        seen = {row.patient_id for row in rows if row.split == "test"}
        if shared := seen & set(facts["patients"]["val"]):
            notes.append(f"{len(shared)} test patients helped to choose the weights (validation)")
    if _look(record["options"] if record["stage"] == "preprocess" else None) != _look(
        facts["preprocess"]
    ):
        notes.append("the images were preprocessed otherwise than those of the training")
    if any(row.unit != facts["unit"] for row in rows):
        notes.append(f"the run was trained on images of another kind ({facts['unit']})")
    for name, split in scored.items():
        if not split.split.both_classes:
            notes.append(f"{name} shows one class only: no AUC")
    if (few := len(scored["test"].split.patients)) < FEW_PATIENTS:
        notes.append(f"{few} test patients are few: read the intervals, not the figures")
    return notes


def _look(preprocess: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if preprocess is None:
        return None
    return {name: value for name, value in preprocess.items() if name not in PLACES}
