"""The stage `evaluate` over several runs: one after the other, so that torch loads once.

As the queue of trainings, it keeps no state of its own: what is evaluated is read off the run
folders. So the same command continues where it was stopped, and one that is all done says so at
once, before torch is imported.
"""

import contextlib
import dataclasses
import errno
import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.failures import free_memory, torch_reason
from models.training.summary import joined_notes
from pipeline.errors import UserError
from pipeline.labels import is_rare
from pipeline.options import split_several
from pipeline.paths import from_here
from pipeline.progress import Cell, Progress, Result, Table
from pipeline.provenance import dataset_hash
from pipeline.records import read_json, write_table
from pipeline.runs import ALL_RUNS, ELSEWHERE, MODEL_FILE, Run, find_run, in_two_lines, runs_of_fold
from pipeline.stages.evaluation import Evaluate

EVALUATIONS = "evaluations.csv"  # in the folder of all runs: what the last command did, and why not
DONE, BEFORE, FAILED = "done", "done before", "failed"
COLUMNS = ("run", "state", "auc", "auc_low", "auc_high", "sensitivity", "specificity", "images",
           "patients", "seconds", "reason", "traceback")  # fmt: skip
SHOWN = 40  # runs on the terminal
SHORT = "name one run, or give a machine with more memory"
# What happens to the files of one run; a full disk would meet every run.
LOST = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.EACCES, errno.EPERM}
Measure = Callable[[Run, Evaluate, Progress], Result]


@dataclass(frozen=True)
class Entry:
    """What became of the evaluation of a run."""

    run: Run
    state: str  # DONE, BEFORE or FAILED
    measured: Mapping[str, Any] = field(default_factory=dict)  # the facts of its evaluation
    notes: tuple[str, ...] = ()  # what to know before believing the figures
    seconds: float = 0.0  # how long it took
    reason: str = ""  # why it failed
    trace: str = ""  # Python's traceback, where it was no person's mistake

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        own = {"run": str(self.run.folder), "model": self.run.model}
        state = {"state": self.state, "reason": self.reason, "seconds": self.seconds}
        return own | dict(self.measured) | state

    def test(self, measure: str, part: str = "value") -> float | None:
        """Return a measure on the test images; None where there is none."""
        if not self.measured:
            return None
        found: float | None = self.measured["test"]["metrics"][measure][part]
        return found

    @property
    def rare(self) -> bool:
        """Whether few test images are positive: then PR AUC leads."""
        test = self.measured["test"] if self.measured else {"malignant": 0, "images": 0}
        return is_rare(test["malignant"], test["images"])


def evaluate_each(options: Evaluate, progress: Progress) -> Result:
    """Measure what the options name: one run, several, or all that are not evaluated yet.

    Of several names, a run that was evaluated in the same way is not evaluated again. One that
    cannot be evaluated does not stop the others.

    Returns:
        Of one run its own result; of several a table, with the failures set aside.

    Raises:
        UserError: A name is of no run, or none could be evaluated.
    """
    names = split_several(options.run)
    if options.predictions is not None or (len(names) == 1 and ALL_RUNS not in names):
        with progress.waiting("Loading PyTorch ..."):
            from models.evaluation.stage import evaluate

        return evaluate(options, progress)
    runs = _all_runs(options) if ALL_RUNS in names else _named_runs(names, options)
    entries = _evaluate_all(runs, options, ALL_RUNS in names, progress)
    if all(entry.state == FAILED for entry in entries):
        raise _every_failure(entries, options.runs)
    return _result(entries, options)


def _all_runs(options: Evaluate) -> list[Run]:
    """Return the runs that can be evaluated: not those whose predictions were made elsewhere."""
    runs = [run for run in runs_of_fold(options.runs, options.fold) if not _is_external(run)]
    if not runs:
        of_fold = f" of fold {options.fold}" if options.fold else ""
        flag = f" --fold {options.fold}" if options.fold else ""
        problem = f"{options.runs}: holds no finished run{of_fold}"
        raise UserError(problem, f"run: python main.py train{flag}")
    return runs


