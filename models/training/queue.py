"""The stage `train` over several models, folds and seeds: one training after the other.

A queue keeps no state of its own: what is done and what was stopped is read off the run folders.
So the same command continues where it was stopped, and one that is all done says so at once, before
torch is imported.
"""

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from models.failures import free_memory, torch_reason
from models.pretrained import refuse_unobtainable
from models.registry import (
    IMAGENET,
    MODELS,
    NO_WEIGHTS,
    meaningless_to,
    named_models,
    takes_weights,
)
from models.training.best_trial import Tuned, tuned_for
from models.training.budget import tell
from models.training.summary import (
    BEFORE,
    DONE,
    FAILED,
    QUEUE,
    Entry,
    Job,
    every_failure,
    queue_result,
    write_queue,
)
from pipeline.errors import UserError
from pipeline.folds import read_folds, read_rows
from pipeline.options import defaults
from pipeline.processes import RankFailure, world_here
from pipeline.progress import Progress, Result
from pipeline.provenance import dataset_hash, read_fresh
from pipeline.records import RECORD, UNFINISHED, file_digest, plain_options, read_json
from pipeline.runs import MODEL_FILE, NEW_RUN, Run, list_runs, list_unfinished
from pipeline.stages.training import Train

T = TypeVar("T")
SMALLER = "give a smaller --batch-size"
# To what a training ends with; what a search found counts by itself.
NO_MATTER = {"runs", "workers", "resume", "seeds", "hyperparameters", "missing"}
TOLD_APART = {"data", "weights"}  # by their content, whatever they are called
PREPROCESS_PLACES = {"data", "out", "workers"}  # of the preprocessing, likewise no matter


def train_each(options: Train, progress: Progress) -> Result:
    """Train what the options name: one model, or each model, fold and seed in turn.

    In a queue, and where only what is missing is wanted, a training that is done is not done again,
    and one that was stopped continues. One that fails does not stop the rest.

    Returns:
        Of one training its own result; of a queue its table, with the failures set aside.

    Raises:
        UserError: The data cannot be used, or every training failed.
    """
    if options.resume != NEW_RUN:
        return _train(options, progress)
    jobs = jobs_of(options)
    if len(jobs) == 1 and not options.missing:
        _refuse_missing_weights(jobs)
        tell([jobs[0].options], progress)
        return _train(jobs[0].options, progress)
    entries = _train_all(jobs, options, progress)
    if all(entry.state == FAILED for entry in entries):
        raise every_failure(entries, options.runs)
    return queue_result(entries, options.runs)


def _train_all(jobs: Sequence[Job], options: Train, progress: Progress) -> list[Entry]:
    runs = _KnownRuns(options)
    found = ([find(job.options) for job in jobs] for find in (runs.done, runs.stopped))
    done, stopped = _broadcast(tuple(found))
    _refuse_missing_weights([job for job, run in zip(jobs, done, strict=True) if not run])
    progress.say(_opening(done, stopped))
    tell([job.options for job, run in zip(jobs, done, strict=True) if run is None], progress)
    entries: list[Entry] = []

    def write() -> None:
        if world_here().is_rank_zero:
            write_queue(options.runs / QUEUE, entries)

    for job, finished, begun in zip(jobs, done, stopped, strict=True):
        if finished:
            entries.append(_entry_of(job, finished))
            continue
        progress.heading(f"{job.number}/{len(jobs)}  {job.name}")
        with _stoppable(job, len(jobs), progress):
            entries.append(_broadcast(_attempt(job, begun, progress)))
        write()
    write()
    return entries


def _refuse_missing_weights(jobs: Sequence[Job]) -> None:
    """Refuse a queue whose weights cannot be had at once: each training would fail in its turn.

    Raises:
        UserError: It is so; under torchrun as rank zero sees it.
    """
    problem = None
    try:
        for weights in {job.options.weights for job in jobs}:
            refuse_unobtainable(",".join(job.options.model for job in jobs), weights)
    except UserError as error:
        problem = error
    if problem := _broadcast(problem):
        raise problem


