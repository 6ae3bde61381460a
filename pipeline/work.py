"""Doing thousands of images: in parallel, one bad file never stops it, and it continues."""

import concurrent.futures as futures
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cluster import PULSE, dask_workers
from pipeline.errors import UserError
from pipeline.paths import is_inside
from pipeline.processes import world_here
from pipeline.records import atomic, digest
from pipeline.resources.machine import cores

Job = TypeVar("Job")
Value = TypeVar("Value")
LEDGER = "ledger.jsonl"
AHEAD = 4  # jobs in flight for each worker: enough to keep it busy, little enough for memory


def worker_count(wanted: int) -> int:
    """Return how many processes to use: 0 means one for each core this process may use.

    Where torchrun started several on this machine, each takes its part of the cores.
    """
    if wanted:
        return wanted
    return max(1, cores() // world_here().local_size)


def run_all(
    function: Callable[[Job], Value],
    jobs: Iterable[Job],
    workers: int,
    cluster: str = "",
    shared: Sequence[Path] = (),
    code: Callable[[], str] | None = None,
) -> Generator[tuple[Job, Value | UserError], None, None]:
    """Run a function on every job, over processes or a cluster, and yield results as they come.

    A job that raises UserError yields that error in place of a value; any other exception is a
    programming error and ends the work. Ctrl-C ends it at once; what was yielded is done. Who stops
    before the last result closes the generator, or processes still write when the folder is let go.

    Args:
        function: Importable by name, since worker processes are started fresh (the same on every
            platform, and safe beside libraries that keep threads).
        jobs: Their order is the order of starting, not of the results.
        workers: Processes; with one, everything runs in this process.
        cluster: Address of a Dask cluster to work on; empty for this machine. Paths in jobs must
            be absolute then.
        shared: Files and folders of the jobs, which each worker of a cluster must see as this
            machine does; a file stands for its folder, which might be another one of that name.
        code: Returns a digest of the code behind `function`, importable by name; each worker of
            a cluster must have loaded the same.

    Raises:
        UserError: Worker processes were killed, or the cluster cannot do the work.
    """
    if cluster:
        yield from _run_on_cluster(function, jobs, cluster, shared, code)
        return
    if workers == 1:
        for job in jobs:
            yield job, _guarded(function, job)
        return
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    try:
        yield from _stream(
            lambda job: pool.submit(_guarded, function, job), iter(jobs), lambda: workers
        )
    except futures.process.BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most likely for want of memory",
            "run the same command again with --workers 1",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_on_cluster(
    function: Callable[[Job], Value],
    jobs: Iterable[Job],
    address: str,
    shared: Sequence[Path],
    code: Callable[[], str] | None,
) -> Iterator[tuple[Job, Value | UserError]]:
    left = iter(jobs)
    for first in left:  # without a job there is nothing to ask a cluster for
        with dask_workers(address, function, shared, code) as workers:
            submit = functools.partial(workers.submit, _guarded, function)
            yield from _stream(submit, itertools.chain([first], left), workers.threads)


def _stream(
    submit: Callable[[Job], "futures.Future[Value | UserError]"],
    jobs: Iterator[Job],
    workers: Callable[[], int],
) -> Iterator[tuple[Job, Value | UserError]]:
    running: dict[futures.Future[Value | UserError], Job] = {}
    exhausted = False
    while running or not exhausted:
        limit = workers() * AHEAD
        while not exhausted and len(running) < limit:
            try:
                job = next(jobs)
            except StopIteration:
                exhausted = True
            else:
                running[submit(job)] = job
        done, _ = futures.wait(running, PULSE, futures.FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _guarded(function: Callable[[Job], Value], job: Job) -> Value | UserError:
    try:
        return function(job)
    except UserError as error:
        return error


def _follow_parent() -> None:
    # Ctrl-C reaches the whole process group; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent that is killed takes nobody with it: its workers would wait for ever.
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


class Ledger:
    """What a stage has already made, image by image, so that a stopped run continues.

    Each line says that `name` was made from inputs and options with digest `key`, and what was
    learnt on the way. A line is appended after its file has its final name; a line cut off by a
    kill is ignored. The ledger is no result: two runs may order it differently.
    """

    def __init__(self, folder: Path, name: str = LEDGER) -> None:
        """Read what an earlier run left in `folder`."""
        self._path = folder / name
        self._made = {entry["name"]: entry for entry in _entries(self._path)}

    def has(self, name: str) -> bool:
        """Return whether anything is known of `name`."""
        return name in self._made

    def facts(self, name: str, key: str) -> Any | None:
        """Return what is known of `name`, or None where it must be made (again)."""
        entry = self._made.get(name)
        return entry["facts"] if entry and entry["key"] == key else None

    def add(self, name: str, key: str, facts: Any) -> None:
        """Note that `name` was made; `facts` must be what JSON can hold."""
        self.add_all([(name, key, facts)])

    def add_all(self, entries: Iterable[tuple[str, str, Any]]) -> None:
        """Note several at once, which opens the file once: (name, key, facts)."""
        noted = list(entries)
        for entry in noted:
            self.learn(*entry)
        note(self._path, noted)

    def learn(self, name: str, key: str, facts: Any) -> None:
        """Take up what a worker has noted in the file itself."""
        self._made[name] = _entry(name, key, facts)

    def keep_only(self, names: Iterable[str]) -> list[str]:
        """Forget everything else, and return the names that were forgotten."""
        wanted = set(names)
        gone = sorted(set(self._made) - wanted)
        for name in gone:
            del self._made[name]
        return gone

    def rewrite(self) -> None:
        """Write the file anew without what was forgotten or noted twice."""
        with atomic(self._path) as temporary:
            note(temporary, [(x["name"], x["key"], x["facts"]) for x in self._made.values()])


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a ledger; of a damaged one only the name, so that it is made again."""
    if not path.is_file():
        return
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
                continue
            sound = _entry(name, str(entry.get("key")), entry.get("facts"))
            if is_inside(name):
                yield sound if entry == sound else _entry(name, "", None)


def note(ledger: Path, entries: Iterable[tuple[str, str, Any]]) -> None:
    """Append to a ledger without reading it, as workers do: (name, key, facts)."""
    # The leading line end closes a line that a kill cut off.
    lines = ["\n" + json.dumps(_entry(*entry)) for entry in entries]
    with ledger.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def _entry(name: str, key: str, facts: Any) -> dict[str, Any]:
    # The check tells a line that was damaged or edited from one that the tool wrote.
    return {"name": name, "key": key, "facts": facts, "check": digest(name, key, facts)}
