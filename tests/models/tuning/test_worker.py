"""One process's part in a search: what fails, what is pruned, what is tried again."""

import contextlib
import sqlite3
import subprocess
import threading
import time

import optuna
import pytest

from models.registry import MODELS
from models.tuning.study import open_study, revive, storage_at, worker_here
from models.tuning.trials import Watched
from models.tuning.worker import Worker
from pipeline.errors import UserError
from pipeline.stages.training import Train
from tests.models.conftest import Listener
from tests.models.datasets import tune_options

COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))


@pytest.fixture
def worker_of(tiny_data, tmp_path):
    """A worker of a study, whose trials are scored by a function of their place and the trial."""
    opened = contextlib.ExitStack()

    def make(score, trials=8, model="MammoCNN", **given):
        class ScoredSplit:
            def score(self, _params, folder, trial):
                return score(int(folder.name), trial)

        options = tune_options(tiny_data, tmp_path, trials=trials, model=model, epochs=9, **given)
        storage = opened.enter_context(storage_at(f"sqlite:///{tmp_path / 'study.db'}"))
        study = open_study(storage, "s", {"a": 1})
        base = Train(model=model, weights="none")
        return Worker(
            study, ScoredSplit(), MODELS[model], base, tmp_path / "study", options, Listener(), True
        )

    with opened:
        yield make


def test_a_failed_trial_is_recorded_and_stops_nothing(worker_of):
    def score(slot, _trial):
        if slot == 1:
            raise UserError("epoch 3: the loss is no longer finite")
        if slot == 2:
            raise RuntimeError("shapes do not fit\nmore")
        return slot / 10

    worker = worker_of(score, trials=4)
    worker.work()
    states = [trial.state for trial in worker.study.get_trials()]
    assert states == [COMPLETE, FAIL, FAIL, COMPLETE]
    search = worker.search({"epochs": 9, "patience": 6})
    assert [one.reason for one in search.entries][1:3] == [
        "epoch 3: the loss is no longer finite", "shapes do not fit",
    ]  # fmt: skip
    assert search.counts["best_trial"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_are_pruned_but_never_the_models_own(worker_of, pruner):
    def score(slot, trial):
        watched = Watched(trial, [], 9)
        for epoch in range(1, 6):
            watched.row({"epoch": epoch, "val_auc": 0.9 if slot % 2 else 0.1})
        return 0.9 if slot % 2 else 0.1

    worker = worker_of(score, trials=8, pruner=pruner)
    worker.work()
    trials = worker.study.get_trials()
    assert trials[0].state == COMPLETE
    assert PRUNED in [trial.state for trial in trials]
    assert all(trial.state == COMPLETE for trial in trials if trial.number in (1, 3))


def test_a_stopped_trial_is_tried_again_with_the_same_values(worker_of):
    def stopped(slot, _trial):
        if slot == 4:
            raise KeyboardInterrupt
        return 0.5

    worker = worker_of(stopped, trials=6)
    with pytest.raises(KeyboardInterrupt):
        worker.work()
    worker = worker_of(lambda _slot, _trial: 0.6, trials=6)
    worker.work()
    trials = worker.study.get_trials()
    assert [trial.state for trial in trials] == [COMPLETE] * 4 + [FAIL] + [COMPLETE] * 2
    assert (trials[5].params, trials[5].user_attrs["retry_of"]) == (trials[4].params, 4)
    assert [one.trial for one in worker.search({"epochs": 9, "patience": 6}).entries] == [*range(6)]
    assert len({str(trial.params) for trial in trials}) == 6


def test_a_worker_goes_on_when_another_took_its_trial_for_dead(worker_of):
    def score(place, trial):
        if place == 1 and trial.number == 1:  # silent for too long
            trial.study.tell(trial.number, state=FAIL)
            trial.report(0.5, 1)
        return place / 10

    worker = worker_of(score, trials=3)
    worker.work()
    assert "Another process took this trial for dead; its result is left out." in (
        worker.progress.lines
    )
    entries = worker.search({"epochs": 9, "patience": 6}).entries
    assert [(one.trial, one.area) for one in entries] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert [one.number for one in entries] == [0, 2, 3]


def test_no_trial_begins_when_the_time_is_up(worker_of):
    worker = worker_of(lambda _place, _trial: time.sleep(0.3) or 0.5, trials=50, minutes=0.01)
    worker.work()
    assert 1 <= len(worker.study.get_trials()) < 5


def test_a_trial_that_kills_its_worker_is_given_up(worker_of):
    worker = worker_of(lambda slot, _trial: slot / 10, trials=2)
    for _ in range(3):  # processes that died in their first trial
        with pytest.warns(UserWarning, match="Heartbeat"):
            worker.study.ask().set_user_attr("worker", _dead_worker())
        revive(worker.study, here=True)
    worker.work()
    entries = worker.search({"epochs": 9, "patience": 6}).entries
    assert [(one.trial, one.state) for one in entries] == [(0, "failed"), (1, "complete")]
    assert entries[0].reason == "the process died 3 times in this trial"


def _dead_worker():
    done = subprocess.Popen(["true"])
    done.wait()
    return worker_here() | {"pid": done.pid}


# Threads stand for processes here, and share what each ignores of warnings for a moment.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_processes_that_begin_at_once_make_the_tables_together(tmp_path):
    refused = []

    def begin(address, barrier):
        barrier.wait()
        try:
            with storage_at(address):
                pass
        except UserError as error:
            refused.append(str(error))

    for attempt in range(2):  # each alone failed four times in five
        barrier = threading.Barrier(6)
        address = f"sqlite:///{tmp_path / f'{attempt}.db'}"
        begun = [threading.Thread(target=begin, args=(address, barrier)) for _ in range(6)]
        for one in begun:
            one.start()
        for one in begun:
            one.join()
    assert refused == []


def test_tables_of_another_optuna_are_refused_in_one_line(tmp_path):
    address = f"sqlite:///{tmp_path / 'study.db'}"
    with storage_at(address):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9'")
    with pytest.raises(UserError, match="is no longer compatible") as refused, storage_at(address):
        pass
    assert "\n" not in str(refused.value)
