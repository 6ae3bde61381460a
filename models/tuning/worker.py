"""One process's part in a search: trial after trial, until there are as many as are wanted."""

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from models.registry import NO_WEIGHTS, ModelRow
from models.run_facts import starting_weights
from models.training.best_trial import COMMON
from models.tuning.result import COMPLETE, FAILED, PRUNED, Entry, Search
from models.tuning.search_space import space_of, start_points
from models.tuning.study import RedundantTrial, claim, is_done, revive, slots
from models.tuning.trials import Trials, suggest
from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.records import digest
from pipeline.resources.places import TRIALS
from pipeline.stages.training import Train
from pipeline.stages.tuning import Tune

RANDOM_TRIALS = 8  # before the sampler models what it has seen, the start points with them
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 4, 2
WAIT_SECONDS = 2.0
STATES = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}


class _Failed(Exception):
    """A trial failed by itself; its reason is in the study."""


@dataclass
class Worker:
    """One process's part in a search."""

    study: optuna.Study
    trials: Trials
    row: ModelRow
    base: Train
    folder: Path
    options: Tune
    progress: Progress
    here: bool  # whether all processes are on this machine

    def __post_init__(self) -> None:
        self._space = space_of(self.row)
        self._points = start_points(self.row, starting_weights(self.base) == NO_WEIGHTS)
        self._deadline = math.inf
        if self.options.minutes:
            self._deadline = time.monotonic() + 60 * self.options.minutes
        self.study.pruner = _pruner(self.options)

    def work(self) -> None:
        """Begin one trial after the other until there are as many as are wanted."""
        wanted, shown = self.options.trials, set(self._done())
        text = f"{self.study.study_name}: {len(shown)} of {wanted} trials done before"
        self.progress.say(f"{text}." if shown else f"Study {self.study.study_name}.")
        for place in shown:  # a kill may have come before they were cleared away
            self._clear(place)
        waiting = False
        with self.progress.track("Trials", wanted, "trials", min(len(shown), wanted)) as advance:
            while True:
                for place in revive(self.study, self.here):
                    self.progress.say(f"Trial {place} was stopped before; it is tried again.")
                begun = list(slots(self.study.get_trials(deepcopy=False)).values())[:wanted]
                states = {one.state for one in begun}
                if len(begun) < wanted or TrialState.WAITING in states:
                    if time.monotonic() > self._deadline:
                        break
                    self._run_one()
                elif TrialState.RUNNING in states:
                    if time.monotonic() > self._deadline:
                        break
                    if not waiting:
                        self.progress.say("Waiting for the trials of other processes.")
                    waiting = True
                    time.sleep(WAIT_SECONDS)
                else:
                    break
                self._show(shown, advance)
            self._show(shown, advance)

    def _run_one(self) -> None:
        self._lost = False
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_Failed, RedundantTrial))
        except Exception:  # Optuna says in several ways that a trial has been ended already
            if not self._lost:
                raise
            self.progress.say("Another process took this trial for dead; its result is left out.")

    def _show(self, shown: set[int], advance: Callable[[int], None]) -> None:
        """Show the trials that have come to their end since, those of other processes too."""
        done = self._done()
        best = max((_area(done[place]) for place in shown), default=-1.0)
        fresh = [place for place in done if place not in shown]
        for place in fresh:
            entry = self._entry(place, done[place])
            better = entry.state == COMPLETE and (entry.area or 0.0) > best
            best = max(best, _area(done[place]))
            self.progress.row(entry.cells(self._space, best if best >= 0 else None), best=better)
            if entry.reason:
                self.progress.say(f"Trial {place} failed: {entry.reason}")
            self._clear(place)
            shown.add(place)
        advance(len(fresh))

    def _clear(self, place: int) -> None:
        shutil.rmtree(self.folder / TRIALS / str(place), ignore_errors=True)

    def _done(self) -> dict[int, FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return {place: one for place, one in enumerate(slots(trials).values()) if is_done(one)}

    def _objective(self, trial: optuna.Trial) -> float:
        try:
            place = claim(self.study, trial, self.options.trials)
            params = self._point(trial, place)
            return self.trials.score(params, self.folder / TRIALS / str(place), trial)
        except (KeyboardInterrupt, OSError):  # a full disk, say: no fault of the trial
            trial.set_user_attr("stopped", True)
            raise
        except (NotImplementedError, RecursionError):
            raise
        except (UserError, MemoryError, RuntimeError) as error:
            trial.set_user_attr("reason", _reason(error))
            raise _Failed from error
        finally:
            known = self.study.get_trials(deepcopy=False)[trial.number]
            self._lost = known.state.is_finished()

    def _point(self, trial: optuna.Trial, place: int) -> dict[str, Any]:
        """Return the point of a trial; it follows from seed, place and the trials before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            # constant_liar: trials that are running count as bad ones, so processes spread out.
            sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=int(digest(self.options.seed, place)[:8], 16),
                n_startup_trials=RANDOM_TRIALS,
                constant_liar=True,
            )
            if place < len(self._points):
                point, own = self._points[place]
                trial.set_user_attr("own", own)
                sampler = optuna.samplers.PartialFixedSampler(dict(point), sampler)
        self.study.sampler = sampler
        return suggest(trial, self._space)

    def _entry(self, place: int, trial: FrozenTrial) -> Entry:
        begun, ended = trial.datetime_start, trial.datetime_complete
        return Entry(
            trial=place,
            number=trial.number,
            state=STATES[trial.state],
            area=trial.value,
            params=trial.params,
            steps=max(trial.intermediate_values, default=0),
            seconds=(ended - begun).total_seconds() if begun and ended else 0.0,
            own=bool(trial.user_attrs.get("own")),
            reason=str(trial.user_attrs.get("reason", "")),
        )

    def search(self, facts: Mapping[str, Any]) -> Search:
        """Return what all processes have found so far."""
        entries = [self._entry(place, one) for place, one in self._done().items()]
        common = {name: facts[name] for name in COMMON}
        return Search(self.study.study_name, facts, self._space, entries, common)


def _area(trial: FrozenTrial) -> float:
    """Return the validation AUC of a trial that is complete; -1 of another."""
    return float(trial.values[0]) if trial.state == TrialState.COMPLETE else -1.0


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
