"""Which collection a folder holds: each is known by marks of its own, and read by a module.

A collection is a module of `sources` with

- MARKS: what it is known by, in words, for whoever gave another folder;
- `is_here(folder)`: whether a folder is its root; it looks at names and heads of files alone;
- `read(options, progress)`: what it holds, as `sources.records.Records`; or else
  `plan(options, rename)`, a `sources.plan.Plan`, and `check(options, progress)`, what is missing or
  damaged;

and, where there is something to say,

- `may_be_here(folder)`: whether a folder may be its root, if it is no other's;
- `is_near(folder)`: as `is_here`, in less time, for folders that nobody named;
- `half_here(folder)`: which part of it a folder holds, and which part is missing, in words, or
  as the UserError to raise;
- `is_table(path)`: whether a file is its table, or a folder holds it, so that it can be planned
  without images;
- `live_counts(name, answers)`: what an answer would leave, where records do not tell it.

Nothing is loaded here before a folder is looked at: `--help` comes this way.
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.manifest import MANIFEST, NORMAL
from pipeline.options import Answers
from pipeline.paths import from_here
from pipeline.progress import Progress, Result, Silent
from pipeline.records import RECORD
from pipeline.stages.collections import (
    CBIS_DDSM,
    FOLDERS,
    MENDELEY,
    MERGED,
    MINI_MIAS,
    RSNA,
    TFRECORDS,
    short_name,
)
from pipeline.stages.data import PACKED, Organize
from pipeline.tables import unread_spreadsheets

if TYPE_CHECKING:
    from sources.plan import Plan
    from sources.pseudonyms import OpenNames

# In the order of asking: images in class folders may be any of the others.
MODULES = {
    MERGED: "sources.merged",
    MINI_MIAS: "sources.mini_mias",
    RSNA: "sources.rsna.stage",
    TFRECORDS: "sources.tfrecords",
    MENDELEY: "sources.mendeley",
    CBIS_DDSM: "sources.cbis_ddsm.stage",
    FOLDERS: "sources.folders.stage",
}
OWN_WORDS = (CBIS_DDSM, FOLDERS, MERGED)  # say themselves what they lack, where they were named
MOST_FOLDERS = 200  # of a level, that are looked into for a collection one level too high
MOST_NEAR = 400  # and on all levels together
_known: dict[Path, tuple[int, str]] = {}


def module_of(name: str) -> ModuleType:
    """Return the module that reads a collection."""
    return importlib.import_module(MODULES[name])


def recognised(source: Path) -> str:
    """Return the name of the collection whose root a folder is; empty where it is none's."""
    return next((name for test in ("is_here", "may_be_here") for name in MODULES
                 if _says(name, test, source)), "")  # fmt: skip


def collection_of(answers: Answers) -> str:
    """Return which collection the answers of `organize` mean.

    CBIS-DDSM where the folder is not there yet, or is nothing that is known: the stage says so.
    """
    source = Path(answers.get("source", "")).absolute()
    given = str(answers.get("collection", "auto"))
    return _named(given, source, answers) or CBIS_DDSM


def _named(given: str, source: Path, answers: Answers) -> str:
    """Return the collection that was named, or is recognised; empty where it is none."""
    if given != "auto":
        return given
    if (table := answers.get("csv")) and (name := _of_table(Path(table))):
        return name
    if answers.get("columns") or answers.get("classes"):  # of nothing else
        return FOLDERS
    try:
        stamp = source.stat().st_mtime_ns
    except OSError:
        return _by_table(answers.get("csv"))
    known = _known.get(source)
    if known is None or known[0] != stamp:
        known = _known[source] = stamp, recognised(source)
    return known[1] or _by_table(answers.get("csv"))


def _by_table(csv: Path | None) -> str:
    """Return the collection that a table may be of which lies elsewhere."""
    if csv is None or not Path(csv).exists():
        return CBIS_DDSM if csv else ""
    test = importlib.import_module("sources.folders.stage").may_be_table
    with contextlib.suppress(OSError, UserError):
        return FOLDERS if test(Path(csv)) else CBIS_DDSM
    return CBIS_DDSM


