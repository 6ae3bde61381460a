"""What `train.csv` of RSNA Screening Mammography says: one row for each image.

Columns are known by their names, in any case; further ones are allowed. Whole numbers may be
written as 1.0, which is what spreadsheets and pandas make of a column with gaps.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, shown
from pipeline.tables import TableFile, read_table
from sources.records import ImageRecord

NEEDED = ("patient_id", "image_id", "laterality", "view", "cancer", "biopsy")
OTHERS = ("site_id", "age", "invasive", "birads", "implant", "density", "machine_id",
          "difficult_negative_case")  # fmt: skip
REMEDY = "use the train.csv of the competition, or name the right one with --csv"
SIDES = {"L": "LEFT", "R": "RIGHT", "LEFT": "LEFT", "RIGHT": "RIGHT"}
DENSITIES = {"A": 1, "B": 2, "C": 3, "D": 4}
FLAGS = {"1": True, "0": False, "true": True, "false": False}
NAME = re.compile(r"[A-Za-z0-9._-]+")
WHOLE = re.compile(r"(\d+)\.0*")
OLDEST = 120  # years
MOST_LINES = 3  # that a message names


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the table says."""

    path: Path  # of the table
    records: Mapping[str, ImageRecord]  # by image_id, without the place of the file
    # (patient, image) as the table has them, of every row that names an image.
    named: frozenset[tuple[str, str]]
    set_aside: tuple[tuple[str, str], ...]  # (image or line, reason)
    remarks: tuple[tuple[str, str], ...]  # (image, what to know of it)
    notes: tuple[str, ...]


def plain_column(name: str) -> str:
    """Return the name of a column as it is compared."""
    return re.sub(r"[ -]+", "_", name.strip().casefold())


def read_rows(path: Path) -> Rows:
    """Read the table.

    Raises:
        UserError: It is missing, is no table, lacks a column that is needed or names no image.
    """
    table = read_table(path, remedy=REMEDY)
    names = _columns(table)
    found: dict[str, tuple[ImageRecord, list[int]]] = {}
    contradicted: dict[str, list[int]] = {}
    aside: list[tuple[str, str]] = []
    meanings = _Meanings(table)
    named: set[tuple[str, str]] = set()
    for line in table.lines:
        cells = {name: _whole(text) if "." in (text := line.cells[column]) else text
                 for name, column in names.items()}  # fmt: skip
        named.add((cells["patient_id"], cells["image_id"]))
        try:
            record = _record(cells, meanings)
        except ValueError as error:
            what = _image_id(cells) or f"line {line.number}"
            aside.append((what, f"{path.name}: line {line.number}: {error}"))
            continue
        known, lines = found.setdefault(record.image_id, (record, []))
        lines.append(line.number)
        if known != record:
            contradicted[record.image_id] = lines
    for image_id, lines in contradicted.items():
        del found[image_id]
        aside.append((image_id, f"{path.name}: {_lines(lines)} say different things of it"))
    if not found:
        raise UserError(f"{path}: names no image that can be used", REMEDY)
    return Rows(
        path=path,
        records={image_id: found[image_id][0] for image_id in sorted(found)},
        named=frozenset(named),
        set_aside=tuple(aside),
        remarks=tuple(
            (image_id, f"{path.name}: {_lines(lines)} are alike: it counts once")
            for image_id, (_, lines) in sorted(found.items())
            if len(lines) > 1
        ),
        notes=tuple([*filter(None, [table.note]), *meanings.notes()]),
    )


def _columns(table: TableFile) -> dict[str, str]:
    """Return the file's own name of each column that is known.

    Raises:
        UserError: A needed one is not there, or a known one stands there twice.
    """
    names: dict[str, str] = {}
    for column in table.columns:
        name = plain_column(column)
        if name in names:
            twice = f"{shown(names[name])} and {shown(column)} are one column"
            raise UserError(f"{table.path}: line 1: {twice}", "leave one of the two out")
        if name in (*NEEDED, *OTHERS):
            names[name] = column
    if missing := [name for name in NEEDED if name not in names]:
        has = ", ".join(shown(name) for name in table.columns[:6]) or "no columns"
        more = " and so on" if len(table.columns) > 6 else ""
        problem = f"{table.path}: line 1: lacks {', '.join(missing)} (has {has}{more})"
        raise UserError(problem, REMEDY)
    return names


