"""The stage `tune`: Optuna over the one training loop, in any number of processes."""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from models.inference import choose_compute, prepare_process
from models.pretrained import refuse_unobtainable
from models.registry import ModelRow, find_model
from models.run_facts import FEW_PATIENTS, TrainingData, starting_weights
from models.training.best_trial import BEST, weights_facts
from models.training.stage import check_rows, load_training_data
from models.tuning.figures import write_figures
from models.tuning.result import (
    FAILED,
    Search,
    check_complete,
    search_result,
    write_best,
    write_trials,
)
from models.tuning.study import open_study, shown, storage_at
from models.tuning.trials import make_trials
from models.tuning.worker import Worker
from pipeline.errors import UserError
from pipeline.folds import FOLDS, read_folds, read_rows
from pipeline.leftovers import remove_left_over
from pipeline.manifest import MANIFEST, Row
from pipeline.progress import Progress, Result
from pipeline.provenance import dataset_hash, read_fresh
from pipeline.records import (
    RECORD,
    UNFINISHED,
    close_folder,
    digest,
    file_digest,
    open_folder,
    plain_options,
    write_json,
)
from pipeline.resources.places import TRIALS
from pipeline.runs import STUDIES
from pipeline.stages.training import Train
from pipeline.stages.tuning import Tune

STAGE, STUDY_FILE = "tune", "study.db"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


def tune(options: Tune, progress: Progress) -> Result:
    """Search the hyper-parameters of a model for the best validation AUC.

    A search that is stopped or killed continues where it was; several processes can share it.

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
    refuse_unobtainable(options.model, options.weights)  # each trial would fail in its turn
    facts = _facts(options, base)
    name = options.study or f"{row.name}-{facts['data_hash'][:8]}-{digest(facts)[:6]}"
    folder = options.runs / STUDIES / name
    address = options.storage or f"sqlite:///{folder / STUDY_FILE}"
    hidden = dataclasses.replace(options, storage=shown(options.storage))
    if not options.storage:
        _claim(folder, hidden)
    with storage_at(address) as storage:
        study = open_study(storage, name, facts)
        _claim(folder, hidden)
        _begin(folder, hidden)
        data_of_folds = _data_of_folds(base, row, folds, progress)
        trials = make_trials(base, row, data_of_folds, progress)
        here = address.startswith("sqlite")
        worker = Worker(study, trials, row, base, folder, options, progress, here)
        worker.work()
        search = worker.search(facts)
        if write_trials(folder, search) or not (folder / BEST).is_file():
            check_complete(search, folder)
            _write(folder, search, _importance(study, options.seed))
    seconds = time.perf_counter() - started
    close_folder(folder, STAGE, hidden, search.counts, digest(facts), seconds)
    return search_result(
        search, folder, _notes(search, data_of_folds[0], address),
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
    record = read_fresh(options.data, "preprocess", "organize")
    numbers = [options.fold]
    if options.fold == "all":
        numbers = list(range(1, max(read_folds(options.data).values()) + 1))
    found = []
    for number in numbers:
        rows, _ = read_rows(options.data, record, int(number))
        rows = [row for row in rows if row.split != "test"]
        check_rows(options.data, rows, find_model(options.model))
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
        "data_hash": dataset_hash(options.data),
        **weights_facts(starting_weights(base)),
        "epochs": options.epochs,
        "patience": options.patience,
        "pruner": options.pruner,
        "size": options.size,
        "fold": options.fold,
        "folds_hash": folds,
        "seed": options.seed,
    }


def _claim(folder: Path, options: Tune) -> None:
    """Make a study's folder, or take it up as it is: other processes may be working in it.

    Raises:
        UserError: It holds something else or cannot be written.
    """
    if (folder / RECORD).is_file() or (folder / UNFINISHED).is_file():
        remove_left_over(folder)
        return
    try:
        open_folder(folder, STAGE, options, alone=False)
    except UserError as error:
        raise UserError(error.problem, "choose another --runs") from None
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        problem = f"{folder}: cannot be made ({error.strerror})"
        raise UserError(problem, "choose another --runs") from None


def _begin(folder: Path, options: Tune) -> None:
    """Mark a study's folder as not finished."""
    try:
        write_json(folder / UNFINISHED, {"stage": STAGE, "options": plain_options(options)})
        (folder / RECORD).unlink(missing_ok=True)
    except PermissionError:
        raise UserError(f"{folder}: may not be written", "choose another --runs") from None


def _data_of_folds(
    base: Train, row: ModelRow, folds: Sequence[Sequence[Row]], progress: Progress
) -> list[TrainingData]:
    compute = choose_compute(base.device, base.precision)
    return [load_training_data(base, row, rows, compute, progress) for rows in folds]


def _importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """Return the share of the variance that each hyper-parameter explains (fANOVA, Hutter 2014)."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({one.value for one in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _write(folder: Path, search: Search, importance: Mapping[str, float]) -> None:
    write_figures(folder, search, importance)
    write_best(folder, search)
    with contextlib.suppress(OSError):  # another process may be at work in it
        (folder / TRIALS).rmdir()


def _notes(search: Search, data: TrainingData, address: str) -> list[str]:
    notes = [
        f"the best of {len(search.complete)} complete trials looks better on validation than it "
        "is; evaluate on test after training"
    ]
    if (few := len(data.val.patients)) < FEW_PATIENTS:
        notes.append(f"validation has {few} patients only: its AUC is a rough figure")
    if failed := search.count(FAILED):
        notes.append(f"{failed} trials failed; trials.csv says why")
    notes.append(f"to look closer: pip install optuna-dashboard; optuna-dashboard {shown(address)}")
    return notes