def _of_table(table: Path) -> str:
    """Return the name of the collection whose table a file is, or a folder holds; empty if none."""
    for name in MODULES:
        is_table = getattr(module_of(name), "is_table", None)
        with contextlib.suppress(OSError):
            if is_table is not None and is_table(table):
                return name
    return ""


def live_counts(name: str, answers: Answers) -> Mapping[str, str]:
    """Return for each choice of an option of `organize` what would be left with it."""
    module = module_of(collection_of(answers))
    counts = getattr(module, "live_counts", None)
    if counts is None:
        counts = importlib.import_module("sources.record_plan").live_counts
    found: Mapping[str, str] = counts(name, answers)
    return found


def plan_of(options: Organize, rename: "OpenNames", progress: Progress) -> "Plan":
    """Return what the collection's tables and names decide.

    Raises:
        UserError: As `named_collection`, or the collection cannot be read.
    """
    name = named_collection(options)
    module = module_of(name)
    if hasattr(module, "plan"):
        planned: Plan = module.plan(options, rename)
        return planned
    by_records = importlib.import_module("sources.record_plan")
    planned = by_records.plan_records(options, rename, name, module.read, progress)
    return planned


def check_of(options: Organize, progress: Progress) -> Result:
    """Say what of the collection is missing or damaged.

    Raises:
        UserError: As `plan_of`.
    """
    name = named_collection(options)
    module = module_of(name)
    if hasattr(module, "check"):
        found: Result = module.check(options, progress)
        return found
    by_records = importlib.import_module("sources.record_check")
    found = by_records.check_records(options, name, module.read, progress)
    return found


def named_collection(options: Organize) -> str:
    """Return the name of the collection of `organize`.

    Raises:
        UserError: It is none that is known, or not the one that was named; the message says what
            was looked for, what was found, and where a collection seems to lie.
    """
    source, given = options.source, options.collection
    if (source / MANIFEST).is_file() and (source / RECORD).is_file():
        problem = f"{source}: is a dataset that this tool made already, not a download"
        raise UserError(problem, f"run: python main.py preprocess --data {source}")
    name = _named(given, source.absolute(), vars(options))
    # A table that was named tells more than the folder: images alone may lie there.
    sure = given == "auto" or options.csv is not None or name in OWN_WORDS
    if name and (sure or _says(name, "is_here", source)):
        return name
    wanted = [given] if given != "auto" else list(MODULES)
    raise _refusal(source, wanted)


def _refusal(source: Path, wanted: list[str]) -> UserError:
    """Return why a folder is none of some collections, and what to do."""
    held = _contents(source)
    plain = wanted == [FOLDERS]
    if half := _half_here(source, wanted if plain else [one for one in wanted if one != FOLDERS]):
        return half
    # A folder of work holds datasets as well: that they lie beside another one says nothing.
    likely = wanted if wanted == [MERGED] else [one for one in wanted if one != MERGED]
    places = list(_elsewhere(source, likely))
    if _unpack(source):  # what lies in there is nearer than what lies above
        places = [one for one in places if one[1].is_relative_to(source)]
    if places:
        name, place = places[0]
        others = [str(other) for one, other in places[1:]
                  if one == name and not other.is_relative_to(place)]  # fmt: skip
        also = f" (and in {', '.join(others[:2])})" if others else ""
        lacks = f"holds {held}, but not {module_of(name).MARKS}"
        remedy = f"{short_name(name)} seems to lie in {place}{also}: give that as --source"
        return UserError(f"{source}: {lacks}", remedy)
    if half := _half_here(source, [FOLDERS] if FOLDERS in wanted else []):
        return half
    if len(wanted) == 1:
        looked_for = f"what {short_name(wanted[0])} is known by: {module_of(wanted[0]).MARKS}"
        return UserError(f"{source}: holds {held}, and not {looked_for}", _readable(source) or GIVE)
    names = ", ".join(short_name(name) for name in wanted)
    return UserError(
        f"{source}: holds {held}, and none of the collections that are known ({names})",
        _readable(source) or "name one with --collection, to be told what is missing of it",
    )


