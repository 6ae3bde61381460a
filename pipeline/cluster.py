"""Work on a Dask cluster: reached, its workers checked, and what goes wrong told in one line.

Dask is imported only when a cluster is asked for.
"""

import contextlib
import functools
import logging
import pickle
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.records import file_digest
from pipeline.work import PULSE

if TYPE_CHECKING:
    from concurrent.futures import Future

PATIENCE = 5.0  # seconds for the scheduler to answer and for a first worker to be there
RETURN = 10.0  # seconds for workers to come back: Dask starts killed ones again
TALKATIVE = ("distributed", "distributed.client", "tornado.application")
ADDRESS = re.compile(r"(?:tcp://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([1-9][0-9]{0,4})")
CONTINUE = "run the same command again to continue"


def address_problem(address: str) -> str | None:
    """Check that an address is that of a Dask scheduler by its form; empty means no cluster."""
    match = ADDRESS.fullmatch(address)
    if not address or (match and int(match[2]) < 2**16):
        return None
    return "must be host and port of a Dask scheduler, such as tcp://localhost:8786"


def describe(path: Path) -> str:
    """Return what two machines that share a file system say alike of a path, empty for nothing."""
    try:
        return "folder" if path.is_dir() else file_digest(path)
    except OSError:
        return ""


@dataclass(frozen=True)
class Terms:
    """What must hold on every worker as it does here.

    Attributes:
        seen: Paths, as text since another system cannot make a path of ours, and what
            `describe` says of each here.
        code: Returns a digest of the code that does the work; None asks for no such check.
        version: What it returns here.
    """

    seen: Mapping[str, str]
    code: Callable[[], str] | None
    version: str

    @classmethod
    def of(cls, shared: Sequence[Path], code: Callable[[], str] | None) -> "Terms":
        """Look at what is here."""
        seen = {str(path): describe(path) for path in shared}
        return cls(seen, code, code() if code else "")

    def broken(self) -> UserError | None:
        """Return what does not hold where this is called, if anything."""
        machine = platform.node()
        for path, here in self.seen.items():
            there = describe(Path(path))
            if not there or there != here:
                fault = "sees something else there" if there else "does not see it"
                return UserError(
                    f"{path}: the worker on {machine} {fault}",
                    "choose folders that all machines of the cluster share",
                )
        if self.code and _loaded(self.code) != self.version:
            return UserError(
                f"the worker on {machine} runs another version of this tool",
                "start the cluster's workers anew from the same one",
            )
        return None


@functools.cache
def _loaded(code: Callable[[], str]) -> str:
    # Once a process: a worker keeps the code that it has loaded, whatever becomes of the files.
    return code()


