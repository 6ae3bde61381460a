"""Which collection a folder holds: each is known by marks of its own, and read by a module.

A collection is a module of `sources` with

- MARKS: what it is known by, in words, for whoever gave another folder;
- `is_here(folder)`: whether a folder is its root; it looks at names and heads of files alone;
- `plan(options, rename)`: a `sources.plan.Plan`;
- `check(options, progress)`: what is missing or damaged, as the stage's result;
- where a table alone can be planned, `is_table(path)`: whether a file is it, or a folder holds it.

Nothing here loads more than the standard library: questions are asked through it.
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError
from pipeline.options import Answers
from pipeline.stages.collections import CBIS_DDSM, COLLECTIONS, FOLDERS, MINI_MIAS, RSNA
from pipeline.stages.data import Organize

# In the order of asking: a folder with class folders may be any of the others.
MODULES = {
    MINI_MIAS: "sources.mini_mias",
    RSNA: "sources.rsna.stage",
    CBIS_DDSM: "sources.cbis_ddsm.stage",
}
MOST_FOLDERS = 200  # of a level, that are looked into for a collection one level too high
_known: dict[Path, tuple[int, str]] = {}


def module_of(name: str) -> ModuleType:
    """Return the module that reads a collection."""
    return importlib.import_module(MODULES[name])


def recognised(source: Path) -> str:
    """Return the name of the collection whose root a folder is; empty where it is none's."""
    for name in MODULES:
        with contextlib.suppress(OSError):
            if module_of(name).is_here(source):
                return name
    return ""


def collection_of(answers: Answers) -> str:
    """Return which collection the answers of `organize` mean.

    CBIS-DDSM where the folder is not there yet, or is nothing that is known: the stage says so.
    """
    if (given := str(answers.get("collection", "auto"))) != "auto":
        return given
    if (table := answers.get("csv")) and (name := _of_table(Path(table))):
        return name
    source = Path(answers.get("source", ""))
    try:
        stamp = source.stat().st_mtime_ns
    except OSError:
        return CBIS_DDSM
    known = _known.get(source)
    if known is None or known[0] != stamp:
        known = _known[source] = stamp, recognised(source)
    return known[1] or CBIS_DDSM


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


def open_collection(options: Organize) -> ModuleType:
    """Return the module that reads the collection of `organize`.

    Raises:
        UserError: It is none that is known, or not the one that was named; the message says what
            was looked for, what was found, and where a collection seems to lie.
    """
    source, given = options.source, options.collection
    if options.csv:
        # A table that was named tells more than the folder: images alone may lie there.
        there = recognised(source) if given == "auto" and source.is_dir() else ""
        name = _of_table(options.csv) or there or CBIS_DDSM if given == "auto" else given
        return module_of(name)
    name = recognised(source) if given == "auto" else given
    if name and (name == CBIS_DDSM or given == "auto" or module_of(name).is_here(source)):
        return module_of(name)
    wanted = [given] if given != "auto" else list(MODULES)
    looked_for = "; ".join(f"{COLLECTIONS[one]}: {module_of(one).MARKS}" for one in wanted)
    problem = f"{source}: holds {_contents(source)}, and none of: {looked_for}"
    raise UserError(problem, _where_else(source, wanted))


def _where_else(source: Path, wanted: list[str]) -> str:
    """Return what to do, by what lies above and below a folder."""
    for place in _near(source):
        for name in wanted:
            with contextlib.suppress(OSError):
                if name != FOLDERS and module_of(name).is_here(place):
                    return f"{COLLECTIONS[name]} seems to lie in {place}: give that as --source"
    packed = sorted(path.name for path in source.iterdir() if path.suffix.lower() == ".zip")
    if packed:
        return f"unpack {', '.join(packed[:3])}, and give the folder that it makes as --source"
    return "give --source the folder of a download"


def _near(source: Path) -> Iterator[Path]:
    """Yield the folders one and two levels below and above."""
    below = _folders(source)
    yield from below
    for folder in below:
        yield from _folders(folder)
    yield from source.absolute().parents[:2]


def _folders(source: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        found = (path for path in source.iterdir() if path.is_dir() and path.name[:1] != ".")
        return sorted(found)[:MOST_FOLDERS]
    return []


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


def planned_images(options: Organize) -> dict[str, int]:
    """Return how many images each split will have, by what the tables say alone.

    Raises:
        UserError: As the plan of the collection.
    """
    from sources.pseudonyms import OpenNames

    planned = open_collection(options).plan(options, OpenNames()).facts()["planned"]
    return {split: found["images"] for split, found in planned.items()}
