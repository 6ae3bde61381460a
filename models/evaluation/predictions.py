"""Predictions as CSV: those of a run, and those that were made elsewhere."""

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.evaluation.calibration import logit
from models.metrics import Floats
from pipeline.errors import UserError, shown
from pipeline.labels import Labels, known_label
from pipeline.manifest import LABELS, SPLITS, Row, pair_of
from pipeline.records import write_table
from pipeline.tables import TableFile, read_table

if TYPE_CHECKING:
    from models.evaluation.scoring import Logits

SCORED = SPLITS[1:]
COLUMNS = (
    "image_id", "patient_id", "laterality", "view", "label", "target", "probability", "predicted",
)  # fmt: skip
# The last column: before calibration; of an anomaly detector the error that it gives.
RAW, ERROR = "raw_probability", "error"
READ_BACK = "image_id", "patient_id", "label", "probability", "laterality", "view"
NEEDED = ("image_id", "patient_id", "label")  # and probability, or ERROR
CALLS = {"0": "N", "1": "P"}  # negative or positive, as the end of an outcome says it
NUMBERED = ("0", "1")  # a label as a number: the negative one, the positive one
Line = tuple[Row, float]  # an image and its probability
AGAIN = "evaluate the run again"
REMEDY = (
    f"give a CSV with the columns {', '.join(NEEDED)}, probability or {ERROR} (and split: val or "
    "test)"
)


def read_predicted(path: Path) -> tuple[list[Row], list[float]]:
    """Read predictions_test.csv of an evaluated run: its images and their probabilities.

    Raises:
        UserError: The file is missing, lacks a column or holds a line that is no prediction.
    """
    rows, scores = [], []
    table = read_table(path, READ_BACK, AGAIN)
    for line in table.lines:
        cells, where = line.cells, f"{path}: line {line.number}"
        label = _label(cells["label"], Labels())
        if label is None or not cells["image_id"] or not cells["patient_id"]:
            raise UserError(f"{where}: is no prediction", AGAIN)
        rows.append(
            Row(
                image_id=cells["image_id"],
                patient_id=cells["patient_id"],
                split="test",
                label=label,
                path="",
                laterality=cells["laterality"],
                view=cells["view"],
            )
        )
        scores.append(_probability(where, cells["probability"], table))
    return rows, scores


def read_errors(path: Path) -> list[float]:
    """Read the errors that an anomaly detector gave the images of predictions_{val,test}.csv.

    Raises:
        UserError: The file is missing, or holds a line without one.
    """
    table = read_table(path, (ERROR,), AGAIN)
    return [
        _score(f"{path}: line {line.number}", ERROR, line.cells[ERROR], table)
        for line in table.lines
    ]


def maps_are_older(folder: Path) -> bool:
    """Return whether the heat-maps of a run were made before its last evaluation changed something.

    They were where their table has other images, scores or calls than predictions_test.csv. A
    score is a probability, or the error of an anomaly detector.

    Args:
        folder: Of an evaluated run.
    """
    table = folder / "explanations" / "explanations.csv"
    predicted = folder / "predictions_test.csv"
    if not table.is_file() or not predicted.is_file():
        return False
    lines = read_table(table, ("image_id", "outcome")).lines
    score = ERROR if lines and ERROR in lines[0].cells else "probability"
    explained = {
        line.cells["image_id"]: (float(line.cells[score]), line.cells["outcome"][-1:])
        for line in lines
    }
    now = {}
    for line in read_table(predicted, ("image_id", score, "predicted")).lines:
        call = CALLS.get(line.cells["predicted"])
        now[line.cells["image_id"]] = float(line.cells[score]), call
    return any(now.get(name) != said for name, said in explained.items())