class _Meanings:
    """What cells of the further columns mean; what means nothing is left out, and counted."""

    def __init__(self, table: TableFile) -> None:
        self._table = table
        self._known: dict[tuple[str, str], Any] = {}  # the same few texts, 54,706 times
        self._unread: dict[str, Counter[str]] = {}

    def __call__(self, name: str, cells: Mapping[str, str]) -> Any:
        """Return the meaning of a cell; None where it is empty or means nothing."""
        text = cells.get(name, "")
        if not text:
            return None
        if (name, text) not in self._known:
            self._known[name, text] = self._meaning(name, text)
        value = self._known[name, text]
        if value is None:
            self._unread.setdefault(name, Counter())[text] += 1
        return value

    def notes(self) -> list[str]:
        """Say what was left out."""
        found = []
        for name, count in sorted(self._unread.items()):
            texts = ", ".join(repr(shown(text)) for text, _ in count.most_common(MOST_LINES))
            where = f"{self._table.path.name}: {name}: {count.total():,} cells"
            found.append(f"{where} mean nothing ({texts}) and were left out")
        return found

    def _meaning(self, name: str, text: str) -> Any:
        if name == "age":
            return _age(self._table, text)
        if name == "density":
            return DENSITIES.get(text.upper())
        if name == "birads":
            return text if re.fullmatch("[0-6]", text) else None
        return FLAGS.get(text.lower())


def _record(cells: Mapping[str, str], meanings: _Meanings) -> ImageRecord:
    """Return what one row says.

    Args:
        cells: By plain column.
        meanings: Of the columns that need not be there.

    Raises:
        ValueError: It does not say which image it is of, or whether there is a cancer.
    """
    image_id = _image_id(cells)
    if not image_id:
        names = f"patient_id {cells['patient_id']!r}, image_id {cells['image_id']!r}"
        raise ValueError(f"{names}: letters, digits, '.', '_' and '-' are read")
    cancer, biopsy = _flag("cancer", cells), _flag("biopsy", cells)
    side = SIDES.get(cells["laterality"].upper(), "")
    if cells["laterality"] and not side:
        raise ValueError(f"laterality is {shown(cells['laterality'])!r}, neither L nor R")
    implant = meanings("implant", cells)
    traits = {
        "cancer": cancer,
        "invasive": meanings("invasive", cells),
        "biopsy": biopsy,
        "difficult negative": meanings("difficult_negative_case", cells),
    }
    return ImageRecord(
        image_id=image_id,
        patient_id=f"rsna_{cells['patient_id']}",
        also_named=(cells["patient_id"], cells["image_id"]),
        diagnosis="malignant" if cancer else "benign" if biopsy else "normal",
        file=f"train_images/{cells['patient_id']}/{cells['image_id']}.dcm",
        laterality=side,
        view=cells["view"].upper(),
        pathology=", ".join(name for name, is_so in traits.items() if is_so),
        density=meanings("density", cells),
        assessment=meanings("birads", cells) or "",
        age=meanings("age", cells),
        site=cells.get("site_id", ""),
        machine=cells.get("machine_id", ""),
        implant="" if implant is None else "yes" if implant else "no",
    )


def _image_id(cells: Mapping[str, str]) -> str:
    """Return the name of an image; empty where its row has none."""
    parts = cells["patient_id"], cells["image_id"]
    return "_".join(parts) if all(map(NAME.fullmatch, parts)) else ""


def _flag(name: str, cells: Mapping[str, str]) -> bool:
    value = FLAGS.get(cells[name].lower())
    if value is None:
        raise ValueError(f"{name} is {shown(cells[name])!r}, neither 0 nor 1")
    return value


def _age(table: TableFile, text: str) -> int | None:
    try:
        years = table.number(text)
    except ValueError:
        return None
    return int(years) if 0 < years <= OLDEST else None


def _whole(text: str) -> str:
    """Return a cell, a whole number without its decimals."""
    found = WHOLE.fullmatch(text) if "." in text else None
    return found[1] if found else text


def _lines(numbers: list[int]) -> str:
    more = f" and {len(numbers) - MOST_LINES:,} more" if len(numbers) > MOST_LINES else ""
    return f"lines {', '.join(map(str, numbers[:MOST_LINES]))}{more}"


def placed(record: ImageRecord, file: str, size: int, changed: int) -> ImageRecord:
    """Return a record with the place of its file."""
    return replace(record, file=file, size=size, changed=changed)