def _half_here(source: Path, wanted: list[str]) -> UserError | None:
    """Return what to say of a folder that holds a part of a collection."""
    for name in wanted:
        try:
            half = getattr(module_of(name), "half_here", lambda _: "")(source)
        except OSError:
            continue
        except UserError as error:
            return error
        if half:
            return UserError(
                f"{source}: {half} (holds {_contents(source)})", _readable(source) or GIVE
            )
    return None


GIVE = "give --source the folder of the download"


def _readable(source: Path) -> str:
    """Return what to do where files are still packed, or tables are spreadsheets."""
    return _unpack(source) or unread_spreadsheets(source)


def _unpack(source: Path) -> str:
    """Return what to do where files are still packed."""
    packed = [path.name for path in sorted(source.iterdir()) if path.suffix.lower() in PACKED]
    if not packed:
        return ""
    more = " and so on" if len(packed) > 3 else ""
    return f"unpack {', '.join(packed[:3])}{more}, and give the folder that it makes as --source"


def _elsewhere(source: Path, wanted: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the collections that lie nearest below a folder, or else around it."""
    for level in _near(source):
        found = [(name, place) for place in level for name in wanted
                 if _says(name, "is_near", place, "is_here")]  # fmt: skip
        if found:
            yield from found
            return


def _near(source: Path) -> Iterator[list[Path]]:
    """Yield the folders one and two levels below, and those above."""
    below = _folders(source)
    yield below
    yield [path for folder in below for path in _folders(folder)][:MOST_NEAR]
    # The upper one first: a part of a collection may look like one.
    yield [from_here(path) for path in reversed(source.absolute().parents[:2])]


def _folders(source: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        found = (path for path in source.iterdir() if path.is_dir() and path.name[:1] != ".")
        return sorted(found)[:MOST_FOLDERS]
    return []


def _says(name: str, test: str, folder: Path, otherwise: str = "") -> Any:
    """Return what a collection's module says of a folder; nothing where it has no such test."""
    module = module_of(name)
    asked = getattr(module, test, None) or getattr(module, otherwise or test, None)
    with contextlib.suppress(OSError, UserError):
        return asked(folder) if asked else None
    return None


def _contents(source: Path) -> str:
    """Say what a folder holds: "2 folders (a, b), 3 files (x.csv, y.zip and so on)"."""
    folders: list[str] = []
    files: list[str] = []
    for path in sorted(source.iterdir()):
        (folders if path.is_dir() else files).append(path.name)
    parts = []
    for names, what in ((folders, "folder"), (files, "file")):
        if names:
            more = " and so on" if len(names) > 3 else ""
            plural = "" if len(names) == 1 else "s"
            parts.append(f"{len(names):,} {what}{plural} ({', '.join(names[:3])}{more})")
    return ", ".join(parts) or "nothing"


def planned_images(options: Organize) -> tuple[dict[str, int], int]:
    """Return how many images each split will have, and how many normal ones its train split.

    By what the tables say alone.

    Raises:
        UserError: As the plan of the collection.
    """
    from sources.pseudonyms import OpenNames
    from sources.records import PlannedRecord

    plan = plan_of(replace(options, dry_run=True), OpenNames(), Silent())
    planned = plan.facts()["planned"]
    normals = 0
    for image in plan.images:
        diagnosis = image.record.diagnosis if isinstance(image, PlannedRecord) else ""
        normal = diagnosis == NORMAL if diagnosis else image.label == plan.labels[0]
        normals += normal and plan.splits[image.patient_id] == "train"
    return {split: found["images"] for split, found in planned.items()}, normals
