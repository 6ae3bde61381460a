"""Run folders: one for each training, complete enough to predict from."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.folds import Fold
from pipeline.options import split_several
from pipeline.paths import from_here
from pipeline.records import RECORD, TIME, UNFINISHED, read_json, read_record

LATEST = "latest"
ALL_RUNS = "all"
ELSEWHERE = "elsewhere"  # the strategy of predictions that were not made here
ANOMALY = "anomaly"  # that of detectors that learn from normal images alone
ENSEMBLE = "Ensemble"  # stands in a run's folder where others have their model's name
NEW_RUN = "new"
MAKERS = "train", "ensemble", "evaluate"  # the last of predictions that were made elsewhere
STAMP = "%Y%m%d-%H%M%S"  # how a run's folder is named, followed by its seed
STUDIES = "studies"  # in the folder of all runs: searches for hyper-parameters, which are no runs
MODEL_FILE = "model.json"  # all that prediction, evaluation and the report need to know
METRICS = "metrics.json"  # written last by evaluate: its presence says that the run is evaluated


@dataclass(frozen=True)
class Run:
    """A folder `runs/<model>/<time>-<seed>`.

    It holds answers.json, model.json (all that prediction needs to know), history.csv,
    weights.safetensors, stage.json; after evaluation predictions_{val,test}.csv, metrics.json
    and figures.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Its name as people give it: "<model>/<time>-<seed>"."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def model(self) -> str:
        """The registry name of the model that was trained."""
        return self.folder.parent.name

    @property
    def finished(self) -> bool:
        """Whether training finished."""
        return (self.folder / RECORD).is_file()

    @property
    def evaluated(self) -> bool:
        """Whether it has been evaluated."""
        return (self.folder / METRICS).is_file()

    @property
    def fold(self) -> Fold:
        """What its training validated on.

        Raises:
            UserError: Training did not finish.
        """
        return Fold.of(self.record()["counts"])

    def record(self) -> dict[str, Any]:
        """Return the completion record of its training, or of what else made it.

        Raises:
            UserError: Training did not finish.
        """
        return read_record(self.folder, *MAKERS)

    def metrics(self) -> dict[str, Any]:
        """Return what evaluation measured.

        Raises:
            UserError: It has not been evaluated.
        """
        command = f"python main.py evaluate --run {from_here(self.folder)} --batch"
        if not self.evaluated:
            raise UserError(f"{self.folder}: has not been evaluated", f"run: {command}")
        again = f"evaluate again with: {command}"
        metrics: dict[str, Any] = read_json(self.folder / METRICS, remedy=again)
        return metrics


def in_two_lines(name: str, fold: Fold) -> str:
    """Return the name of a run as a cell of a table: model and fold, and below time and seed.

    Args:
        name: "<model>/<time>-<seed>", or the model alone.
        fold: What it was validated on.
    """
    model, _, stamp = name.partition("/")
    head = f"{model}, fold {fold.number}" if fold.number else model
    return f"{head}\n{stamp}" if stamp else head


def create_run(runs: Path, model: str, seed: int) -> Run:
    """Make the folder of a new run.

    Raises:
        UserError: The folder cannot be made.
    """
    stamp = time.strftime(STAMP)
    for attempt in range(100):
        name = f"{stamp}-{seed}" if not attempt else f"{stamp}.{attempt}-{seed}"
        try:
            (runs / model / name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{runs}: cannot make a run here ({error.strerror})", "choose another --runs"
            ) from None
        return Run(runs / model / name)
    raise UserError(f"{runs / model}: a hundred runs were started in one second", "wait a second")


def list_runs(runs: Path) -> list[Run]:
    """Return the finished runs, in the order in which they were finished."""
    return _runs_with(RECORD, runs)


def list_unfinished(runs: Path) -> list[Run]:
    """Return the runs whose training was stopped, in the order in which they were begun."""
    return _runs_with(UNFINISHED, runs)