def _broadcast(value: T) -> T:
    """Return what rank zero found: the others may look when it has begun already."""
    if not world_here().distributed:
        return value
    from models.distributed import broadcast  # imports torch

    return broadcast(value)


def jobs_of(options: Train) -> list[Job]:
    """Return the trainings that the options name: models, in each its folds, in each its seeds.

    Raises:
        UserError: A model that there is not, or no folds where all are wanted.
    """
    folds = [options.fold]
    if options.fold == "all":
        folds = list(range(1, max(read_folds(options.data).values()) + 1))
    seeds = range(options.seed, options.seed + options.seeds)
    models = named_models(options.model)
    each = [
        dataclasses.replace(
            _meant_for(model, options) if len(models) > 1 else options,
            model=model, fold=fold, seed=seed, seeds=1, missing=False,
        )
        for model in models
        for fold in folds
        for seed in seeds
    ]  # fmt: skip
    return [Job(number, one, len(seeds) > 1) for number, one in enumerate(each, start=1)]


def _meant_for(model: str, options: Train) -> Train:
    """Return options without those that mean nothing to one of several models."""
    left = defaults(Train)
    return dataclasses.replace(
        options, **{name: left[name] for name in meaningless_to(MODELS[model])}
    )


def _train(options: Train, progress: Progress) -> Result:
    with progress.waiting("Loading PyTorch ..."):
        from models.training.stage import train

    return train(options, progress)


def _opening(done: Sequence[Run | None], stopped: Sequence[Run | None]) -> str:
    before = sum(run is not None for run in done)
    going_on = sum(b is not None and d is None for d, b in zip(done, stopped, strict=True))
    parts = [f"{len(done)} training{'s' * (len(done) != 1)}"]
    if before:
        parts.append("all done before" if before == len(done) else f"{before} done before")
    if going_on:
        parts.append(f"{going_on} stopped before, to continue")
    return "; ".join(parts) + "."


@contextlib.contextmanager
def _stoppable(job: Job, total: int, progress: Progress) -> Iterator[None]:
    """Say where the queue was stopped; main.py names the command that continues it."""
    try:
        yield
    except KeyboardInterrupt:
        progress.say(f"Stopped in training {job.number} of {total}; what is done is kept.")
        raise KeyboardInterrupt from None


def _attempt(job: Job, begun: Run | None, progress: Progress) -> Entry:
    """Run one training; what stops this one alone becomes its reason.

    Of several processes all meet the same mistake, or else none of them can continue.
    """
    started = time.monotonic()
    options = dataclasses.replace(job.options, resume=begun.name) if begun else job.options
    trace = ""
    try:
        result = _train(options, progress)
    except RankFailure:
        raise
    except UserError as error:
        reason = str(error)
    except MemoryError:
        if world_here().distributed:
            raise
        reason = f"not enough memory; {SMALLER}"
    except RuntimeError as error:  # what torch raises, from a full GPU to shapes that do not fit
        if world_here().distributed or isinstance(error, NotImplementedError | RecursionError):
            raise
        reason, trace = torch_reason(error, SMALLER), traceback.format_exc()
    else:
        progress.say(result.headline)
        entry = _entry_of(job, Run(Path(result.facts["run"])), DONE)
        notes = list(result.notes)
        if result.set_aside:
            notes.append(f"{result.set_aside:,} images could not be read; {result.listed_in} of "
                         "the run lists them")  # fmt: skip
        free_memory()
        return dataclasses.replace(entry, notes=tuple(notes))
    progress.say(f"Failed: {reason}")
    free_memory()
    seconds = time.monotonic() - started
    return Entry(job, FAILED, seconds=round(seconds, 1), reason=reason, trace=trace)


