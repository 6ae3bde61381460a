"""Jobs on a Dask cluster: connect, check the workers, and report what goes wrong in one line.

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

if TYPE_CHECKING:
    from concurrent.futures import Future

PULSE = 1.0  # seconds between two looks at whether workers are left
PATIENCE = 5.0  # seconds for the scheduler to answer and for a first worker to be there
RETURN = 10.0  # seconds for workers to come back: Dask restarts those that were killed
LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")
ADDRESS = re.compile(r"(?:tcp://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([1-9][0-9]{0,4})")
CONTINUE = "run the same command again to continue"


def address_problem(address: str) -> str | None:
    """Return what is wrong with the form of a scheduler's address; empty means no cluster."""
    match = ADDRESS.fullmatch(address)
    if not address or (match and int(match[2]) < 2**16):
        return None
    return "must be host and port of a Dask scheduler, such as tcp://localhost:8786"


def fingerprint(path: Path) -> str:
    """Return what two machines that share a file system both see of a path; empty: nothing."""
    try:
        return "folder" if path.is_dir() else file_digest(path)
    except OSError:
        return ""


@dataclass(frozen=True)
class Requirements:
    """What must hold on every worker as it does here."""

    # Fingerprints by path; text, since another system cannot make a path of ours.
    paths: Mapping[str, str]
    # Returns a digest of the code that does the work; None asks for no such check.
    code: Callable[[], str] | None
    version: str  # what it returns here

    def check(self) -> None:
        """Raise UserError for what does not hold where this is called."""
        machine = platform.node()
        for path, here in self.paths.items():
            there = fingerprint(Path(path))
            if there != here or not there:
                fault = "sees something else there" if there else "does not see it"
                raise UserError(
                    f"{path}: the worker on {machine} {fault}",
                    "choose folders that all machines of the cluster share",
                )
        if self.code and _loaded(self.code) != self.version:
            raise UserError(
                f"the worker on {machine} runs another version of this tool",
                "start the cluster's workers anew from the same one",
            )


@functools.cache
def _loaded(code: Callable[[], str]) -> str:
    # Once for each process: a worker keeps the code that it loaded, whatever becomes of the files.
    return code()


def _checked_call(requirements: Requirements, function: Callable[..., Any], *arguments: Any) -> Any:
    requirements.check()  # workers that joined later have to meet them too
    return function(*arguments)


class _Call:
    """A call that unpickling makes, so that `pickle.loads` is all that Dask has to know.

    Dask would look a function of ours up on the scheduler too, which need not have this tool; and
    a worker that lacks it would end instead of failing one task.
    """

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _checked_call, self._call


class Workers:
    """The workers of a cluster, as `dask_workers` yields them."""

    def __init__(self, client: Any, address: str, requirements: Requirements) -> None:
        self._client, self._address, self._requirements = client, address, requirements
        # Not pure: equal jobs are each done, for the sake of what they write.
        self._executor = client.get_executor(pure=False)
        self._asked = self._met = time.monotonic()
        self._threads = self._count() or 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call an importable function on a worker that meets the requirements, or fail."""
        call = pickle.dumps(_Call(self._requirements, function, *arguments))
        future: Future[Any] = self._executor.submit(pickle.loads, call)
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
        """Raise UserError where a worker cannot load the function or lacks a requirement."""
        call = pickle.dumps(_Call(self._requirements, repr, function))
        for answer in self._client.run(pickle.loads, call, on_error="return").values():
            if isinstance(answer, ImportError | AttributeError):
                raise _cannot_load(self._address, answer)
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise answer  # OSError: that worker has just left


@contextlib.contextmanager
def dask_workers(
    address: str,
    function: Callable[..., Any],
    shared: Sequence[Path] = (),
    code: Callable[[], str] | None = None,
) -> Iterator[Workers]:
    """Connect to a Dask cluster, and disconnect when the block ends; the cluster stays.

    Args:
        address: Of its scheduler: "tcp://host:port".
        function: What the workers will be asked to do; importable by name there too.
        shared: Files and folders that each worker must see as this machine does.
        code: Returns a digest of the code that the work depends on; importable by name.

    Raises:
        UserError: Dask is not installed, nobody answers, there are no workers or unfit ones, or
            the cluster breaks down during the work.
    """
    try:
        import distributed
    except ImportError:
        raise UserError(
            "--cluster needs Dask, which is not installed", "pip install distributed"
        ) from None
    for name in LOGGERS:  # their lines would break the progress bar
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    requirements = Requirements(
        {str(path): fingerprint(path) for path in shared}, code, code() if code else ""
    )
    client = _connect(address)
    try:
        yield _checked_workers(client, address, function, requirements)
    except distributed.KilledWorker:
        raise UserError(
            f"{address}: a job ended each worker that took it, most likely for want of memory",
            f"give the workers more memory or fewer threads, and {CONTINUE}",
        ) from None
    except ImportError as error:
        raise _cannot_load(address, error) from None
    except distributed.CancelledError:
        raise _gone(address) from None
    finally:
        with contextlib.suppress(OSError):
            client.close()  # the scheduler cancels what is still in flight


def _connect(address: str) -> Any:
    import asyncio

    import distributed

    if problem := address_problem(address):
        raise UserError(f"{address}: {problem}")
    try:
        # The client itself waits for ever for a server that accepts and says nothing.
        asyncio.run(asyncio.wait_for(_handshake(address), PATIENCE))
        with warnings.catch_warnings():
            # Other versions of packages are no fault: Requirements has what the work depends on.
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            return distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, MemoryError, ValueError):  # what Dask makes of another protocol's bytes
        raise UserError(
            f"{address}: no Dask scheduler answers there",
            "give --cluster the address that dask scheduler prints",
        ) from None


async def _handshake(address: str) -> None:
    from distributed.comm import connect

    await (await connect(address, timeout=PATIENCE)).close()


def _checked_workers(
    client: Any, address: str, function: Callable[..., Any], requirements: Requirements
) -> Workers:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        workers = Workers(client, address, requirements)
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


def _cannot_load(address: str, error: Exception) -> UserError:
    return UserError(f"{address}: a worker cannot load this tool's code ({error})", _start(address))


def _start(address: str) -> str:
    # Run as a module it finds the code in the folder where it is started; `dask worker` does not.
    return (
        "start workers in this tool's folder and environment: "
        f"python -m distributed.cli.dask_worker {address}"
    )
