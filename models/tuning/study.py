"""A search's study: where it is kept, which of its trials count, whose worker is dead.

A trial has a slot: its own number or, where it repeats one whose worker died, that one's. A search
of twenty trials has twenty slots, however many processes fill them and however many of these die.
What people see as the number of a trial is the place of its slot among the others. What follows
needs no lock: every decision is read off the numbers of the trials, which the database gives out
once.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)

from pipeline.errors import UserError
from pipeline.leftovers import machine

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120  # a worker that is silent for longer is dead
CONNECT_SECONDS, LOCK_SECONDS = 10, 60
DAY = timedelta(days=1, hours=2)  # between machines, whose time zones may differ
DEATHS = 3  # after which a trial is not tried again: it may be what kills its worker
ATTEMPTS = 5  # at making the tables, where another process makes them at the same time
REDUNDANT = "surplus"  # the attribute of such a trial, as studies have it
FACTS = "mammolab"  # of a study: what it is a search for
DRIVERS = {"postgresql": ("postgresql+psycopg", "psycopg[binary]"),
           "mysql": ("mysql+pymysql", "pymysql")}  # fmt: skip


class RedundantTrial(Exception):
    """A trial that another process has begun in the same moment, or that is one too many."""


def shown(address: str) -> str:
    """Return an address without its password."""
    try:
        return make_url(address).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return address


@contextlib.contextmanager
def _reachable(address: str) -> Iterator[None]:
    """Report in one line what is wrong with a database that cannot be used.

    Raises:
        UserError: It cannot be reached or written.
    """
    try:
        yield
    except NoSuchModuleError:
        raise  # a driver that is not there
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = _first_line(error)
        raise UserError(
            f"{shown(address)}: cannot be used ({reason})",
            "check address, rights and disk, then run it again; what is done is kept",
        ) from None


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    error = _cause(error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()


@contextlib.contextmanager
def storage_at(address: str) -> Iterator[RDBStorage]:
    """Open the database that studies are kept in, and make its tables where they are lacking.

    Errors within the block are reported in one line, too.

    Raises:
        UserError: It cannot be reached or written, or its driver is not installed.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise UserError(f"{address}: is not the address of a database") from None
    kind = url.get_backend_name()
    connect: dict[str, Any] = {"timeout": LOCK_SECONDS, "isolation_level": None}
    package = ""
    if kind in DRIVERS:
        driver, package = DRIVERS[kind]
        url = url.set(drivername=driver) if url.drivername == kind else url
        connect = {"connect_timeout": CONNECT_SECONDS}
    full = url.render_as_string(hide_password=False)
    try:
        with _reachable(address):
            storage = _make(full, {"connect_args": connect})
    except (ImportError, NoSuchModuleError):
        needed = f"pip install '{package}'" if package else "pip install its driver"
        raise UserError(
            f"{shown(address)}: the driver for {kind} is not installed", needed
        ) from None
    except RuntimeError as error:  # how optuna refuses the tables of another version
        raise UserError(
            f"{shown(address)}: {str(error).split('. ')[0]}",
            f"optuna storage upgrade --storage {shown(address)}, or give another database",
        ) from None
    if kind == "sqlite":
        # SQLite's own transactions begin with the first write, so two processes could take the same
        # trial: both would have read that it is free.
        event.listen(storage.engine, "begin", _begin_at_once)
    try:
        with _reachable(address):
            yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _begin_at_once(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make(url: str, engine: dict[str, Any]) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return RDBStorage(
                    url,
                    engine_kwargs=dict(engine),
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
            except (SQLAlchemyError, StorageInternalError) as error:
                if attempt == ATTEMPTS or not _made_by_another(error):
                    raise
                time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")


def _made_by_another(error: BaseException) -> bool:
    """Return whether another process made the same table or row between a look and the making."""
    if isinstance(_cause(error), IntegrityError):
        return True  # the row of its version: the next look finds it
    return any(word in _first_line(error).lower() for word in ("exist", "dupl", "locked"))


def open_study(storage: RDBStorage, name: str, facts: Mapping[str, Any]) -> optuna.Study:
    """Open a study or begin it.

    Args:
        storage: Where it is kept.
        name: What it is called there.
        facts: What it is a search for: model, dataset, what all trials have in common.

    Raises:
        UserError: The study of that name is a search for something else.
    """
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    known = study.user_attrs.get(FACTS)
    if known is None:
        study.set_user_attr(FACTS, dict(facts))
    elif other := [key for key in facts if known.get(key) != facts[key]]:
        changed, was = other[0], known.get(other[0])
        kind = f"{changed} {was}, not {facts[changed]}"
        if changed == "data_hash":
            kind = "another dataset"
        raise UserError(f"{name}: this study is of {kind}", "give another --study")
    return study


def slot_of(trial: FrozenTrial) -> int:
    """Return the slot of a trial."""
    return int(trial.user_attrs.get("retry_of", trial.number))


def is_dead(trial: FrozenTrial) -> bool:
    """Return whether a trial ended because its worker did; one that failed by itself says why."""
    return trial.state == TrialState.FAIL and not trial.user_attrs.keys() & {"reason", REDUNDANT}


def slots(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the current trial of each slot, in the order of the slots."""
    found = {slot_of(one): one for one in trials if REDUNDANT not in one.user_attrs}
    return dict(sorted(found.items()))


def is_done(trial: FrozenTrial) -> bool:
    """Return whether a trial has come to its end: complete, pruned, or failed by itself."""
    return trial.state.is_finished() and not is_dead(trial)


def claim(study: optuna.Study, trial: optuna.Trial, wanted: int) -> int:
    """Note who works on a trial, and return the place of its slot.

    Args:
        study: Its study.
        trial: Just begun.
        wanted: How many slots there are to be.

    Raises:
        RedundantTrial: Somebody else is at it, or it is one too many.
        UserError: Its workers died too often.
    """
    trial.set_user_attr("worker", worker_here())
    everything = study.get_trials(deepcopy=False)
    own = next(one for one in everything if one.number == trial.number)
    slot = slot_of(own)
    rivals = [
        one
        for one in everything
        if slot_of(one) == slot
        and one.number < trial.number
        and not is_dead(one)
        and REDUNDANT not in one.user_attrs
    ]
    places = list(slots(everything))
    if rivals or slot not in places[:wanted]:
        trial.set_user_attr(REDUNDANT, True)
        raise RedundantTrial
    if own.user_attrs.get("deaths", 0) >= DEATHS:
        raise UserError(f"the process died {DEATHS} times in this trial")
    return places.index(slot)


def revive(study: optuna.Study, here: bool) -> list[int]:
    """Put trials whose worker is dead back to be begun again, and return their places.

    Args:
        study: Its study.
        here: Whether all workers are on this machine, so that its clock is theirs.
    """
    for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = one.user_attrs.get("worker")
        # One that was killed before it could say who it is left no heartbeat either.
        silent = DAY if not here else timedelta(seconds=GRACE_SECONDS)
        started = one.datetime_start or datetime.now()
        if is_gone(worker) or (worker is None and datetime.now() - started > silent):
            study.tell(one.number, state=TrialState.FAIL, skip_if_finished=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    everything = slots(study.get_trials(deepcopy=False))
    dead = []
    for place, (slot, one) in enumerate(everything.items()):
        if not is_dead(one):
            continue
        dead.append(place)
        deaths = one.user_attrs.get("deaths", 0) + ("stopped" not in one.user_attrs)
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.WAITING,
                params=one.params,
                distributions=one.distributions,
                user_attrs={"retry_of": slot, "deaths": deaths},
                intermediate_values=one.intermediate_values,
            )
        )
    return dead


def worker_here() -> dict[str, Any]:
    """Return what distinguishes this process from all others on all machines."""
    return {"machine": machine(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_gone(worker: Mapping[str, Any] | None) -> bool:
    """Return whether a worker is known to be dead; of one on another machine that is not known."""
    if worker is None or worker["machine"] != machine():
        return False
    try:
        process = psutil.Process(int(worker["pid"]))
        # A later process may have been given the same number.
        same = abs(process.create_time() - worker["started"]) <= 1
        return not same or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
