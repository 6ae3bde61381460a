"""The runs that the page can score with."""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.records import read_json
from pipeline.runs import (
    ELSEWHERE,
    LATEST,
    METRICS,
    MODEL_FILE,
    Run,
    evaluated_choices,
    find_run,
    is_detector,
    list_runs,
)


def usable_runs(runs: Path) -> list[Run]:
    """Return the evaluated runs that have a network, newest first."""
    found = [Run(runs / name) for name in evaluated_choices({"runs": runs})]
    return [run for run in found if _has_network(run)]


def offered_runs(runs: Path, first: Path) -> list[Run]:
    """Return the runs that a person can choose from, the one that is offered first in front.

    Args:
        runs: The folder that holds all runs.
        first: Folder of a run, which may lie elsewhere, and may be gone by now.

    Raises:
        UserError: There is none.
    """
    known = usable_runs(runs)
    if (first / METRICS).is_file() and _has_network(Run(first)):
        others = [run for run in known if run.folder.resolve() != first.resolve()]
        return [Run(first), *others]
    return known or [usable_run(runs, LATEST)]


def usable_run(runs: Path, name: str) -> Run:
    """Find an evaluated run by its name as people give it; the newest for "latest".

    Raises:
        UserError: There is none, it has not been evaluated, or it was not made here.
    """
    if name == LATEST:
        if known := usable_runs(runs):
            return known[0]
        trained = bool(list_runs(runs))
        state, needed = ("evaluated", "evaluate") if trained else ("finished", "train")
        raise UserError(f"{runs}: holds no {state} run", f"run: python main.py {needed}")
    run = find_run(runs, name)
    run.metrics()
    if not _has_network(run):
        raise UserError(f"{name}: was not made here, so there is no network", "choose another")
    return run


def second_opinion(runs: Path, run: Run) -> Run | None:
    """Return the newest evaluated anomaly detector on the dataset of a classifier, or None.

    Args:
        runs: The folder that holds all runs.
        run: One that was chosen.

    Raises:
        UserError: Its model.json is damaged.
    """
    facts = read_json(run.folder / MODEL_FILE)
    if is_detector(facts):
        return None
    for other in usable_runs(runs):
        found = read_json(other.folder / MODEL_FILE)
        if is_detector(found) and found["data_hash"] == facts["data_hash"]:
            return other
    return None


def _has_network(run: Run) -> bool:
    try:
        return bool(read_json(run.folder / MODEL_FILE).get("strategy") != ELSEWHERE)
    except UserError:
        return False
