"""The result of a queue of trainings: its entries, their CSV, table, means and notes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.progress import Cell, Result, Table
from pipeline.records import write_table
from pipeline.runs import ALL_RUNS, Run
from pipeline.stages.training import Train

QUEUE = "queue.csv"  # in the folder of all runs: what the last queue did, and why not
DONE, BEFORE, FAILED = "done", "done before", "failed"
COLUMNS = (
    "model", "fold", "seed", "state", "run", "best_val_auc", "epochs", "best_epoch", "seconds",
    "reason", "traceback",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training of a queue."""

    number: int  # its place, from 1
    options: Train  # of a single training
    of_seeds: bool  # whether the queue has more than one seed, so that the name has to say which

    @property
    def name(self) -> str:
        """Its name as people read it: "DenseNet121_PFT, fold 2, seed 42"."""
        options = self.options
        parts = [options.model]
        parts += [f"fold {options.fold}"] if options.fold else []
        parts += [f"seed {options.seed}"] if self.of_seeds else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Entry:
    """What became of a training."""

    job: Job  # which
    state: str  # DONE, BEFORE or FAILED
    run: Run | None = None  # its run; None where it failed
    auc: float | None = None  # the best validation AUC; None where there is none
    epochs: int | None = None  # that were trained; 0 for a linear probe, None where it failed
    best_epoch: int | None = None  # the epoch of the weights that were kept, likewise
    seconds: float = 0.0  # how long it took
    reason: str = ""  # why it failed
    trace: str = ""  # Python's traceback, where it was no person's mistake
    notes: tuple[str, ...] = ()  # what to know before believing the figures

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        options = self.job.options
        return {
            "model": options.model,
            "fold": options.fold,
            "seed": options.seed,
            "state": self.state,
            "run": str(self.run.folder) if self.run else None,
            "best_val_auc": self.auc,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "reason": self.reason,
        }


def write_queue(path: Path, entries: Sequence[Entry]) -> None:
    """Write the list of a queue's trainings, so far as it has come."""
    lines = [entry.facts | {"traceback": entry.trace} for entry in entries]
    rows = [["" if line[name] is None else line[name] for name in COLUMNS] for line in lines]
    write_table(path, COLUMNS, rows)


def every_failure(entries: Sequence[Entry], runs: Path) -> UserError:
    """Return the refusal of a queue in which nothing was trained."""
    reasons = list(dict.fromkeys(entry.reason for entry in entries))
    every = "the training" if len(entries) == 1 else f"every one of the {len(entries)} trainings"
    problem = f"{every} failed"
    if len(reasons) == 1:
        return UserError(f"{problem}: {reasons[0]}")
    return UserError(problem, f"{runs / QUEUE} lists each with its reason")


def queue_result(entries: Sequence[Entry], runs: Path) -> Result:
    """Return the result of a queue in which something was trained, now or before."""
    counts = {
        state: sum(entry.state == state for entry in entries) for state in (DONE, BEFORE, FAILED)
    }
    finished = [entry for entry in entries if entry.run]
    best = max(finished, key=lambda entry: -1.0 if entry.auc is None else entry.auc)
    run = ALL_RUNS if len(finished) > 1 or not best.run else best.run.name
    models = _by_model(entries)
    repeated = len(entries) > len(models)
    return Result(
        folder=runs,
        headline=_headline(counts, len(entries), best),
        facts={
            "trainings": [entry.facts for entry in entries],
            **{state.replace(" ", "_"): count for state, count in counts.items()},
            "models": models,
        },
        tables=(_table(entries), _means(models)) if repeated else (_table(entries),),
        notes=tuple(_notes(entries)),
        set_aside=counts[FAILED],
        listed_in=QUEUE,
        next_stage="evaluate",
        next_options={"run": run, "runs": runs},
    )


def _headline(counts: Mapping[str, int], total: int, best: Entry) -> str:
    if counts[BEFORE] == total:
        all_of = f"All {total} trainings were" if total > 1 else "The training was"
        text = f"{all_of} done before; nothing was left to train"
    else:
        parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        text = f"{total} training{'s' if total > 1 else ''}: {parts}"
    if best.auc is None:
        return text
    return f"{text}. Best validation AUC {best.auc:.3f}: {best.job.name}"


def _by_model(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Return for each model how many trainings it has and how their AUC is spread."""
    models: dict[str, dict[str, Any]] = {}
    for model in dict.fromkeys(entry.job.options.model for entry in entries):
        own = [entry for entry in entries if entry.job.options.model == model]
        areas = [entry.auc for entry in own if entry.auc is not None]
        models[model] = {
            "trainings": len(own),
            "scored": len(areas),
            "mean_val_auc": statistics.fmean(areas) if areas else None,
            "sd_val_auc": statistics.stdev(areas) if len(areas) > 1 else None,
            "lowest_val_auc": min(areas, default=None),
            "highest_val_auc": max(areas, default=None),
        }
    return models


def _means(models: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            name,
            f"{own['scored']} of {own['trainings']}",
            *(own[f"{which}_val_auc"] for which in ("mean", "sd", "lowest", "highest")),
        )
        for name, own in models.items()
    )
    columns = ("Model", "Trainings", "Mean", "SD", "Lowest", "Highest")
    return Table("Validation AUC by model", columns, rows)


def _table(entries: Sequence[Entry]) -> Table:
    """Return one row a training; fold and seed only where they tell rows apart."""
    jobs = [entry.job for entry in entries]
    by_fold = len({job.options.fold for job in jobs}) > 1
    by_seed = len({job.options.seed for job in jobs}) > 1

    def row(entry: Entry) -> tuple[Cell, ...]:
        options = entry.job.options
        fold = (str(options.fold),) if by_fold else ()
        seed = (str(options.seed),) if by_seed else ()
        figures = (entry.auc, entry.epochs, _clock(entry.seconds))
        return (options.model, *fold, *seed, entry.state, *figures)

    apart = (*(("Fold",) if by_fold else ()), *(("Seed",) if by_seed else ()))
    columns = ("Model", *apart, "State", "Val AUC", "Epochs", "Time")
    return Table("Trainings", columns, tuple(map(row, entries)))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _notes(entries: Sequence[Entry]) -> list[str]:
    failures = [(entry.job.name, entry.reason) for entry in entries if entry.state == FAILED]
    noted = [(one.job.name, text) for one in entries if one.state != FAILED for text in one.notes]
    return joined_notes(failures, noted, sum(entry.state == DONE for entry in entries))


def joined_notes(
    failures: Sequence[tuple[str, str]], noted: Sequence[tuple[str, str]], done: int
) -> list[str]:
    """Return the reasons of failures, then what was noted, each text once.

    Args:
        failures: Name and reason of each job that failed.
        noted: Name and text of each note of the others.
        done: How many jobs were done: a note of all of them needs no names.
    """
    owners: dict[str, list[str]] = {}
    for name, text in [*((name, f"failed: {reason}") for name, reason in failures), *noted]:
        owners.setdefault(text, []).append(name)
    notes = []
    for text, names in owners.items():
        general = len(names) == done and not text.startswith("failed: ")
        who = ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"
        notes.append(text if general else f"{who}: {text}")
    return notes