def _entry_of(job: Job, run: Run, state: str = BEFORE) -> Entry:
    record = run.record()
    counts = record["counts"]
    return Entry(
        job,
        state,
        run=run,
        auc=counts["best_val_auc"],
        epochs=counts["epochs"],
        best_epoch=counts["best_epoch"],
        seconds=record["seconds"],
    )


class _KnownRuns:
    """The runs that are there, by what they were trained on and how."""

    def __init__(self, options: Train) -> None:
        """Read them, and what the data are now.

        Raises:
            UserError: The data cannot be used.
        """
        self._data = options.data
        self._record = read_fresh(options.data, "preprocess", "organize")
        self._hash = dataset_hash(options.data)
        self._digests: dict[Path, str] = {}
        self._patients: dict[int, dict[str, set[str]]] = {}
        self._finished = [self._read(run, RECORD) for run in list_runs(options.runs)]
        self._begun = [self._read(run, UNFINISHED) for run in list_unfinished(options.runs)]

    def done(self, options: Train) -> Run | None:
        """Return the newest finished run of these options on these data."""
        return self._newest(self._finished, options)

    def stopped(self, options: Train) -> Run | None:
        """Return the newest stopped run of these options on these data."""
        return self._newest(self._begun, options)

    def _read(self, run: Run, record: str) -> tuple[Run, Mapping[str, Any], Mapping[str, Any]]:
        """Return a run with its identity and facts; one that is damaged is like none."""
        with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
            # An option that a run was older than had the value that is now its default.
            given = defaults(Train) | read_json(run.folder / record)["options"]
            facts = read_json(run.folder / MODEL_FILE)
            made = facts["data_hash"], facts["weights"], facts["weights_hash"]
            found = facts.get("tuning")  # runs from before there were searches do not say
            tuned = Tuned.of(found) if found else None
            identity = self._identity(given, *made, facts["preprocess"], tuned)
            return run, identity, facts["patients"]
        return run, {}, {}

    def _newest(
        self, known: Sequence[tuple[Run, Mapping[str, Any], Mapping[str, Any]]], options: Train
    ) -> Run | None:
        made = self._record["options"] if self._record["stage"] == "preprocess" else None
        tuned = tuned_for(options, self._hash)
        wanted = self._identity(
            plain_options(options), self._hash, *self._weights(options), made, tuned
        )
        patients = self._split(int(options.fold))
        same = [
            run
            for run, identity, seen in known
            # Folds may have been dealt anew; patients may lack whose images cannot be read.
            if identity == wanted and all(set(seen[name]) <= patients[name] for name in patients)
        ]
        return same[-1] if same else None

    def _weights(self, options: Train) -> tuple[str, str]:
        """Return what a training starts from as model.json has it: name or file, and digest."""
        weights = options.weights if takes_weights({"model": options.model}) else NO_WEIGHTS
        if weights in (NO_WEIGHTS, IMAGENET):
            return weights, ""
        file = Path(weights).expanduser().resolve()
        if file not in self._digests:
            self._digests[file] = file_digest(file) if file.is_file() else ""
        return str(file), self._digests[file]

    def _split(self, fold: int) -> Mapping[str, set[str]]:
        if fold not in self._patients:
            rows, _ = read_rows(self._data, self._record, fold)
            self._patients[fold] = {
                split: {row.patient_id for row in rows if row.split == split}
                for split in ("train", "val")
            }
        return self._patients[fold]

    @staticmethod
    def _identity(
        options: Mapping[str, Any],
        data_hash: str,
        weights: str,
        weights_hash: str,
        preprocess: Mapping[str, Any] | None,
        tuned: Tuned | None,
    ) -> dict[str, Any]:
        aside = NO_MATTER | TOLD_APART
        made = preprocess and {k: v for k, v in preprocess.items() if k not in PREPROCESS_PLACES}
        plain = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in options.items()
            if name not in aside
        }
        content = {"data": data_hash, "weights": weights, "weights_hash": weights_hash}
        content |= {"study": f"{tuned.study} {tuned.trial}" if tuned else ""}
        return {"options": plain, "preprocess": made} | content
