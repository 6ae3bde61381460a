"""The stage `tune`: Optuna over the one training loop, in any number of processes."""

import contextlib
import dataclasses
import errno
import math
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from models.inference import choose_compute, prepare_process
from models.registry import NO_WEIGHTS, ModelRow, find_model
from models.run_facts import FEW_PATIENTS, Material, starting_weights
from models.search_space import space_of, start_points
from models.study import (
    Surplus,
    claim,
    is_done,
    open_storage,
    open_study,
    reachable,
    revive,
    shown,
    slot_of,
    slots,
)
from models.training import check_rows, load_material
from models.trials import Trials, make_trials, suggest
from models.tuned import COMMON, weights_facts
from models.tuning_figures import write_figures
from models.tuning_result import (
    COMPLETE,
    FAILED,
    PRUNED,
    Entry,
    Search,
    check_complete,
    search_result,
    write_best,
    write_trials,
)
from pipeline.errors import UserError
from pipeline.folds import FOLDS, read_folds, read_rows
from pipeline.manifest import MANIFEST, Row
from pipeline.progress import Progress, Result
from pipeline.records import (
    RECORD,
    UNFINISHED,
    close_folder,
    digest,
    file_digest,
    open_folder,
    plain_options,
    read_record,
    write_json,
)
from pipeline.runs import STUDIES
from pipeline.stages import Train, Tune

STAGE, STUDY_FILE, WORK = "tune", "study.db", "trials"
RANDOM_TRIALS = 8  # before the sampler models what it has seen, the start points with them
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 4, 2
WAIT_SECONDS = 2.0
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
STATES = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}


class _Failed(Exception):
    """A trial failed by itself; its reason is in the study."""


def tune(options: Tune, progress: Progress) -> Result:
    """Search the hyper-parameters of a model for the best validation AUC.

    A search that is stopped or killed goes on where it was; several processes can share it.

    Args:
        options: What to search on, for which model, how long.
        progress: Where it reports.

    Returns:
        The study's folder with its best trials.

    Raises:
        UserError: Data, weights, folder or storage cannot be used; see the message.
    """
    started = time.perf_counter()
    prepare_process(options.workers)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    row = find_model(options.model)
    base = _base(options)
    folds = _rows(options)
    facts = _facts(options, base)
    name = options.study or f"{row.name}-{facts['data_hash'][:8]}-{digest(facts)[:6]}"
    folder = options.runs / STUDIES / name
    _open(folder, options)
    address = options.storage or f"sqlite:///{folder / STUDY_FILE}"
    with reachable(address):
        study = open_study(open_storage(address), name, facts)
        materials = _materials(base, row, folds, progress)
        trials = make_trials(base, row, materials, progress)
        worker = _Worker(study, trials, row, base, folder, options, progress, address)
        worker.work()
        search = worker.search(facts)
        importance = _importance(study, options.seed)
    check_complete(search, folder)
    _write(folder, search, importance)
    hidden = dataclasses.replace(options, storage=shown(options.storage))
    seconds = time.perf_counter() - started
    close_folder(folder, STAGE, hidden, search.counts, digest(facts), seconds)
    return search_result(
        search, folder, _notes(search, materials[0], address),
        {"data": options.data, "model": row.name, "weights": options.weights, "runs": options.runs},
    )  # fmt: skip


def _base(options: Tune) -> Train:
    """Return what all trials have in common, as the options of their training."""
    return Train(
        data=options.data, model=options.model, weights=options.weights, epochs=options.epochs,
        patience=options.patience, size=options.size, device=options.device,
        precision=options.precision, runs=options.runs, seed=options.seed, workers=options.workers,
    )  # fmt: skip