def _is_external(run: Run) -> bool:
    with contextlib.suppress(UserError):  # one that is damaged fails in its turn, with the reason
        return bool(read_json(run.folder / MODEL_FILE)["strategy"] == ELSEWHERE)
    return False


def _named_runs(names: Sequence[str], options: Evaluate) -> list[Run]:
    found = (find_run(options.runs, name, options.fold) for name in names)
    return list({run.folder.resolve(): run for run in found}.values())


def _evaluate_all(
    runs: Sequence[Run], options: Evaluate, every: bool, progress: Progress
) -> list[Entry]:
    data_hash = dataset_hash(options.data) if options.data else ""
    before = [_before(run, options, data_hash, every) for run in runs]
    left = sum(entry is None for entry in before)
    if left:
        progress.say(_opening(len(runs), left))
    entries: list[Entry] = []
    measure = _load(progress) if left else None
    number = 0
    try:
        for run, known in zip(runs, before, strict=True):
            if known or not measure:
                entries += [known] if known else []
                continue
            number += 1
            progress.heading(f"{number}/{left}  {run.name}")
            entries.append(_attempt(measure, run, options, progress))
            _write(options.runs, entries)
        _write(options.runs, entries)
    except KeyboardInterrupt:  # main.py names the command that continues
        progress.say(f"Stopped in run {number} of {left}; what is done is kept.")
        raise KeyboardInterrupt from None
    return entries


def _before(run: Run, options: Evaluate, data_hash: str, every: bool) -> Entry | None:
    """Return the evaluation that a run has; None where it has none that will do.

    Of all runs any will do, on the dataset that is given: a person may have chosen another
    operating point for some. Of runs that are named it has to be the one that is asked for.
    """
    try:
        known = run.metrics()
        # Of all runs only a dataset that is given counts.
        own = "" if every else read_json(run.folder / MODEL_FILE)["data_hash"]
    except UserError:  # not evaluated, or what it holds is damaged
        return None
    if known["data_hash"] != (data_hash or own or known["data_hash"]):
        return None
    if not every and known.get("options") != options.way:
        return None
    facts: dict[str, Any] = {key: known[key] for key in ("fold", "folds") if key in known}
    facts |= {"threshold": known["operating_point"]["threshold"], **known["splits"]}
    return Entry(run, BEFORE, facts | {"units": known["units"]})


def _opening(total: int, left: int) -> str:
    if left == total:
        return f"{total} run{'s' * (total != 1)} to evaluate."
    return f"{total} runs: {total - left} evaluated before, {left} to evaluate."


def _load(progress: Progress) -> Measure:
    with progress.waiting("Loading PyTorch ..."):
        from models.evaluation.stage import evaluate_run
    gc.freeze()  # what is loaded stays, and every collection between runs would look through it
    return evaluate_run


def _attempt(measure: Measure, run: Run, options: Evaluate, progress: Progress) -> Entry:
    """Evaluate one run; what stops this one alone becomes its reason."""
    started = time.monotonic()
    trace = ""
    try:
        result = measure(run, dataclasses.replace(options, run=run.name), progress)
    except UserError as error:
        reason = str(error)
    except MemoryError:
        reason = f"not enough memory; {SHORT}"
    except OSError as error:
        if error.errno not in LOST:
            raise
        reason = f"{from_here(Path(str(error.filename or run.folder)))}: {error.strerror}"
    except RuntimeError as error:  # what torch raises
        if isinstance(error, NotImplementedError | RecursionError):
            raise
        reason, trace = torch_reason(error, SHORT), traceback.format_exc()
    else:
        progress.say(result.headline)
        notes = list(result.notes)
        if result.set_aside:
            notes.append(f"{result.set_aside:,} images could not be read; {result.listed_in} of "
                         "the run lists them")  # fmt: skip
        free_memory()
        seconds = round(time.monotonic() - started, 1)
        return Entry(run, DONE, dict(result.facts), tuple(notes), seconds)
    progress.say(f"Failed: {reason}")
    free_memory()
    seconds = round(time.monotonic() - started, 1)
    return Entry(run, FAILED, seconds=seconds, reason=reason, trace=trace)


