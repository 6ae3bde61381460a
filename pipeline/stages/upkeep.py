"""The questionnaire's upkeep: the runs that there are, and what is kept to save time."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.options import Answers, existing_folder, named, option
from pipeline.runs import Run, list_all
from pipeline.stages.shared import RUNS

LIST, RENAME, DELETE = "list", "rename", "delete"
NOTHING, EVERYTHING = "nothing", "all"
KINDS = {  # what `clean` can remove
    "image-cache": "decoded images of trainings",
    "features": "outputs of frozen layers",
    "working": "images before blur and contrast",
    "headers": "index of DICOM headers",
    "trials": "networks of stopped trials",
    "reports": "reports that were not finished",
    "leftovers": "what killed processes were writing",
}


def _chooses(answers: Answers) -> bool:
    return bool(answers["action"] != LIST)


def _state(run: Run) -> str:
    if not run.finished:
        return "stopped"
    return "evaluated" if run.evaluated else "not evaluated yet"


def every_run(answers: Answers) -> dict[str, str]:
    """Return all runs to choose from, stopped ones too, newest first."""
    return {run.name: _state(run) for run in reversed(list_all(Path(answers.get("runs", "runs"))))}


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs, rename one or delete some."""

    action: str = option(
        LIST,
        "What to do with runs",
        choices={LIST: "show all", RENAME: "give one a name", DELETE: "delete one or several"},
        remember=False,
    )
    run: str | None = option(
        None,
        "Which run",
        choices=every_run,
        other="names or folders of runs",
        several=True,
        when=_chooses,
        remember=False,
    )
    name: str | None = option(
        None,
        "New name (in place of time and seed)",
        when=lambda answers: answers["action"] == RENAME,
        remember=False,
    )
    runs: Path = RUNS()


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Show caches and working files with their sizes, and remove those that are chosen."""

    what: str = option(
        NOTHING,
        "What to remove (results are never touched)",
        choices={NOTHING: "only show"} | KINDS | {EVERYTHING: "all of these"},
        several=True,
        counts=named("interface.upkeep.clean:live_sizes"),
        remember=False,
    )
    folder: Path = option(
        Path(), "Folder of the work", check=existing_folder, advanced=True, remember=False
    )