def _rows(options: Tune) -> list[list[Row]]:
    """Return the rows of each fold to validate on; test images are no part of a search."""
    record = read_record(options.data, "preprocess", "organize")
    numbers = [options.fold]
    if options.fold == "all":
        numbers = list(range(1, max(read_folds(options.data).values()) + 1))
    found = []
    for number in numbers:
        rows, _ = read_rows(options.data, record, int(number))
        rows = [row for row in rows if row.split != "test"]
        check_rows(options.data, rows)
        if len({row.label for row in rows if row.split == "val"}) < 2:
            raise UserError(
                f"{options.data / MANIFEST}: validation shows one class only, so there is no AUC "
                "to search by",
                "organise more patients",
            )
        found.append(rows)
    return found


def _facts(options: Tune, base: Train) -> dict[str, Any]:
    """Return what a study is a search for: trials of other facts are not comparable."""
    folds = file_digest(options.data / FOLDS) if options.fold else ""
    return {
        "model": options.model,
        "data_hash": file_digest(options.data / MANIFEST),
        **weights_facts(starting_weights(base)),
        "epochs": options.epochs,
        "patience": options.patience,
        "pruner": options.pruner,
        "size": options.size,
        "fold": options.fold,
        "folds_hash": folds,
        "seed": options.seed,
    }


