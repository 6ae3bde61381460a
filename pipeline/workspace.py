"""Where the work stands in the current folder, what was answered last time, what comes next."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import is_possible
from pipeline.processes import world_here
from pipeline.provenance import dataset_hash, out_of_date
from pipeline.records import RECORD, UNFINISHED, read_json, write_json
from pipeline.runs import MODEL_FILE, list_runs

MEMORY = Path(".mammolab") / "answers.json"
SHORTCUTS = "shortcuts.json"  # in a dataset: what its shortcut probe found
SCALAR = str | int | float | None  # what an answer can be
Memory = Mapping[str, Mapping[str, Any]]  # stage -> option -> last answer


def recall() -> dict[str, dict[str, Any]]:
    """Return the answers of the last run of each stage in this folder."""
    with contextlib.suppress(UserError):
        return {
            stage: {name: value for name, value in options.items() if isinstance(value, SCALAR)}
            for stage, options in read_json(MEMORY).items()
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


@dataclass(frozen=True)
class Workspace:
    """Where the work stands."""

    # For each kind of output its name and state, in the order of the work.
    lines: tuple[tuple[str, str], ...]
    next_stage: str  # the next sensible stage


def survey(memory: Memory) -> Workspace:
    """Look at what has been made, in the folders of the last run or the usual ones."""

    def folder(stage: str, name: str, usual: str) -> Path:
        said = memory.get(stage, {}).get(name, usual)
        return Path(said) if is_possible(said) else Path(usual)

    raw = folder("organize", "source", str(folder("synthesize", "out", "raw")))
    dataset = folder("organize", "out", "dataset")
    preprocessed = folder("preprocess", "out", "preprocessed")
    runs = list_runs(folder("train", "runs", "runs"))
    reports = sorted(
        folder("report", "out", "reports").glob("*/report.html"),
        key=lambda path: path.stat().st_mtime,
    )
    evaluated = [run for run in runs if run.evaluated]
    fresh = evaluated and (not reports or reports[-1].stat().st_mtime < _newest_metrics(evaluated))
    to_organize = not _finished(dataset)
    steps = (
        ("synthesize", to_organize and (not raw.is_dir() or (raw / UNFINISHED).is_file())),
        ("organize", to_organize),
        ("preprocess", not _finished(preprocessed) or bool(_stale(preprocessed))),
        ("train", not runs),
        ("evaluate", bool(runs) and not runs[-1].evaluated),
        ("report", bool(fresh)),
    )
    lines = (
        ("raw collection", _raw_state(raw)),
        ("dataset", _state(dataset)),
        ("preprocessed", _state(preprocessed)),
        ("runs", _runs_state(runs)),
        ("report", str(reports[-1]) if reports else "none yet"),
    )
    return Workspace(lines, next((stage for stage, due in steps if due), "train"))


def _newest_metrics(evaluated: list[Any]) -> float:
    return float(max((run.folder / "metrics.json").stat().st_mtime for run in evaluated))


def _finished(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def _raw_state(raw: Path) -> str:
    if not raw.is_dir():
        return "none yet: put the download into a folder, or synthesize one to try"
    if (raw / UNFINISHED).is_file():
        return f"{raw}: not finished; run it again to continue"
    if _finished(raw):
        return f"{raw} (synthetic)"
    return str(raw)


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
        return f"{folder}: {images} images{warning}"
    return f"{folder}: done{warning}"


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


def _runs_state(runs: list[Any]) -> str:
    if not runs:
        return "none yet"
    last = runs[-1]
    state = "evaluated" if last.evaluated else "not evaluated yet"
    with contextlib.suppress(UserError, KeyError, TypeError):
        facts = read_json(last.folder / MODEL_FILE)
        if facts["data"] and dataset_hash(Path(facts["data"])) != facts["data_hash"]:
            state += "; its dataset has changed since it was trained"
    return f"{len(runs)}; the last is {last.name}, {state}"