def list_all(runs: Path) -> list[Run]:
    """Return finished and stopped runs, in the order in which they were finished or begun."""
    return _runs_with(RECORD, runs, UNFINISHED)


def written(run: Run) -> float:
    """Return when a run was finished, or else begun, in seconds since 1970."""
    return _written(run.folder / (RECORD if run.finished else UNFINISHED))


def _runs_with(name: str, runs: Path, otherwise: str = "") -> list[Run]:
    """Return the runs that have a record of that name, or else of the other one."""
    records = {path.parent: path for path in runs.glob(f"*/*/{otherwise}") if otherwise}
    records |= {path.parent: path for path in runs.glob(f"*/*/{name}")}
    found = [path for path in records.values() if path.parents[1].name != STUDIES]
    # By what the runs record: a folder may have been renamed, or copied from elsewhere.
    found.sort(key=lambda path: (_written(path), path.parent.name, path.parents[1].name))
    return [Run(path.parent) for path in found]


def _written(record: Path) -> float:
    """Return when a record was written; of one that does not say so, when its run was begun."""
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
        return datetime.fromisoformat(read_json(record)[TIME]).timestamp()
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(record.parent.name[:15], STAMP))
    with contextlib.suppress(OSError):
        return record.stat().st_mtime
    return 0.0


def find_unfinished(runs: Path, name: str) -> Run:
    """Find a stopped run by its path, its name "<model>/<time>-<seed>", a model, or "latest".

    Raises:
        UserError: There is none; the message names those that there are.
    """
    known = list_unfinished(runs)
    if fitting := [run for run in known if name in (LATEST, run.model, run.name)]:
        return fitting[-1]
    for folder in (Path(name).expanduser(), runs / name):
        if (folder / UNFINISHED).is_file():
            return Run(folder.resolve())
        if (folder / RECORD).is_file():
            raise UserError(f"{name}: is finished", "start a new run without --resume")
    names = ", ".join(run.name for run in known[-3:]) or "none"
    raise UserError(f"{name}: no such stopped run in {runs}", f"those that there are: {names}")


def find_run(runs: Path, name: str, fold: int = 0) -> Run:
    """Find a finished run by its path, its name "<model>/<time>-<seed>", a model, or "latest".

    Args:
        runs: The folder that holds all runs.
        name: What it was called.
        fold: The fold that it must have validated on; 0 for any.

    Raises:
        UserError: There is none, or the one that is named is of another fold; the message names
            those that there are.
    """
    known = list_runs(runs)
    if name == LATEST or any(run.model == name for run in known):
        fitting = [run for run in known if name in (LATEST, run.model)]
        if fold:
            fitting = [run for run in fitting if _fold_of(run).number == fold]
        if not fitting:
            which, how = (f" of fold {fold}", f" --fold {fold}") if fold else ("", "")
            model = "" if name == LATEST else f" of {name}"
            command = f"run: python main.py train{how}"
            raise UserError(f"{runs}: holds no finished run{model}{which}", command)
        return fitting[-1]
    for folder in (Path(name).expanduser(), runs / name):
        if folder.is_dir():
            run = Run(folder.resolve())
            own = run.fold
            if fold not in (0, own.number):
                kind = own.name or "the plain train/val split"
                raise UserError(f"{name}: is a run of {kind}, not of fold {fold}", "drop --fold")
            return run
    names = ", ".join(run.name for run in known[-3:]) or "none"
    raise UserError(f"{name}: no such run in {runs}", f"the newest there are: {names}")


def run_problem(names: str, answers: Any) -> str | None:
    """Say why runs that were named cannot be found; see `find_run`."""
    try:
        for name in split_several(names):
            if name != ALL_RUNS:
                find_run(Path(answers["runs"]), name, int(answers.get("fold", 0)))
    except UserError as error:
        return str(error)
    return None


