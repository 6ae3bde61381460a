"""The result of a search: its table of trials, best.json, the result that a person sees."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.training.best_trial import BEST, Tuned
from models.tuning.search_space import Space, short
from pipeline.errors import UserError
from pipeline.progress import Cell, Result, Table
from pipeline.records import write_json, write_table

TRIALS = "trials.csv"
SHOWN = 5  # of the best trials
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Entry:
    """What became of a trial."""

    trial: int  # its number in the search, from 0
    number: int  # its number in the study, where a trial that was tried again has two
    state: str  # COMPLETE, PRUNED or FAILED
    # Its validation AUC; of one that was pruned the last; None where there is none.
    area: float | None
    params: Mapping[str, Any]  # its point of the search space
    steps: int  # epochs that it was trained for; 0 for a linear probe
    seconds: float  # how long it took
    own: bool  # whether it has the model's own values
    reason: str = ""  # why it failed

    def cells(self, space: Space, best: float | None) -> dict[str, Cell]:
        """Return its row of the running table."""
        return {
            "trial": self.trial, "val_auc": self.area, "best": best,
            "ended": "yes" if self.state == COMPLETE else self.state,
            "values": "  " + short(space, self.params),
        }  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A search: what it is for and its trials that have come to their end."""

    name: str  # of the study
    facts: Mapping[str, Any]  # what it is a search for
    space: Space  # what was searched
    entries: Sequence[Entry]  # its trials, in order
    common: Mapping[str, Any]  # what all trials had in common and training takes over

    @property
    def complete(self) -> list[Entry]:
        """The complete trials, best first; of equal ones the first."""
        found = [one for one in self.entries if one.state == COMPLETE and one.area is not None]
        return sorted(found, key=lambda one: -(one.area or 0.0))

    @property
    def own(self) -> Entry | None:
        """The best trial with the model's own values."""
        return next((one for one in self.complete if one.own), None)

    def count(self, state: str) -> int:
        """Return how many trials ended in a state."""
        return sum(one.state == state for one in self.entries)

    @property
    def counts(self) -> dict[str, Any]:
        """The search in figures."""
        best, own = self.complete[0], self.own
        return {
            "trials": len(self.entries),
            **{state: self.count(state) for state in (COMPLETE, PRUNED, FAILED)},
            "best_trial": best.trial,
            "best_val_auc": best.area,
            "defaults_val_auc": own.area if own else None,
        }

    def tuned(self) -> Tuned:
        """Return the best trial as training takes it over."""
        best = self.complete[0]
        return Tuned(
            self.name, best.trial, float(best.area or 0.0), dict(best.params) | dict(self.common)
        )


def check_complete(search: Search, folder: Path) -> None:
    """Refuse a search in which no trial is complete.

    Raises:
        UserError: Every trial failed, or the time was up before one ended.
    """
    if search.complete:
        return
    reasons = list(dict.fromkeys(one.reason for one in search.entries if one.reason))
    if not reasons:
        raise UserError(f"{search.name}: no trial finished", "give more --minutes")
    problem = f"every one of the {len(search.entries)} trials failed"
    if len(reasons) == 1:
        raise UserError(f"{problem}: {reasons[0]}")
    raise UserError(problem, f"{folder / TRIALS} lists each with its reason")


def write_trials(folder: Path, search: Search) -> bool:
    """Write trials.csv: one row for each trial that has come to its end.

    Returns:
        Whether it says anything new.
    """
    before = (folder / TRIALS).read_bytes() if (folder / TRIALS).is_file() else b""
    names = [one.name for one in search.space]
    columns = (
        "trial",
        "state",
        "val_auc",
        "epochs",
        "seconds",
        "own_values",
        *names,
        "reason",
        "number_in_study",
    )
    rows = [
        (
            one.trial, one.state, "" if one.area is None else one.area, one.steps,
            round(one.seconds, 1), "yes" if one.own else "no",
            *(one.params.get(name, "") for name in names), one.reason, one.number,
        )
        for one in search.entries
    ]  # fmt: skip
    write_table(folder / TRIALS, columns, rows)
    return (folder / TRIALS).read_bytes() != before


def write_best(folder: Path, search: Search) -> None:
    """Write best.json, which training takes its hyper-parameters from."""
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(
        folder / BEST,
        dict(search.facts) | search.tuned().facts | search.counts | {"finished": finished},
    )


def search_result(
    search: Search, folder: Path, notes: Sequence[str], next_options: Mapping[str, Any]
) -> Result:
    """Return what a search shows a person."""
    counts = search.counts
    text = f"{search.facts['model']}: best validation AUC {counts['best_val_auc']:.3f}"
    text += f" in trial {counts['best_trial']} of {counts['trials']}"
    if counts["defaults_val_auc"] is not None:
        text += f"; its own values: {counts['defaults_val_auc']:.3f}"
    return Result(
        folder=folder,
        headline=text,
        facts={"study": search.name, **counts, "params": dict(search.tuned().params)},
        tables=(_best_trials(search), _best_point(search)),
        notes=tuple(notes),
        next_stage="train",
        next_options=next_options,
    )


def _best_trials(search: Search) -> Table:
    rows = tuple(
        (
            str(one.trial), one.area, *((one.steps,) if one.steps else ()),
            short(search.space, one.params) + (" (own)" if one.own else ""),
        )
        for one in search.complete[:SHOWN]
    )  # fmt: skip
    learns = any(one.steps for one in search.complete)
    epochs = ("Epochs",) if learns else ()
    return Table("The best trials", ("Trial", "Val AUC", *epochs, "Values"), rows)


def _best_point(search: Search) -> Table:
    best, own = search.complete[0], search.own
    rows = tuple(
        (
            one.name,
            _text(best.params.get(one.name)),
            _text(own.params.get(one.name) if own else None),
        )
        for one in search.space
    )
    return Table(f"Trial {best.trial}", ("Hyper-parameter", "Found", "The model's own"), rows)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
