"""Several datasets that `organize` made, in one folder: each sub-folder is one, all become one.

Images keep their splits; the names of images and patients begin with the sub-folder's, which is
their collection.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.manifest import ABNORMAL, DIAGNOSES, MANIFEST, MASK_TABLE, Row, read_manifest
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.records import RECORD, UNFINISHED, read_record
from pipeline.stages.data import Organize
from pipeline.tables import read_table

if TYPE_CHECKING:
    from sources.records import ImageRecord, Records

MARKS = "two or more sub-folders that organize made (each with manifest.csv and stage.json)"
SUMMARY = "summary.json"
# Columns that a record has no place of its own for.
CARRIED = ("unit", "lesions", "abnormality", "subtlety", "shape", "margins")
REMEDY = "organise it again with: python main.py organize"


def is_here(folder: Path) -> bool:
    """Return whether at least two sub-folders are datasets, finished or begun."""
    return len(_datasets(folder)) > 1


def half_here(folder: Path) -> str:
    """Say that there is one dataset alone."""
    found = _datasets(folder)
    return f"one dataset is there ({found[0].name}), and merging takes two" if found else ""


def read(options: Organize, progress: Progress) -> "Records":
    """Read the manifests of all datasets.

    Raises:
        UserError: There are not two, one is not finished, or they cannot be one dataset.
    """
    del progress  # nothing here takes long
    from sources.records import Records

    folders = _datasets(options.source)
    if len(folders) < 2:
        problem = f"{options.source}: holds {len(folders)} datasets, not {MARKS}"
        raise UserError(problem, "organise each collection into a sub-folder of one folder")
    records: list[ImageRecord] = []
    aside: list[tuple[str, str]] = []
    notes: list[str] = []
    facts, patients, units = {}, True, {}
    for folder in folders:
        record = read_record(folder, "organize")
        rows = read_manifest(folder)
        units[folder.name] = {row.unit for row in rows}
        made, missing = _records_of(folder, rows, options.pseudonymize)
        records += made
        aside += missing
        told = _summary(folder)
        patients &= told.get("has_patients", True)
        notes += _notes(folder.name, record, told)
        facts[folder.name] = {
            "collection": told["collection"] if isinstance(told.get("collection"), str) else "",
            "images": len(rows),
            "patients": len({row.patient_id for row in rows}),
        }
    if len(set.union(*units.values())) > 1:
        each = "; ".join(f"{name}: {' and '.join(sorted(found))}" for name, found in units.items())
        raise UserError(f"{options.source}: its datasets show different things ({each})",
                        "organise all with the same --unit")  # fmt: skip
    notes.append("a patient who is in two of the datasets counts as two: only images that are the "
                 "same pixel for pixel are found")  # fmt: skip
    return Records(
        records=tuple(records),
        set_aside=tuple(aside),
        notes=tuple(notes),
        has_patients=patients,
        facts={"merged": facts},
    )


def _datasets(folder: Path) -> list[Path]:
    """Return the sub-folders that `organize` made or began."""
    return [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_dir()
            and (path / MANIFEST).is_file() and _maker(path) == "organize"]  # fmt: skip


def _maker(folder: Path) -> str:
    for name in (UNFINISHED, RECORD):
        try:
            return str(json.loads((folder / name).read_text(encoding="utf-8"))["stage"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return ""


def _summary(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _records_of(
    folder: Path, rows: list[Row], hide: bool
) -> tuple[list["ImageRecord"], list[tuple[str, str]]]:
    """Return the records of one dataset, and the images that its manifest names in vain."""
    from sources.records import ImageRecord

    prefix = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name)
    masks = _masks(folder)
    records, missing = [], []
    for row in rows:
        try:
            status = inside(folder, row.path).stat()
        except OSError:
            where = "" if hide else f" {folder.name}/{row.path}"
            missing.append((f"{prefix}_{row.image_id}", f"missing: no file{where}"))
            continue
        record = ImageRecord(
            image_id=f"{prefix}_{row.image_id}",
            patient_id=f"{prefix}_{row.patient_id}",
            diagnosis=_diagnosis(folder, row),
            file=f"{folder.name}/{row.path}",
            size=status.st_size,
            changed=status.st_mtime_ns,
            rows=row.height,
            columns=row.width,
            split=row.split,
            collection="-".join(filter(None, (prefix, row.collection))),
            mask_files=tuple(f"{folder.name}/{path}" for path in masks.get(row.image_id, ())),
            variant_of=f"{prefix}_{row.parent}" if row.parent else "",
            also=tuple((name, getattr(row, name)) for name in CARRIED),
        )
        same = ("laterality", "view", "finding", "pathology", "density", "assessment", "age",
                "site", "machine", "implant")  # fmt: skip
        records.append(replace(record, **{name: getattr(row, name) for name in same}))
    return records, missing


def _diagnosis(folder: Path, row: Row) -> str:
    """Return the diagnosis of an image.

    Raises:
        UserError: Its dataset asks another question, and keeps no diagnosis beside the label.
    """
    found = row.diagnosis or row.label
    if found not in (*DIAGNOSES, ABNORMAL):
        problem = f"{folder / MANIFEST}: {row.image_id} is {row.label}, which tells no diagnosis"
        raise UserError(problem, REMEDY)
    return found


def _masks(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if (folder / MASK_TABLE).is_file():
        for line in read_table(folder / MASK_TABLE, ("image_id", "path"), REMEDY).lines:
            inside(folder, line.cells["path"])
            found.setdefault(line.cells["image_id"], []).append(line.cells["path"])
    return found


def _notes(name: str, record: dict[str, Any], told: dict[str, Any]) -> Iterator[str]:
    """Yield what makes one dataset unlike the others."""
    if not told.get("has_patients", True):
        yield f"{name} tells no patients"
    if told.get("question") == "benign-malignant":
        yield f"{name} was organised without its normal images (--question benign-malignant)"
    if str(record["options"].get("depth", "16")) != "16":
        yield f"{name} has 8 bits a grey value: grey values alone may tell it from the others"
