"""Where the work stands in the current folder, what was answered last time, what comes next."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import is_possible
from pipeline.processes import world_here
from pipeline.provenance import dataset_hash, out_of_date
from pipeline.records import RECORD, UNFINISHED, read_json, write_json
from pipeline.resources.sizes import age_text, bytes_text
from pipeline.runs import METRICS, MODEL_FILE, list_runs, list_unfinished

MEMORY = Path(".mammolab") / "answers.json"
DRAFTS = Path(".mammolab") / "drafts.json"
COUNTING_SECONDS = 0.2  # at most, to see how much a folder holds: the menu must not wait
SHORTCUTS = "shortcuts.json"  # in a dataset: what its shortcut probe found
SCALAR = str | int | float | None  # what an answer can be
Memory = Mapping[str, Mapping[str, Any]]  # stage -> option -> last answer


def recall() -> dict[str, dict[str, Any]]:
    """Return the answers given last to the questions of each stage in this folder."""
    return _read(MEMORY)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with contextlib.suppress(UserError):
        return {
            stage: {name: value for name, value in options.items() if isinstance(value, SCALAR)}
            for stage, options in read_json(path).items()
        }
    return {}


def remember(stage: str, options: Mapping[str, Any]) -> None:
    """Keep a stage's answers for the next time; a folder that cannot be written is no matter.

    Under torchrun rank zero alone does it.
    """
    if not world_here().is_rank_zero:
        return
    with contextlib.suppress(OSError):
        write_json(MEMORY, recall() | {stage: dict(options)})


def keep_draft(stage: str, options: Mapping[str, Any]) -> None:
    """Keep answers that were given but not run, to be offered once."""
    with contextlib.suppress(OSError):
        write_json(DRAFTS, _read(DRAFTS) | {stage: dict(options)})


def take_draft(stage: str) -> dict[str, Any]:
    """Return the answers that were given last but not run, and forget them."""
    drafts = _read(DRAFTS)
    draft = drafts.pop(stage, {})
    if draft:
        with contextlib.suppress(OSError):
            write_json(DRAFTS, drafts)
    return draft


@dataclass(frozen=True)
class Workspace:
    """Where the work stands."""

    # For each kind of output its name and state, in the order of the work.
    lines: tuple[tuple[str, str], ...]
    brief: str  # the same in a line of a terminal
    next_stage: str  # the next sensible stage
    marks: Mapping[str, str]  # by stage, what is unfinished or out of date


def survey(memory: Memory) -> Workspace:
    """Look at what has been made, in the folders answered last at questions or the usual ones."""

    def folder(stage: str, name: str, usual: str) -> Path:
        said = memory.get(stage, {}).get(name, usual)
        return Path(said) if is_possible(said) else Path(usual)

    dataset = folder("organize", "out", "dataset")
    raw = _source_of(dataset) or folder(
        "organize", "source", str(folder("synthesize", "out", "raw"))
    )
    preprocessed = folder("preprocess", "out", "preprocessed")
    runs_folder = folder("train", "runs", "runs")
    runs, stopped = list_runs(runs_folder), len(list_unfinished(runs_folder))
    reports = sorted(
        folder("report", "out", "reports").glob("*/report.html"),
        key=lambda path: path.stat().st_mtime,
    )
    evaluated = [run for run in runs if run.evaluated]
    waiting = len(runs) - len(evaluated)
    report_due = evaluated and (
        not reports or reports[-1].stat().st_mtime < _newest_metrics(evaluated)
    )
    to_organize, stale = not _finished(dataset), _stale(preprocessed)
    steps = (
        ("synthesize", to_organize and (not raw.is_dir() or (raw / UNFINISHED).is_file())),
        ("organize", to_organize),
        ("preprocess", not _finished(preprocessed) or bool(stale)),
        ("train", not runs),
        ("evaluate", bool(runs) and not runs[-1].evaluated),
        ("report", bool(report_due)),
    )
    lines = (
        ("raw collection", _raw_state(raw)),
        ("dataset", _state(dataset)),
        ("preprocessed", _state(preprocessed)),
        ("runs", _runs_state(runs, stopped)),
        ("report", f"{reports[-1]}{_age(reports[-1])}" if reports else "none yet"),
    )
    marks = {
        "synthesize": "not finished" if (raw / UNFINISHED).is_file() else "",
        "organize": "not finished" if (dataset / UNFINISHED).is_file() else "",
        "preprocess": "not finished" if (preprocessed / UNFINISHED).is_file() else (
            "out of date" if stale else ""),
        "train": f"{stopped} stopped" if stopped else "",
        "evaluate": f"{waiting} waiting" if waiting else "",
        "report": "out of date" if report_due and reports else "",
    }  # fmt: skip
    following = next((stage for stage, due in steps if due), "train")
    folders = {"synthesize": raw.is_dir(), "organize": _finished(dataset),
               "preprocess": _finished(preprocessed), "report": bool(reports)}  # fmt: skip
    marks = {name: mark for name, mark in marks.items() if mark}
    brief = _brief(marks, folders, len(runs))
    return Workspace(lines, brief, following, marks)


def _source_of(dataset: Path) -> Path | None:
    """Return the download that a dataset was made from, or begun with; None where it is not there.

    Flags teach the questions nothing, and answers that were stopped are no last ones.
    """
    for record in (UNFINISHED, RECORD):
        with contextlib.suppress(UserError, KeyError, TypeError):
            source = read_json(dataset / record)["options"]["source"]
            if is_possible(source) and Path(source).is_dir():
                return Path(source)
    return None


def _brief(marks: Mapping[str, str], there: Mapping[str, bool], runs: int) -> str:
    """Return the state in a line: "raw ok, dataset out of date, 3 runs (1 stopped)"."""
    states = {stage: marks.get(stage, "ok" if there[stage] else "none") for stage in there}
    waiting = ", ".join(marks[stage] for stage in ("train", "evaluate") if stage in marks)
    count = f"{runs} run{'' if runs == 1 else 's'}{f' ({waiting})' if waiting else ''}"
    return (f"raw {states['synthesize']}, dataset {states['organize']}, preprocessed "
            f"{states['preprocess']}, {count}, report {states['report']}")  # fmt: skip


def _newest_metrics(evaluated: list[Any]) -> float:
    return max(((run.folder / METRICS).stat().st_mtime for run in evaluated), default=0.0)


def _finished(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def _raw_state(raw: Path) -> str:
    if not raw.is_dir():
        return "none yet: put the download into a folder, or synthesize one to try"
    if (raw / UNFINISHED).is_file():
        return f"{raw}: not finished; run it again to continue"
    if _finished(raw):
        return f"{raw} (synthetic){_size(raw)}{_age(raw / RECORD)}"
    return f"{raw}{_size(raw)}"


def _state(folder: Path) -> str:
    if (folder / UNFINISHED).is_file():
        with contextlib.suppress(UserError, KeyError, TypeError):
            begun = read_json(folder / UNFINISHED)["options"]
            if begun.get("check"):
                return f"{folder}: the download was checked; not organised yet"
            if begun.get("preview"):
                return f"{folder}: previewed; nothing preprocessed yet"
        return f"{folder}: not finished; run it again to continue"
    if not _finished(folder):
        return "none yet"
    warning = _stale(folder) + _warning(folder)
    with contextlib.suppress(UserError, KeyError):
        splits = read_json(folder / RECORD)["counts"]["splits"]
        images = ", ".join(f"{counts['images']} {split}" for split, counts in splits.items())
        return f"{folder}: {images} images{_size(folder)}{_age(folder / RECORD)}{warning}"
    return f"{folder}: done{_size(folder)}{_age(folder / RECORD)}{warning}"


def _stale(folder: Path) -> str:
    """Return where the chain is broken: what a dataset was made from has changed since."""
    with contextlib.suppress(UserError, KeyError, TypeError):
        if why := out_of_date(folder, read_json(folder / RECORD)):
            return f"; out of date: {why}"
    return ""


def _warning(folder: Path) -> str:
    with contextlib.suppress(UserError, KeyError, TypeError):
        if summary := read_json(folder / SHORTCUTS)["summary"]:
            return f"; warning: {summary}"
    return ""


def _size(folder: Path) -> str:
    """Return how much a folder holds: ", 1.2 GB"; empty where to count it would take long."""
    number, until = 0, time.monotonic() + COUNTING_SECONDS
    for place, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                number += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
        if time.monotonic() > until:
            return ""
    return f", {bytes_text(number)}"


def _age(path: Path) -> str:
    """Return how long ago a file was written: ", 2 h ago"."""
    with contextlib.suppress(OSError):
        age = age_text(time.time() - path.stat().st_mtime)
        return f", {age}" if age == "now" else f", {age} ago"
    return ""


def _runs_state(runs: list[Any], stopped: int) -> str:
    begun = f"{stopped} stopped; run train to continue" if stopped else ""
    if not runs:
        return begun or "none yet"
    last = runs[-1]
    state = "evaluated" if last.evaluated else "not evaluated yet"
    with contextlib.suppress(UserError, KeyError, TypeError):
        facts = read_json(last.folder / MODEL_FILE)
        if facts["data"] and dataset_hash(Path(facts["data"])) != facts["data_hash"]:
            state += "; its dataset has changed since it was trained"
    begun = f"; {begun}" if begun else ""
    return f"{len(runs)}; the last is {last.name}, {state}{_age(last.folder / RECORD)}{begun}"
