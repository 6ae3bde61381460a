"""RSNA Screening Mammography (Kaggle 2022): 54,706 images of 11,913 women, 2 % with cancer.

`train.csv`, one row for each image (`sources.rsna.rows`), and the images beside it
(`sources.rsna.files`). DICOM files are read through their windows (`images.voi`).
"""

from collections import Counter
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.stages.data import Organize
from sources.records import Records
from sources.rsna.files import Found, find_images, holds_images
from sources.rsna.rows import NEEDED, OTHERS, REMEDY, Rows, placed, plain_column, read_rows

TABLE = "train.csv"
MARKS = f"{TABLE} with patient_id, image_id, cancer and the like in it or beside it"
HEAD = 4096  # bytes of a table that hold its columns
TELLING = 6  # of the columns: how many make it this table
LISTED = 3  # names in a message


def is_here(folder: Path) -> bool:
    """Return whether a folder holds the table, or the images of a table beside it."""
    if _tables(folder):
        return True
    beside = [path for path in _tables(folder.absolute().parent) if path.name.lower() == TABLE]
    return bool(beside) and holds_images(folder)


def is_table(path: Path) -> bool:
    """Return whether a file is the table, or a folder holds it."""
    return bool(_tables(path)) if path.is_dir() else path.is_file() and _looks_so(path)


def read(options: Organize, progress: Progress) -> Records:
    """Read the table, and find the images unless only a plan is wanted.

    Raises:
        UserError: There is no table, it cannot be used, or none of its images is there.
    """
    del progress  # nothing here takes long
    rows = read_rows(_table(options.source, options.csv))
    views = Counter(record.view for record in rows.records.values())
    facts = {"rows": len(rows.records), "views": dict(sorted(views.items()))}
    records = list(rows.records.values())
    aside, notes = list(rows.set_aside), list(rows.notes)
    if not options.dry_run:
        found = find_images(options.source, rows.named, rows.path.name)
        if not found.places:
            first = records[0]
            raise UserError(
                f"{options.source}: holds none of the {len(records):,} images that "
                f"{rows.path.name} lists, such as {first.file}",
                "give --source the folder that holds train_images, or <patient>_<image>.png",
            )
        usual = found.usual
        for at, record in enumerate(records):
            if place := found.places.get(record.image_id):
                records[at] = placed(record, place.file, place.size, place.changed)
            else:  # missing: it stays in the plan, and is set aside when it is to be read
                records[at] = placed(record, usual.other(*record.also_named), 0, 0)
        aside += found.unlisted
        notes += _notes(found)
    return Records(
        records=tuple(records),
        set_aside=tuple(aside),
        remarks=rows.remarks,
        notes=(*notes, *_twice_note(rows)),
        facts=facts,
    )


def _notes(found: Found) -> list[str]:
    """Say what of the files makes a figure doubtful."""
    notes = [
        f"{count:,} images lie there twice: those in {taken} are read, those in {other} are not"
        for (taken, other), count in sorted(found.twice.items())
    ]
    copies = sum(place.is_copy for place in found.places.values())
    if copies == len(found.places):
        notes.append("its images are copies: size and grey values are what somebody made of them")
    elif copies:
        notes.append(
            f"{copies:,} of {len(found.places):,} images are copies and the others DICOM: "
            "the two look different"
        )
    return notes


def _twice_note(rows: Rows) -> list[str]:
    if not rows.remarks:
        return []
    return [f"{rows.path.name}: {len(rows.remarks):,} images have several rows that are alike"]


def _table(source: Path, given: Path | None) -> Path:
    """Return the table.

    Raises:
        UserError: There is none, or there are several.
    """
    if given is not None and not given.is_dir():
        return given
    places = [given] if given is not None else [source, source.absolute().parent]
    for place in places:
        tables = _tables(place)
        named = [path for path in tables if path.name.lower() == TABLE]
        if len(tables) == 1 or named:
            return (named or tables)[0]
        if tables:
            names = ", ".join(path.name for path in tables[:LISTED])
            raise UserError(f"{place}: holds {len(tables)} tables ({names})", "name one with --csv")
    raise UserError(f"{places[0]}: holds no {TABLE} with {', '.join(NEEDED)}", REMEDY)


def _tables(folder: Path) -> list[Path]:
    """Return the tables in a folder that look like the collection's."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    except OSError:
        return []
    return [path for path in paths if path.name[:1] != "." and path.is_file() and _looks_so(path)]


def _looks_so(path: Path) -> bool:
    """Return whether the first line of a file has columns of the table.

    One that is named as the table may lack what is needed: to be told so.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    # UTF-16 is these letters with empty bytes between them.
    text = head.replace(b"\0", b"").decode("utf-8", "replace").lstrip("\ufeff\ufffd")
    line = next((line for line in text.splitlines() if line.strip()), "")
    for separator in ",;\t":
        names = {plain_column(name.strip('"')) for name in line.split(separator)}
        fitting = path.name.lower() == TABLE or {"patient_id", "image_id", "cancer"} <= names
        if fitting and len(names & {*NEEDED, *OTHERS}) >= TELLING:
            return True
    return False