class Call:
    """A call that unpickling makes, so that `pickle.loads` is all that Dask has to know.

    A function of ours would be looked up by the scheduler too, which need not have this tool, and
    a worker that has it not would end instead of failing one task.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


class Workers:
    """The workers of a cluster, as `dask_workers` yields them."""

    def __init__(self, client: Any, address: str, terms: Terms) -> None:
        self._client, self._address, self._terms = client, address, terms
        # Not pure: equal jobs are each done, for the sake of what they write.
        self._executor = client.get_executor(pure=False)
        self._asked = self._met = time.monotonic()
        self._threads = self._count() or 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call an importable function on a worker; on one that breaks the terms it fails."""
        call = Call(_call_on, self._terms, function, arguments)
        future: Future[Any] = self._executor.submit(pickle.loads, pickle.dumps(call))
        return future

    def threads(self) -> int:
        """Return how many jobs the cluster can do at once; workers may come and go.

        Raises:
            UserError: The scheduler is gone, or all workers are and do not come back.
        """
        if self._client.status != "running":  # it lost the scheduler, and all futures with it
            raise _gone(self._address)
        now = time.monotonic()
        if now - self._asked >= PULSE:
            self._asked, count = now, self._count()
            if count:
                self._met, self._threads = now, count
            elif now - self._met > RETURN:
                raise UserError(
                    f"{self._address}: the cluster has lost all its workers",
                    f"start some, and {CONTINUE}",
                )
        return self._threads

    def _count(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except OSError:
            raise _gone(self._address) from None

    def check(self, function: Callable[..., Any]) -> None:
        """Find out whether every worker can load the function and keeps the terms.

        Raises:
            UserError: One cannot or does not.
        """
        call = pickle.dumps(Call(_find_fault, self._terms, function))
        answers = self._client.run(pickle.loads, call, on_error="return")
        for answer in answers.values():
            if isinstance(answer, (ImportError, AttributeError)):
                raise _foreign(self._address, answer)
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise answer  # OSError: that worker has just left


def _call_on(terms: Terms, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    # Workers that came after the check are held to the terms too.
    if fault := terms.broken():
        raise fault
    return function(*arguments)


def _find_fault(terms: Terms, _function: Callable[..., Any]) -> UserError | None:
    # The function has just been found where this runs, which is half of the check.
    return terms.broken()


@contextlib.contextmanager
def dask_workers(
    address: str,
    function: Callable[..., Any],
    shared: Sequence[Path] = (),
    code: Callable[[], str] | None = None,
) -> Iterator[Workers]:
    """Connect to a Dask cluster, and let go of it when the block ends; the cluster stays.

    Args:
        address: Of its scheduler: "tcp://host:port".
        function: What the workers will be asked to do; importable by name there too.
        shared: Files and folders that each worker must see as this machine does.
        code: Returns a digest of the code that the work depends on; importable by name.

    Raises:
        UserError: Dask is not installed, nobody answers, there are no workers or unfit ones, or
            the cluster breaks down during the work.
    """
    distributed = _import_dask()
    _greet(address)
    with _silenced():
        client = _connect(distributed, address)
        try:
            yield _checked_workers(client, address, function, Terms.of(shared, code))
        except distributed.KilledWorker:
            raise UserError(
                f"{address}: a job ended each worker that took it, most likely for want of memory",
                f"give the workers more memory or fewer threads, and {CONTINUE}",
            ) from None
        except ImportError as error:
            raise _foreign(address, error) from None
        except distributed.CancelledError:
            raise _gone(address) from None
        finally:
            with contextlib.suppress(OSError):
                client.close()  # the scheduler cancels what is still in flight


def _import_dask() -> Any:
    try:
        import distributed
    except ImportError:
        raise UserError(
            "--cluster needs Dask, which is not installed", "pip install distributed"
        ) from None
    return distributed


def _greet(address: str) -> None:
    """Find out whether a scheduler answers: Dask itself waits for ever for one that is silent."""
    import socket

    if problem := address_problem(address):
        raise UserError(f"{address}: {problem}")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    remedy = "give --cluster the address that dask scheduler prints"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            connection.settimeout(PATIENCE)
            # It speaks first, and begins with the length of what it says: 8 bytes, lowest first.
            greeting = connection.recv(8)
    except TimeoutError:
        raise UserError(f"{address}: no Dask scheduler answers there", remedy) from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{address}: nobody answers there ({reason})", remedy) from None
    if greeting[-1:] != b"\0":
        raise UserError(f"{address}: who answers there is no Dask scheduler", remedy)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep Dask's own lines out of the progress bar: what matters of them is told in ours."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _connect(distributed: Any, address: str) -> Any:
    with warnings.catch_warnings():
        # That versions differ is no fault by itself; `Terms` asks what the work depends on.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        try:
            return distributed.Client(address, timeout=PATIENCE, set_as_default=False)
        except OSError:
            raise _gone(address) from None


def _checked_workers(
    client: Any, address: str, function: Callable[..., Any], terms: Terms
) -> Workers:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        workers = Workers(client, address, terms)
        workers.check(function)
    except TimeoutError:
        raise UserError(f"{address}: the cluster has no workers", _start(address)) from None
    except OSError:
        raise _gone(address) from None
    return workers


def _gone(address: str) -> UserError:
    return UserError(
        f"{address}: the cluster was stopped or does not answer any more",
        f"start it, and {CONTINUE}",
    )


def _foreign(address: str, error: Exception) -> UserError:
    return UserError(f"{address}: a worker cannot load this tool's code ({error})", _start(address))


def _start(address: str) -> str:
    # Run as a module it finds the code in the folder where it is started; `dask worker` does not.
    return (
        "start workers in this tool's folder and environment: "
        f"python -m distributed.cli.dask_worker {address}"
    )