def _open(folder: Path, options: Tune) -> None:
    """Take up a study's folder, which other processes may be working in, or make it."""
    hidden = dataclasses.replace(options, storage=shown(options.storage))
    try:
        if (folder / RECORD).is_file() or (folder / UNFINISHED).is_file():
            write_json(folder / UNFINISHED, {"stage": STAGE, "options": plain_options(hidden)})
            (folder / RECORD).unlink(missing_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            open_folder(folder, STAGE, hidden)
    except UserError as error:
        raise UserError(error.problem, "choose another --runs") from None
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise UserError(
            f"{folder}: may not be written ({error.strerror})", "choose another --runs"
        ) from None


def _materials(
    base: Train, row: ModelRow, folds: Sequence[Sequence[Row]], progress: Progress
) -> list[Material]:
    compute = choose_compute(base.device, base.precision)
    return [load_material(base, row, rows, compute, progress) for rows in folds]


@dataclass
class _Worker:
    """One process's part in a search."""

    study: optuna.Study
    trials: Trials
    row: ModelRow
    base: Train
    folder: Path
    options: Tune
    progress: Progress
    address: str

    def __post_init__(self) -> None:
        self._space = space_of(self.row)
        self._points = start_points(self.row, starting_weights(self.base) == NO_WEIGHTS)
        self._deadline = math.inf
        if self.options.minutes:
            self._deadline = time.monotonic() + 60 * self.options.minutes
        self.study.pruner = _pruner(self.options)
        self._here = self.address.startswith("sqlite")

    def work(self) -> None:
        """Begin one trial after the other until there are as many as are wanted."""
        wanted, told = self.options.trials, set(self._done())
        text = f"{self.study.study_name}: {len(told)} of {wanted} trials done before"
        self.progress.say(f"{text}." if told else f"Study {self.study.study_name}.")
        for slot in told:  # a kill may have come before they were cleared away
            self._clear(slot)
        waiting = False
        with self.progress.track("Trials", wanted, "trials", min(len(told), wanted)) as advance:
            while True:
                for slot in revive(self.study, self._here):
                    self.progress.say(f"Trial {slot} was stopped before; it is tried again.")
                begun = list(slots(self.study.get_trials(deepcopy=False)).values())[:wanted]
                states = {one.state for one in begun}
                if len(begun) < wanted or TrialState.WAITING in states:
                    if time.monotonic() > self._deadline:
                        break
                    self.study.optimize(self._objective, n_trials=1, catch=(_Failed, Surplus))
                elif TrialState.RUNNING in states:
                    if time.monotonic() > self._deadline:
                        break
                    if not waiting:
                        self.progress.say("Waiting for the trials of other processes.")
                    waiting = True
                    time.sleep(WAIT_SECONDS)
                else:
                    break
                self._tell(told, advance)
            self._tell(told, advance)

    def _tell(self, told: set[int], advance: Any) -> None:
        """Show the trials that have come to their end since, those of other processes too."""
        done = self._done()
        best = max((told_area(done[slot]) for slot in told if slot in done), default=-1.0)
        fresh = [slot for slot in done if slot not in told]
        for slot in fresh:
            entry = self._entry(done[slot])
            better = entry.state == COMPLETE and (entry.area or 0.0) > best
            best = max(best, told_area(done[slot]))
            self.progress.row(entry.cells(self._space, best if best >= 0 else None), best=better)
            if entry.reason:
                self.progress.say(f"Trial {slot} failed: {entry.reason}")
            self._clear(slot)
            told.add(slot)
        advance(len(fresh))

    def _clear(self, slot: int) -> None:
        shutil.rmtree(self.folder / WORK / str(slot), ignore_errors=True)

    def _done(self) -> dict[int, FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return {slot: one for slot, one in slots(trials).items() if is_done(one)}

    def _objective(self, trial: optuna.Trial) -> float:
        try:
            slot = claim(self.study, trial, self.options.trials)
            params = self._point(trial, slot)
            return self.trials.score(params, self.folder / WORK / str(slot), trial)
        except KeyboardInterrupt:
            trial.set_user_attr("stopped", True)
            raise
        except (NotImplementedError, RecursionError):
            raise
        except (UserError, MemoryError, RuntimeError) as error:
            trial.set_user_attr("reason", _reason(error))
            raise _Failed from error

    def _point(self, trial: optuna.Trial, slot: int) -> dict[str, Any]:
        """Return the point of a trial; it follows from seed, slot and the trials before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=int(digest(self.options.seed, slot)[:8], 16),
                n_startup_trials=RANDOM_TRIALS,
                constant_liar=True,
            )
            if slot < len(self._points):
                point, own = self._points[slot]
                trial.set_user_attr("own", own)
                sampler = optuna.samplers.PartialFixedSampler(dict(point), sampler)
        self.study.sampler = sampler
        return suggest(trial, self._space)

    def _entry(self, trial: FrozenTrial) -> Entry:
        begun, ended = trial.datetime_start, trial.datetime_complete
        return Entry(
            trial=slot_of(trial),
            state=STATES[trial.state],
            area=told_area(trial) if trial.value is not None else None,
            params=trial.params,
            steps=max(trial.intermediate_values, default=0),
            seconds=(ended - begun).total_seconds() if begun and ended else 0.0,
            own=bool(trial.user_attrs.get("own")),
            reason=str(trial.user_attrs.get("reason", "")),
        )

    def search(self, facts: Mapping[str, Any]) -> Search:
        """Return what all processes have found so far."""
        entries = [self._entry(one) for one in self._done().values()]
        common = {name: facts[name] for name in COMMON}
        return Search(self.study.study_name, facts, self._space, entries, common)


def told_area(trial: FrozenTrial) -> float:
    """Return the validation AUC of a trial that came to a result; -1 of another."""
    return float(trial.value) if trial.value is not None else -1.0


def _pruner(options: Tune) -> optuna.pruners.BasePruner:
    if options.pruner == "median":
        return optuna.pruners.MedianPruner(UNPRUNED_TRIALS, UNPRUNED_EPOCHS)
    if options.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=options.epochs)
    return optuna.pruners.NopPruner()


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """Return the share of the variance that each hyper-parameter explains (fANOVA, Hutter 2014)."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({one.value for one in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _write(folder: Path, search: Search, importance: Mapping[str, float]) -> None:
    write_trials(folder, search)
    write_figures(folder, search, importance)
    write_best(folder, search)
    with contextlib.suppress(OSError):  # another process may be at work in it
        (folder / WORK).rmdir()


def _notes(search: Search, material: Material, address: str) -> list[str]:
    notes = [
        f"the best of {len(search.complete)} complete trials looks better on validation than it "
        "is; evaluate on test after training"
    ]
    if (few := len(material.val.patients)) < FEW_PATIENTS:
        notes.append(f"validation has {few} patients only: its AUC is a rough figure")
    if failed := search.count(FAILED):
        notes.append(f"{failed} trials failed; trials.csv says why")
    notes.append(f"to look closer: pip install optuna-dashboard; optuna-dashboard {shown(address)}")
    return notes
