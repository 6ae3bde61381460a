"""Several processes at one terminal: the first speaks for all, the others only for themselves."""

import contextlib
import io
import sys
from collections.abc import Iterator

from pipeline.errors import UserError
from pipeline.processes import World

SHARED_STAGE = "train"


def check_start(world: World, stage: str | None, asks: bool) -> None:
    """Refuse what several processes cannot do together.

    Args:
        world: The processes.
        stage: What they are to do; None for the menu and for several stages in a row.
        asks: Whether questions are left to ask.

    Raises:
        UserError: They would do one thing several times, or ask.
    """
    if not world.several:
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
def one_voice(world: World) -> Iterator[None]:
    """Keep stdout to the first process."""
    if world.first:
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            yield


@contextlib.contextmanager
def one_refusal(world: World) -> Iterator[None]:
    """Keep what argparse says on stderr to one process a machine: the others got the same flags."""
    if world.local_rank == 0:
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def complain(world: World, text: str, stopped: bool = False) -> None:
    """Tell on stderr why this process ends; what the first one tells is not repeated.

    Args:
        world: The processes.
        text: The reason, in one line.
        stopped: Whether somebody stopped them, which ends all.
    """
    if world.first:
        print(f"main.py: {text}", file=sys.stderr, flush=True)
    if not world.several or stopped:
        return
    from models.distributed import note_mistake, told_by_first

    if world.first:
        note_mistake(world, text)
    elif not told_by_first(world, text):
        print(f"main.py: rank {world.rank}: {text}", file=sys.stderr, flush=True)
