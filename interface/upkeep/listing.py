"""The runs that there are, as a table: state, size, age and test AUC of each."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.holding import holder_of
from pipeline.paths import from_here
from pipeline.progress import Table
from pipeline.records import RECORD, UNFINISHED, read_json
from pipeline.resources.sizes import age_text, bytes_of, bytes_text
from pipeline.runs import MODEL_FILE, Run, list_all, written

AT_WORK, STOPPED, DAMAGED = "being trained", "stopped", "damaged"
FINISHED, EVALUATED = "not evaluated", "evaluated"
NO_DATA = "no dataset"  # of predictions that were made elsewhere


@dataclass(frozen=True)
class ListedRun:
    """What a list of runs says of one."""

    run: Run
    state: str  # AT_WORK, STOPPED, DAMAGED, FINISHED or EVALUATED
    data: str  # the dataset that it was trained on
    size: int  # bytes on the disk
    written: float  # when it was finished or begun, in seconds since 1970
    test_auc: float | None  # None where it is not evaluated, or the test images show one class

    @property
    def result(self) -> str:
        """Its test AUC, or why it has none."""
        if self.state != EVALUATED:
            return self.state
        return "one class only" if self.test_auc is None else f"{self.test_auc:.3f}"

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "run": self.run.name, "model": self.run.model, "state": self.state, "data": self.data,
            "bytes": self.size, "written": round(self.written), "test_auc": self.test_auc,
        }  # fmt: skip


def read_runs(runs: Path) -> list[ListedRun]:
    """Return all runs of a folder, the newest last."""
    return [_listed(run) for run in list_all(runs)]


def _listed(run: Run) -> ListedRun:
    state, area = AT_WORK, None
    data = ""
    try:
        begun = read_json(run.folder / (RECORD if run.finished else UNFINISHED))
        data = str(begun["options"].get("data") or "")
        if run.finished:
            data = str(read_json(run.folder / MODEL_FILE)["data"])
        if not holder_of(run.folder):
            state = FINISHED if run.finished else STOPPED
        if run.evaluated:
            state, area = EVALUATED, _test_auc(run.metrics())
    except UserError:
        state = DAMAGED
    place = str(from_here(Path(data).absolute())) if data else NO_DATA
    return ListedRun(run, state, place, bytes_of(run.folder), written(run), area)


def _test_auc(metrics: Mapping[str, Any]) -> float | None:
    with contextlib.suppress(KeyError, TypeError):
        value: float | None = metrics["splits"]["test"]["metrics"]["auc"]["value"]
        return value
    return None


def tables_of(listed: Sequence[ListedRun]) -> tuple[Table, ...]:
    """Return a table for each dataset, that of the newest run last."""
    groups: dict[str, list[ListedRun]] = {}
    for one in listed:
        groups[one.data] = [*groups.pop(one.data, []), one]
    return tuple(_table(data, group) for data, group in groups.items())


def _table(data: str, group: Iterable[ListedRun]) -> Table:
    now = time.time()
    rows = tuple(
        (one.run.name, one.result, f"{bytes_text(one.size):>7}",
         f"{age_text(now - one.written):>6}")
        for one in group
    )  # fmt: skip
    title = data if data == NO_DATA else f"On {data}"
    return Table(title, ("Run", "Test AUC", "   Size", "   Age"), rows)


def headline(listed: Sequence[ListedRun], runs: Path) -> str:
    """Return in one sentence how many runs there are, and what is left to do with them."""
    if not listed:
        return f"No run in {runs}; to train one: python main.py train"
    count, size = f"{len(listed)} run{'s' * (len(listed) != 1)}", sum(one.size for one in listed)
    states = Counter(one.state for one in listed)
    left = [f"{states[one]} {one}" for one in (AT_WORK, STOPPED, FINISHED, DAMAGED) if states[one]]
    return "; ".join([f"{count} in {runs}, {bytes_text(size)}", *left])