def is_detector(facts: Mapping[str, Any]) -> bool:
    """Return whether model.json is of an anomaly detector, or of an ensemble of some."""
    return bool((facts.get("head") or {}).get("error"))


def detector_chosen(answers: Any) -> bool:
    """Return whether a run that is named, or any of all, is an anomaly detector's."""
    names, runs = split_several(str(answers.get("run", LATEST))), Path(answers.get("runs", "runs"))
    found = list_runs(runs) if ALL_RUNS in names else []
    for name in names:
        with contextlib.suppress(UserError):
            found += [find_run(runs, name)] if name != ALL_RUNS else []
    for run in found:
        with contextlib.suppress(UserError, OSError):
            if is_detector(read_json(run.folder / MODEL_FILE)):
                return True
    return False


def unfinished_problem(name: str, answers: Any) -> str | None:
    """Say why a stopped run that was named cannot be found; see `find_unfinished`."""
    try:
        find_unfinished(Path(answers["runs"]), name)
    except UserError as error:
        return str(error)
    return None


def resume_choices(answers: Any) -> dict[str, str]:
    """Return what training can begin with: a new run, or one that was stopped, newest first."""
    stopped = reversed(list_unfinished(Path(answers.get("runs", "runs"))))
    return {NEW_RUN: "start anew"} | {run.name: "continue where it was stopped" for run in stopped}


def runs_of_fold(runs: Path, fold: int) -> list[Run]:
    """Return the finished runs that validated on a fold, 0 for any, in the order of finishing."""
    return [run for run in list_runs(runs) if fold in (0, _fold_of(run).number)]


def suggested_resume(answers: Any) -> str:
    """Return the run that was stopped, where that was the last thing done here; else a new one."""
    runs = Path(answers.get("runs", "runs"))
    stopped, finished = list_unfinished(runs), list_runs(runs)
    if stopped and (not finished or written(stopped[-1]) > written(finished[-1])):
        return stopped[-1].name
    return NEW_RUN


def run_choices(answers: Any) -> dict[str, str]:
    """Return the runs to choose from, newest first, for a question; of a fold where one is given.

    Args:
        answers: With the folder of the `runs` and the `fold`, 0 for any.
    """
    choices = {}
    for run in reversed(_runs_to_choose(answers)):
        fold = _fold_of(run)
        state = "evaluated" if run.evaluated else "not evaluated yet"
        choices[run.name] = f"{state}, {fold.name}" if fold.number else state
    return choices


def evaluated_choices(answers: Any) -> dict[str, str]:
    """Return the evaluated runs to choose from, newest first, for a question."""
    found = reversed(_runs_to_choose(answers))
    return {run.name: _fold_of(run).name or "evaluated" for run in found if run.evaluated}


def evaluation_choices(answers: Any) -> dict[str, str]:
    """Return what can be evaluated: all runs that are not evaluated yet, or single ones."""
    runs = _runs_to_choose(answers)
    left = sum(not run.evaluated for run in runs)
    state = f"those not evaluated yet: {left} of {len(runs)}" if left else "all are evaluated"
    return ({ALL_RUNS: state} if runs else {}) | run_choices(answers)


def _runs_to_choose(answers: Any) -> list[Run]:
    return runs_of_fold(Path(answers.get("runs", "runs")), answers.get("fold", 0))


def member_choices(answers: Any) -> dict[str, str]:
    """Return what an ensemble can be made of: all runs, those of a model, or single ones."""
    runs = [run for run in list_runs(Path(answers.get("runs", "runs"))) if run.model != ENSEMBLE]
    models = Counter(run.model for run in runs)
    choices = {ALL_RUNS: f"all {len(runs)} runs"}
    choices |= {model: f"its {count} runs" for model, count in models.items() if count > 1}
    return choices | {run.name: "this run" for run in reversed(runs)}


def _fold_of(run: Run) -> Fold:
    """Return the fold of one run of many: one that is damaged must not hide the others."""
    try:
        return run.fold
    except UserError:
        return Fold()
