"""Predictions as CSV: those of a run, and those that were made elsewhere."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.evaluation.scoring import SPLITS, Floats, Logits
from pipeline.errors import UserError
from pipeline.manifest import Row
from pipeline.records import write_table

COLUMNS = (
    "image_id", "patient_id", "laterality", "view", "label", "target", "probability", "predicted",
    "raw_probability",
)  # fmt: skip
NEEDED = ("image_id", "patient_id", "label", "probability")
LABELS = {"0": "benign", "1": "malignant", "benign": "benign", "malignant": "malignant"}
LARGEST = 1 - 2**-53  # the float64 below one: its logit is finite, and so is that of 1 - it
Line = tuple[Row, float]  # an image and its probability
REMEDY = f"give a CSV with the columns {', '.join(NEEDED)} (and split: val or test)"


def read_predicted(path: Path) -> tuple[list[Row], list[float]]:
    """Read predictions_test.csv of an evaluated run: its images and their probabilities.

    Raises:
        UserError: The file is missing.
        KeyError: It lacks a column.
        ValueError: A probability is no number.
    """
    rows, scores = [], []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                rows.append(
                    Row(
                        image_id=line["image_id"],
                        patient_id=line["patient_id"],
                        split="test",
                        label=line["label"],
                        path="",
                        laterality=line["laterality"],
                        view=line["view"],
                    )
                )
                scores.append(float(line["probability"]))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return rows, scores


def write_predictions(
    path: Path, rows: Sequence[Row], raw: Floats, scores: Floats, threshold: float
) -> None:
    """Write predictions_{val,test}.csv.

    Args:
        path: Of the file.
        rows: One for each image.
        raw: (N,) probabilities before calibration.
        scores: (N,) after it.
        threshold: An image whose score reaches it is called malignant.
    """
    lines = []
    for row, before, score in zip(rows, raw.tolist(), scores.tolist(), strict=True):
        target, called = int(row.label == "malignant"), int(score >= threshold)
        lines.append((row.image_id, row.patient_id, row.laterality, row.view, row.label, target,
                      repr(score), called, repr(before)))  # fmt: skip
    write_table(path, COLUMNS, lines)


def read_predictions(path: Path, rows: Sequence[Row]) -> dict[str, Logits]:
    """Read predictions that were made elsewhere.

    The label is benign or malignant, 0 or 1; the probability is of malignancy. Without a column
    `split` all images are test images. Further columns are left aside, but for laterality and
    view.

    Args:
        path: Of a CSV file.
        rows: Of the dataset that it speaks of, whose truth it must share; empty without one.

    Returns:
        By split: the rows of the dataset, or rows that know what the file knows.

    Raises:
        UserError: The file is not like that; the message has the number of the line.
    """
    known = {row.image_id: row for row in rows}
    lines: dict[str, Line] = {}
    homes: dict[str, str] = {}
    for number, record in _records(path):
        where = f"{path}: line {number}"
        row, _ = line = _line(where, record, known)
        if row.image_id in lines:
            raise UserError(f"{where}: {row.image_id} stands there twice", REMEDY)
        if homes.setdefault(row.patient_id, row.split) != row.split:
            raise UserError(
                f"{where}: patient {row.patient_id} is in val and in test, so results would be "
                "false",
                "give the images of a patient one split",
            )
        lines[row.image_id] = line
    splits = {
        split: [line for line in lines.values() if line[0].split == split] for split in SPLITS
    }
    if not splits["test"]:
        raise UserError(f"{path}: holds no test image", REMEDY)
    return {name: _logits(found) for name, found in splits.items() if found}


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the number of each line and its cells, without the space around them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            names = [name.strip() for name in next(reader, [])]
            if missing := [name for name in NEEDED if name not in names]:
                raise UserError(f"{path}: line 1: lacks {', '.join(missing)}", REMEDY)
            if twice := sorted({name for name in names if name and names.count(name) > 1}):
                raise UserError(f"{path}: line 1: {twice[0]} stands there twice", REMEDY)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    problem = f"{len(cells)} cells, and the first line has {len(names)}"
                    raise UserError(f"{path}: line {reader.line_num}: {problem}", REMEDY)
                yield (
                    reader.line_num,
                    dict(zip(names, (cell.strip() for cell in cells), strict=True)),
                )
    except UnicodeDecodeError as error:
        number = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {number}: is no UTF-8 text", REMEDY) from None
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}", REMEDY) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", REMEDY) from None


def _line(where: str, record: Mapping[str, str], known: Mapping[str, Row]) -> Line:
    for name in ("image_id", "patient_id"):
        if not record[name]:
            raise UserError(f"{where}: {name} is empty", REMEDY)
    label = LABELS.get(record["label"].lower())
    if label is None:
        raise UserError(f"{where}: label is {record['label']!r}, not benign or malignant", REMEDY)
    split = record.get("split", "").lower() or "test"
    if split not in SPLITS:
        raise UserError(f"{where}: split is {record['split']!r}, not val or test", REMEDY)
    row = Row(
        image_id=record["image_id"],
        patient_id=record["patient_id"],
        split=split,
        label=label,
        path="",
        laterality=record.get("laterality", "").upper(),
        view=record.get("view", "").upper(),
    )
    return _checked(where, row, known), _probability(where, record["probability"])


def _probability(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UserError(f"{where}: probability is {text!r}, not a number from 0 to 1", REMEDY)
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


def _logits(lines: Sequence[Line]) -> Logits:
    rows, found = zip(*sorted(lines, key=lambda line: line[0].image_id), strict=True)
    # A probability of 0 or 1 would have an infinite logit.
    values = np.clip(np.array(found, np.float64), 1 - LARGEST, LARGEST)
    return Logits(rows, np.log(values) - np.log1p(-values))