def write_predictions(
    path: Path, rows: Sequence[Row], raw: Floats, scores: Floats, threshold: float, last: str = RAW
) -> None:
    """Write predictions_{val,test}.csv.

    Args:
        path: Of the file.
        rows: One for each image.
        raw: (N,) probabilities before calibration, or errors of an anomaly detector.
        scores: (N,) after it.
        threshold: An image whose score reaches it is called malignant.
        last: What `raw` is: RAW or ERROR.
    """
    lines = []
    for row, before, score in zip(rows, raw.tolist(), scores.tolist(), strict=True):
        target, called = int(row.is_positive), int(score >= threshold)
        lines.append((row.image_id, row.patient_id, row.laterality, row.view, row.label, target,
                      repr(score), called, repr(before)))  # fmt: skip
    write_table(path, (*COLUMNS, last), lines)


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds."""

    # By split the rows of the dataset, or rows that know what the file knows.
    splits: "Mapping[str, Logits]"
    unusual: str  # in how the file is written; empty for UTF-8 with commas
    of_errors: bool  # whether it holds errors of an anomaly detector, and not probabilities


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Read predictions that were made elsewhere.

    The label is one of the dataset's two, benign or malignant without one, or 0 or 1; the
    probability is of the positive one. A file with a column `error` is of an anomaly detector: how
    far an image is from normal ones. Without a column `split` all images are test images. Further
    columns are left aside, but for laterality and view.

    Args:
        path: Of a CSV file.
        rows: Of the dataset that it speaks of, whose truth it must share; empty without one.

    Raises:
        UserError: The file is not like that; the message has the number of the line.
    """
    known = {row.image_id: row for row in rows}
    lines: dict[str, Line] = {}
    homes: dict[str, str] = {}
    score = "probability"
    with contextlib.suppress(UserError):  # what is wrong with the file is told by the line below
        score = ERROR if ERROR in read_table(path).columns else score
    table = read_table(path, (*NEEDED, score), REMEDY)
    labels = Labels.of(rows) if rows else _labels_in(table)
    for one in table.lines:
        where = f"{path}: line {one.number}"
        row = _row(where, one.cells, known, labels)
        line = row, _score(where, score, one.cells[score], table)
        if row.image_id in lines:
            raise UserError(f"{where}: {shown(row.image_id)} stands there twice", REMEDY)
        if homes.setdefault(row.patient_id, row.split) != row.split:
            raise UserError(
                f"{where}: patient {row.patient_id} is in val and in test, so results would be "
                "false",
                "give the images of a patient one split",
            )
        lines[row.image_id] = line
    splits = {
        split: [line for line in lines.values() if line[0].split == split] for split in SCORED
    }
    if not splits["test"]:
        raise UserError(f"{path}: holds no test image", REMEDY)
    given = {name: _logits(found, score == ERROR) for name, found in splits.items() if found}
    return Predictions(given, table.note, score == ERROR)


def _label(text: str, labels: Labels) -> str | None:
    """Return a label that is named, or numbered; None where it is neither."""
    if text in NUMBERED:
        return labels.label(bool(NUMBERED.index(text)))
    return known_label(text)


def _labels_in(table: TableFile) -> Labels:
    """Return the two labels of a file that has no dataset beside it, by those that it names."""
    named = {known_label(line.cells["label"]) for line in table.lines} - {None}
    return Labels(*(pair_of(filter(None, named)) or LABELS))


def _row(where: str, record: Mapping[str, str], known: Mapping[str, Row], labels: Labels) -> Row:
    for name in ("image_id", "patient_id"):
        if not record[name]:
            raise UserError(f"{where}: {name} is empty", REMEDY)
    label = _label(record["label"], labels)
    if label is None or label not in (labels.negative, labels.positive):
        names = " or ".join(labels.names)
        raise UserError(f"{where}: label is {shown(record['label'])!r}, not {names}", REMEDY)
    split = record.get("split", "").lower() or "test"
    if split not in SCORED:
        raise UserError(f"{where}: split is {shown(record['split'])!r}, not val or test", REMEDY)
    row = Row(
        image_id=record["image_id"],
        patient_id=record["patient_id"],
        split=split,
        label=label,
        path="",
        laterality=record.get("laterality", "").upper(),
        view=record.get("view", "").upper(),
    )
    return _checked(where, row, known)


def _probability(where: str, text: str, table: TableFile) -> float:
    return _score(where, "probability", text, table)


def _score(where: str, name: str, text: str, table: TableFile) -> float:
    try:
        value = table.number(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= (sys.float_info.max if name == ERROR else 1):
        wanted = "a number, at least 0" if name == ERROR else "a number from 0 to 1"
        raise UserError(f"{where}: {name} is {shown(text)!r}, not {wanted}", REMEDY)
    return value


def _checked(where: str, row: Row, known: Mapping[str, Row]) -> Row:
    """Return the dataset's row of an image, where there is a dataset."""
    if not known:
        return row
    own = known.get(row.image_id)
    if own is None:
        raise UserError(f"{where}: {row.image_id} is no image of the dataset", "drop --data")
    for name in ("patient_id", "split", "label"):
        said, true = getattr(row, name), getattr(own, name)
        if said != true:
            raise UserError(
                f"{where}: {name} of {row.image_id} is {said}, and {true} in the dataset",
                "correct the file, or drop --data",
            )
    return own


def _logits(lines: Sequence[Line], errors: bool) -> "Logits":
    from models.evaluation.scoring import Logits  # torch, which who reads them back need not load

    rows, found = zip(*sorted(lines, key=lambda line: line[0].image_id), strict=True)
    values = np.array(found, np.float64)
    return Logits(rows, values if errors else logit(values))
