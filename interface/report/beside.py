"""Anomaly detectors beside classifiers, as `compare --anomaly` found them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interface.report.pictures import Picture, pictures_of
from interface.report.reading.runs import RunView
from interface.report.sheets import Cell, Note, Sheet, SheetRow, run_row
from pipeline.errors import UserError
from pipeline.records import RECORD, digest, file_digest, read_json
from pipeline.runs import METRICS
from pipeline.stages.evaluation import Report

COMPARISON, RESULT = "comparison", "anomaly.json"  # in the folder of reports; in that folder
FIGURES = {"growth": "Costs against the size of the input"}
COSTS = {
    "parameters": "Parameters", "gflops": "GFLOPs an image", "train_minutes": "Training, minutes",
    "images_per_second_1": "Images a second", "step_seconds": "Training step, s",
    "forward_seconds": "Forward pass, s", "step_mb": "Step, MB",
}  # fmt: skip
PARTS = {"classifier": "Runs", "detector": "Runs", "plain": "What a detector has to beat",
         "further score": "Further scores of a run"}  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """What the page shows of it: in words, as a table and a figure; or how to make it."""

    words: str
    sheet: Sheet | None
    figures: Sequence[Picture]
    command: str  # that compares; empty where it was done, of the runs as they are


def beside_of(runs: Sequence[RunView], options: Report) -> Beside | None:
    """Read the comparison of detectors with classifiers.

    Args:
        runs: Those on the page.
        options: The folders of reports and of runs.

    Returns:
        What was found; None where no run is a detector's.
    """
    if all(run.anomaly is None for run in runs):
        return None
    folder = options.out / COMPARISON
    command = f"python main.py compare --anomaly --runs {options.runs} --out {folder} --batch"
    try:
        facts = read_json(folder / RESULT)
    except UserError:
        return Beside("", None, (), command)
    known = [run.folder for run in runs if run.name in facts["runs"]]
    same = digest(*sorted(file_digest(one / METRICS) for one in known)) == facts["inputs"]
    if not same or not (folder / RECORD).is_file():
        return Beside("", None, (), command)
    return Beside(" ".join(facts["words"]), _sheet(facts, runs), pictures_of(folder, FIGURES), "")


def _sheet(facts: Mapping[str, Any], runs: Sequence[RunView]) -> Sheet:
    shown = {run.name: run for run in runs}
    seeds = {one["model"]: one for one in facts["seeds"]}
    lines = sorted(facts["lines"], key=lambda line: [*PARTS].index(line["kind"]) // 2)
    rows = []
    for line in lines:
        model = line["name"].partition("/")[0]
        cells: list[Cell] = [
            _area(line, "auc"), _area(line, "normal_auc"), line["pixel_auc"], line["pointing"],
            _over_seeds(seeds.get(model)) if line["kind"] in ("classifier", "detector") else None,
            *(line[name] for name in COSTS),
        ]  # fmt: skip
        part, run = PARTS[line["kind"]], shown.get(line["name"])
        row = SheetRow(line["name"], cells, line["of"], "", part)
        rows.append(run_row(run, cells, part) if run else row)
    columns = ["Run", "AUC", "Malignant from normal", "Pixel AUC", "Pointing game",
               "Over seeds", *COSTS.values()]  # fmt: skip
    caption = (
        f"Anomaly detection beside classifiers, by {facts['unit']}: AUC with its 95\u00a0% "
        "interval over patients; AUC of malignant from normal alone; what maps are worth beside "
        "lesions (explain); mean \u00b1 standard deviation over seeds; and cost. A step and a "
        "forward pass are of two images of 256 pixels in float32 on "
        f"{facts['machine'].get('named', 'one machine')}."
    )
    return Sheet("anomaly", caption, columns, rows)


def _area(line: Mapping[str, Any], name: str) -> Note | None:
    value, low, high = (line[f"{name}{part}"] for part in ("", "_low", "_high"))
    if value is None:
        return None
    return Note(f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}")


def _over_seeds(one: Mapping[str, Any] | None) -> Note | None:
    if one is None or one["sd"] is None:
        return None
    return Note(f"{one['mean']:.3f} \u00b1 {one['sd']:.3f}", f"{len(one['aucs'])} seeds")
