"""main.py under torchrun: rank zero prints for all, and a failure of one rank ends all of them."""

import contextlib
import io
import signal
import sys
import time
from collections.abc import Iterator

from pipeline.errors import UserError
from pipeline.processes import RankFailure, World

SHARED_STAGE = "train"
GRACE = 1.0  # seconds for rank zero to print, before torchrun ends it as another rank has ended
_reported = 0  # failures of this process: one, but in tests


def check_start(world: World, stage: str | None, asks: bool) -> None:
    """Refuse what several processes cannot do together.

    Raises:
        UserError: Each process would run the same stage, or ask.
    """
    if not world.distributed:
        return
    if stage != SHARED_STAGE:
        what = f"{stage}: runs" if stage else "the menu and replays of several stages run"
        raise UserError(
            f"{what} in one process, and torchrun started {world.size}",
            f"run it without torchrun; only {SHARED_STAGE} can be shared",
        )
    if asks:
        raise UserError(
            f"{stage}: under torchrun no questions can be asked", "give its flags and --batch"
        )


@contextlib.contextmanager
def process_group(world: World) -> Iterator[None]:
    """Join the other processes; with one process torch is not even loaded.

    Raises:
        RankFailure: Another process died.
    """
    if not world.distributed:
        yield
        return
    from models import distributed

    def stop(_signal: int, _frame: object) -> None:
        raise RankFailure(*distributed.LOST)

    # torchrun terminates all ranks when one dies, mostly before they notice it by themselves.
    signal.signal(signal.SIGTERM, stop)
    try:
        with distributed.process_group():
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do is to say why


@contextlib.contextmanager
def raise_on_all_ranks(world: World) -> Iterator[None]:
    """Raise on every rank what the block raises on one: a folder that one machine lacks, say."""
    if not world.distributed:
        yield
        return
    from models import distributed

    with distributed.raise_on_all_ranks():
        yield


@contextlib.contextmanager
def stdout_of_rank_zero(world: World) -> Iterator[None]:
    """Keep stdout to rank zero."""
    if world.is_rank_zero:
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            yield


@contextlib.contextmanager
def stderr_of_rank_zero(world: World) -> Iterator[None]:
    """Keep what argparse says on stderr to one process a machine: all got the same flags."""
    if world.local_rank == 0:
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def report_failure(world: World, error: BaseException, text: str) -> None:
    """Print on stderr why this process ends: once for all ranks; the rank if it is one's own."""
    global _reported
    _reported += 1
    if world.distributed and "models.distributed" in sys.modules:
        from models import distributed

        if not distributed.is_first_to_call(f"failure {_reported}"):
            return
    elif not world.is_rank_zero:
        time.sleep(GRACE)  # all ranks met this before they joined: rank zero prints it
        return
    met_by_all = isinstance(error, UserError | KeyboardInterrupt)
    rank = "" if met_by_all or world.is_rank_zero else f"rank {world.rank}: "
    print(f"main.py: {rank}{text}", file=sys.stderr, flush=True)
