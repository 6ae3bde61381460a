"""What a dataset holds, known by content: so that nothing continues on what has changed since.

A dataset's record has a digest of its pixels and says what it was made from. Whatever reuses,
continues or compares holds that against what is there.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, shown
from pipeline.manifest import MANIFEST
from pipeline.paths import from_here, is_possible
from pipeline.records import RECORD, UNFINISHED, digest, file_digest, read_json, read_record

PIXELS, SOURCE = "pixels", "source"  # in the record of a dataset
# Options that change nothing of what a dataset holds.
PLACES = {"data", "out", "source", "csv", "workers", "cluster", "preview", "check", "dry_run"}
MOST = 4  # differences that a message names
NO_PATIENTS = (
    "the collection tells no patients: images of one patient may be in two splits, so results may "
    "be too good"
)


def dataset_hash(folder: Path) -> str:
    """Return a digest of what a dataset holds: images, labels, splits and pixels.

    Datasets of before pixels were recorded are known by their manifest, as their runs are.

    Raises:
        UserError: The folder is no complete dataset.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{manifest}: no such file", "make the folder again")
    pixels = read_json(folder / RECORD).get(PIXELS) if (folder / RECORD).is_file() else None
    return file_digest(manifest) if pixels is None else digest(file_digest(manifest), pixels)


def pixels_digest(images: Iterable[tuple[str, str]]) -> str:
    """Return a digest of pixels from (image_id, digest of its pixels or what they depend on)."""
    return digest(sorted(images))


def made_from(folder: Path, out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a dataset says of the one that it is made from.

    Args:
        folder: The dataset that it is made from.
        out: The one that is made.
        record: The completion record of the former.
    """
    here = folder.resolve()
    return {
        "folder": str(here),
        "relative": os.path.relpath(here, out.resolve()),  # of a workspace that was moved
        "hash": dataset_hash(folder),
        "options": record["options"],
        **({} if has_patients(record) else {"has_patients": False}),
    }


def has_patients(record: Mapping[str, Any]) -> bool:
    """Return whether the patient_id of a dataset is a person, by its completion record."""
    told: bool = record.get("counts", {}).get(
        "has_patients", record.get("source", {}).get("has_patients", True)
    )
    return told


def read_fresh(folder: Path, *makers: str) -> dict[str, Any]:
    """Read the record of a dataset, as `read_record` does, that is still up to date.

    Raises:
        UserError: As `read_record`; or what it was made from has changed since.
    """
    record = read_record(folder, *makers)
    if why := out_of_date(folder, record):
        command = f"python main.py {record['stage']} --answers {folder / 'answers.json'}"
        raise UserError(f"{folder}: is out of date: {why}", f"run: {command}")
    return record


def refuse_changed(run: Any, facts: Mapping[str, Any], data: Path, remedy: str) -> None:
    """Refuse a dataset that is not the one that a run was trained on.

    Args:
        run: With a `name`.
        facts: Its model.json.
        data: The dataset as it is now.
        remedy: What to do then.

    Raises:
        UserError: It holds something else, or is no complete dataset; the message says what
            changed.
    """
    record = read_record(data, "preprocess", "organize")
    if dataset_hash(data) == facts["data_hash"]:
        return
    made = record["options"] if record["stage"] == "preprocess" else {}
    changed = differences(facts["preprocess"] or {}, made) or "images, labels or splits"
    raise UserError(f"{data}: has changed since {run.name} was begun ({changed})", remedy)


def source_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """Return the dataset that one was made from; None where it is gone, or was made from none.

    Args:
        folder: The dataset.
        record: Its completion record.
    """
    source = record.get(SOURCE)
    if source is None:
        return None
    places = (Path(source["folder"]), folder.resolve() / source["relative"])
    likely = (one for one in places if is_possible(one))
    return next((one for one in likely if (one / MANIFEST).is_file()), None)


def out_of_date(folder: Path, record: Mapping[str, Any]) -> str:
    """Return how what a dataset was made from has changed since; empty where it has not.

    What is gone cannot be compared: a dataset may be kept without the one it was made from.
    """
    source, place = record.get(SOURCE), source_of(folder, record)
    if source is None or place is None:
        return ""
    name = from_here(place)
    if not (place / RECORD).is_file():
        begun = (place / UNFINISHED).is_file()
        return f"{name} was organised again and that is not finished" if begun else ""
    if dataset_hash(place) == source["hash"]:
        return ""
    changed = differences(source["options"], read_json(place / RECORD).get("options", {}))
    return f"{name} was organised again since ({changed or 'its images or labels changed'})"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in words which options differ: "seed 42 -> 7, unit mammogram -> crop"."""
    names = [name for name in {**old, **new} if name not in PLACES]
    found = [
        f"{name.replace('_', '-')} {shown(str(old.get(name)))} -> {shown(str(new.get(name)))}"
        for name in names
        if str(old.get(name)) != str(new.get(name))
    ]
    more = [f"{len(found) - MOST} more"] if len(found) > MOST else []
    return ", ".join([*found[:MOST], *more])


def locate(path: Path, beside: Path) -> Path:
    """Find a folder that a record names relative to where the tool was then started.

    Args:
        path: As the record gives it.
        beside: The folder of the record: one of its parents is the likely start.
    """
    if path.is_absolute():
        return path
    for parent in beside.resolve().parents:
        if (parent / path).is_dir():
            return parent / path
    return path


def collection_record(source: Path) -> Mapping[str, Any] | None:
    """Return the record of a synthetic collection; None for a real one, which has no record.

    Raises:
        UserError: The folder of the collection is gone, or something else made it.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    return read_record(source, "synthesize") if (source / RECORD).is_file() else None
