"""Folds: the patients of training and validation parted k times, and the one place to apply one."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, shown
from pipeline.manifest import Row, in_order, read_manifest
from pipeline.records import atomic, write_table
from pipeline.tables import read_table

FOLDS = "folds.csv"
COLUMNS = ("patient_id", "fold")
MOST_DIGITS = 4  # of a fold
REMEDY = "run: python main.py organize --folds 5, and then preprocess"


@dataclass(frozen=True)
class Fold:
    """Which patients are validated on."""

    number: int = 0  # from 1; 0 for the plain validation split
    count: int = 0  # how many folds there are; 0 where that is not known

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Fold":
        """Return the fold that `facts` wrote into a record, or else the plain split."""
        number, count = facts.get("fold", 0), facts.get("folds", 0)
        return cls(number, count if isinstance(count, int) else 0)

    @property
    def facts(self) -> dict[str, int]:
        """What a record says of it; nothing for the plain split."""
        return {"fold": self.number, "folds": self.count} if self.number else {}

    @property
    def name(self) -> str:
        """Its name as people read it: "fold 2 of 5"; empty for the plain split."""
        if not self.number:
            return ""
        return f"fold {self.number} of {self.count}" if self.count else f"fold {self.number}"


def write_folds(folder: Path, folds: Mapping[str, int]) -> None:
    """Write the folds of a dataset, sorted by patient.

    Args:
        folder: The dataset.
        folds: The fold, from 1, of every patient in train and val; none of test.
    """
    write_table(folder / FOLDS, COLUMNS, sorted(folds.items()))


def read_folds(folder: Path) -> dict[str, int]:
    """Return the fold, 1 to k, of each patient of a dataset.

    Raises:
        UserError: The dataset has no folds, or their file is not what `write_folds` writes.
    """
    path = folder / FOLDS
    if not path.is_file():
        raise UserError(f"{path}: no such file, so the dataset has no folds", REMEDY)
    folds: dict[str, int] = {}
    for line in read_table(path, COLUMNS, REMEDY).lines:
        patient, text = line.cells["patient_id"], line.cells["fold"]
        if not patient or patient in folds:
            twice = f"patient {shown(patient)} stands there twice"
            problem = twice if patient else "no patient"
            raise UserError(f"{path}: line {line.number}: {problem}", REMEDY)
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            raise UserError(f"{path}: line {line.number}: fold is {shown(text)!r}", REMEDY)
        folds[patient] = int(text)
    numbers = set(folds.values())
    if numbers != set(range(1, len(numbers) + 1)) or not folds:
        found = shown(", ".join(map(str, sorted(numbers)))) or "none"
        raise UserError(f"{path}: folds are numbered from 1, and it has {found}", REMEDY)
    return folds


def apply_fold(folder: Path, rows: Sequence[Row], fold: int) -> list[Row]:
    """Make one fold the validation split and the other folds the training split.

    Paths stay: a path tells where an image lies, the split what it is used for. Augmented copies
    of what is validated on are left out.

    Args:
        folder: The dataset, for its folds.
        rows: Its manifest.
        fold: From 1; 0 for the plain split, which is `rows` as they are.

    Returns:
        The rows in the order of a manifest, so that a fold gives the same training whether it is
        applied before preprocessing or after it.

    Raises:
        UserError: There are no folds, not this one, or a patient who is in none.
    """
    if not fold:
        return list(rows)
    folds = read_folds(folder)
    count = max(folds.values())
    has = f"{folder / FOLDS}: has {count} folds"
    if not 1 <= fold <= count:
        raise UserError(f"{has}, so there is no fold {fold}", f"give --fold 1 to {count}")
    applied = []
    for row in rows:
        if row.split != "test":
            if row.patient_id not in folds:
                raise UserError(f"{has}, but patient {row.patient_id} is in none of them", REMEDY)
            validated = folds[row.patient_id] == fold
            if validated and row.parent:
                continue
            row = dataclasses.replace(row, split="val" if validated else "train")
        applied.append(row)
    return in_order(applied)


def read_rows(folder: Path, record: Mapping[str, Any], fold: int) -> tuple[list[Row], Fold]:
    """Read the manifest of a dataset as a stage should use it: the one way for all of them.

    Args:
        folder: The dataset.
        record: Its completion record.
        fold: What to validate on: from 1, or 0 for the dataset's own validation split.

    Returns:
        The rows, and the fold that their validation split is.

    Raises:
        UserError: The manifest or the folds cannot be used, or the dataset was preprocessed for
            another fold, with which its folds were given up.
    """
    rows = read_manifest(folder)
    made_for = Fold.of(record["counts"]) if record["stage"] == "preprocess" else Fold()
    if not made_for.number:
        count = max(read_folds(folder).values()) if fold else 0
        return apply_fold(folder, rows, fold), Fold(fold, count)
    if fold not in (0, made_for.number):
        raise UserError(
            f"{folder}: was preprocessed for {made_for.name} alone and holds no {FOLDS}, so there "
            f"is no fold {fold}",
            "preprocess again without --fold",
        )
    return rows, made_for


def carry_folds(source: Path, folder: Path, fold: Fold) -> None:
    """Give a dataset the folds of the one it is made from, so that they can be applied later.

    Args:
        source: The dataset it is made from.
        folder: The dataset that is made.
        fold: What its validation split is; beside that of a fold the others make no sense.
    """
    if (source / FOLDS).is_file() and not fold.number:
        with atomic(folder / FOLDS) as temporary:
            shutil.copyfile(source / FOLDS, temporary)
    else:
        (folder / FOLDS).unlink(missing_ok=True)