def _write(runs: Path, entries: Sequence[Entry]) -> None:
    """Write the list of evaluations, so far as it has come."""
    lines = []
    for entry in entries:
        test = entry.measured.get("test", {})
        figures = (entry.test("auc"), entry.test("auc", "low"), entry.test("auc", "high"),
                   entry.test("sensitivity"), entry.test("specificity"),
                   test.get("images"), test.get("patients"))  # fmt: skip
        line = (entry.run.name, entry.state, *figures, entry.seconds, entry.reason, entry.trace)
        lines.append(["" if cell is None else cell for cell in line])
    write_table(runs / EVALUATIONS, COLUMNS, lines)


def _every_failure(entries: Sequence[Entry], runs: Path) -> UserError:
    reasons = list(dict.fromkeys(entry.reason for entry in entries))
    problem = f"every one of the {len(entries)} evaluations failed"
    if len(entries) == 1:
        return UserError(f"{entries[0].run.name}: cannot be evaluated: {reasons[0]}")
    if len(reasons) == 1:
        return UserError(f"{problem}: {reasons[0]}")
    return UserError(problem, f"{runs / EVALUATIONS} lists each with its reason")


def _result(entries: Sequence[Entry], options: Evaluate) -> Result:
    counts = {
        state: sum(entry.state == state for entry in entries) for state in (DONE, BEFORE, FAILED)
    }
    measured = [entry for entry in entries if entry.measured]
    failures = [(entry.run.name, entry.reason) for entry in entries if entry.state == FAILED]
    noted = [(entry.run.name, text) for entry in entries for text in entry.notes]
    return Result(
        folder=options.runs,
        headline=_headline(counts, len(entries)),
        facts={
            "evaluations": [entry.facts for entry in entries],
            **{state.replace(" ", "_"): count for state, count in counts.items()},
        },
        tables=(_table(entries),),
        notes=tuple(joined_notes(failures, noted, counts[DONE])),
        set_aside=counts[FAILED],
        listed_in=EVALUATIONS,
        next_stage="compare" if len(measured) > 1 else "report",
        next_options={"runs": options.runs},
    )


def _headline(counts: Mapping[str, int], total: int) -> str:
    runs = "1 run" if total == 1 else f"{total} runs"
    if counts[BEFORE] == total:
        every = "The run is" if total == 1 else f"All {total} runs are"
        return f"{every} evaluated; nothing was left to do"
    words = {DONE: "evaluated", BEFORE: "evaluated before", FAILED: "failed"}
    parts = [f"{count} {words[state]}" for state, count in counts.items() if count]
    return f"{runs}: {', '.join(parts)}"


def _table(entries: Sequence[Entry]) -> Table:
    """Return a row a run; its state only where they differ, its stamp only where models repeat."""
    models = [entry.run.model for entry in entries]
    states = len({entry.state for entry in entries}) > 1
    leading, area = ("pr_auc", "PR AUC") if any(one.rare for one in entries) else ("auc", "AUC")

    def row(entry: Entry) -> tuple[Cell, ...]:
        model = entry.run.model
        label = model if models.count(model) == 1 else entry.run.name
        name = in_two_lines(label, entry.run.fold)
        low, high = entry.test(leading, "low"), entry.test(leading, "high")
        interval = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        figures = (entry.test(name) for name in ("sensitivity", "specificity"))
        return (name, *((entry.state,) if states else ()), entry.test(leading), interval, *figures)

    columns = ("Run", *(("State",) if states else ()), area, "95 % interval", "Sens.", "Spec.")
    title = "Test images"
    if len(entries) > SHOWN:
        title += f": {SHOWN} of {len(entries)} runs, all are in {EVALUATIONS}"
    return Table(title, columns, tuple(map(row, entries[:SHOWN])))
