"""Finds what is kept beside the results to save time, and which of it a process is using."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.holding import holder_of
from pipeline.leftovers import is_left_over
from pipeline.records import RECORD, UNFINISHED, read_json
from pipeline.resources.places import (
    ANOMALY,
    CACHE,
    COSTS,
    FROZEN,
    HEADERS,
    LEAKAGE,
    PIXELS,
    TRIALS,
    WORKING,
)
from pipeline.resources.sizes import bytes_of, files_below
from pipeline.runs import STUDIES

HIDDEN = {ANOMALY, COSTS, LEAKAGE, ".baselines", ".mammolab"}  # hidden folders that are the tool's
DEPTH = 5  # folders between that of the work and a run or a report: demo/runs/<model>/<run>
QUIET_SECONDS = 3600  # without a file written, after which nobody works on trials


@dataclass(frozen=True)
class Kept:
    """A file or a folder that can be made anew."""

    kind: str  # one of pipeline.stages.upkeep.KINDS
    path: Path
    owner: Path  # the folder of the stage that it belongs to
    size: int  # bytes
    hold: bool = False  # whether its stage holds the owner while it uses it
    empties: tuple[Path, ...] = ()  # folders to remove with it where they are empty then


def find_kept(folder: Path) -> list[Kept]:
    """Return what is kept below a folder, in folders that stages of this tool made.

    Links are not followed: what they lead to may be of somebody else.
    """
    found: list[Kept] = []
    for owner, stage in _stage_folders(folder, DEPTH):
        if stage in ("organize", "preprocess"):
            found += _of_dataset(owner)
        if stage == "tune":
            found += _of_study(owner)
        if stage == "report" and not (owner / RECORD).is_file():
            found.append(Kept("reports", owner, owner, bytes_of(owner), hold=True))
        else:
            found += _left_over(owner) if stage else _left_between(owner)
    return found


def _stage_folders(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    """Yield the folders that a stage of this tool made, with its name, and those between them."""
    stage = _maker(folder)
    yield folder, stage
    if depth and not stage:
        for path in _entries(folder):
            if path.is_dir() and (path.name[0] != "." or path.name in HIDDEN):
                yield from _stage_folders(path, depth - 1)


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, without links."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sorted(folder / one.name for one in entries if not one.is_symlink())
    return []


def _maker(folder: Path) -> str:
    for name in (RECORD, UNFINISHED):
        with contextlib.suppress(UserError):  # none, damaged, or a file of somebody else's
            return str(read_json(folder / name)["stage"])
    return ""


def _of_dataset(owner: Path) -> Iterator[Kept]:
    cache = owner / CACHE
    if cache.is_dir() and not cache.is_symlink():
        for path in sorted(cache.iterdir()):
            known = path.suffix in (f".{PIXELS}", ".json", ".lock")
            if known and path.is_file() and not path.is_symlink():
                yield Kept("image-cache", path, owner, path.lstat().st_size, empties=(cache,))
        frozen = cache / FROZEN
        if frozen.is_dir() and not frozen.is_symlink():
            for path in sorted(frozen.glob("[!.]*.npy")):
                empties = (frozen, cache)
                yield Kept("features", path, owner, bytes_of(path), empties=empties)
    working = owner / WORKING
    if working.is_dir() and not working.is_symlink():
        yield Kept("working", working, owner, bytes_of(working), hold=True)
    if (headers := owner / HEADERS).is_file() and not headers.is_symlink():
        yield Kept("headers", headers, owner, bytes_of(headers), hold=True)


def _of_study(owner: Path) -> Iterator[Kept]:
    trials = owner / TRIALS
    if owner.parent.name == STUDIES and trials.is_dir() and not trials.is_symlink():
        yield Kept("trials", trials, owner, bytes_of(trials))


def _left_over(owner: Path) -> Iterator[Kept]:
    for path, status in files_below(owner):
        if is_left_over(path) and TRIALS not in path.parts:
            yield Kept("leftovers", path, owner, status.st_size)


def _left_between(folder: Path) -> Iterator[Kept]:
    """Yield what is left over in a folder of no stage: of runs whose deletion was killed, too."""
    for path in _entries(folder):
        if is_left_over(path):
            yield Kept("leftovers", path, folder, bytes_of(path))


def in_use(kept: Sequence[Kept]) -> dict[Kept, str]:
    """Return what must stay for now, with the reason in words.

    A stage that makes something holds its folder. What is only read is open or mapped into the
    memory of its reader: that shows of processes of this machine and this user.
    """
    found: dict[Kept, str] = {}
    held = {one.owner: holder_of(one.owner) for one in kept if one.hold}
    opened = _opened_by_others([one.owner for one in kept])
    for one in kept:
        if who := held.get(one.owner, ""):
            found[one] = f"{who} is at work there"
        elif process := _user_of(one, opened):
            found[one] = f"process {process} uses it"
        elif one.kind == "trials" and _is_fresh(one.path):
            found[one] = "a search wrote there within the last hour"
    return found


def _user_of(one: Kept, opened: dict[Path, int]) -> int | None:
    """Return a process that uses something; a search keeps the database of its study open."""
    if one.kind == "trials":
        return next((opened[path] for path in opened if path.parent == one.owner.resolve()), None)
    here = one.path.resolve()
    if one.kind == "image-cache":  # the index and the pixels are of no use without each other
        here = here.parent
        return next((who for path, who in opened.items() if path.parent == here), None)
    return next((who for path, who in opened.items() if path.is_relative_to(here)), None)


def _is_fresh(folder: Path) -> bool:
    newest = max((status.st_mtime for _, status in files_below(folder)), default=0.0)
    return time.time() - newest < QUIET_SECONDS


def _opened_by_others(owners: Sequence[Path]) -> dict[Path, int]:
    """Return the files below some folders that other processes have open or mapped, and which."""
    import psutil

    places = {owner.resolve() for owner in owners}
    found: dict[Path, int] = {}
    for process in psutil.process_iter() if places else ():
        if process.pid == os.getpid():
            continue
        names: set[str] = set()
        with contextlib.suppress(psutil.Error, OSError):
            names.update(one.path for one in process.open_files())
        # Not on every system.
        with contextlib.suppress(psutil.Error, OSError, AttributeError):
            names.update(one.path for one in process.memory_maps())
        for name in names:
            path = Path(name)
            if not places.isdisjoint(path.parents):
                found[path] = process.pid
    return found
