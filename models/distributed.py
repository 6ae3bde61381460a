"""Several processes as one: they join, share the work, agree, and leave together.

All of them run the same lines in the same order; only the first tells and writes.
"""

import datetime
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.rendezvous import rendezvous

from pipeline.errors import UserError
from pipeline.processes import OutOfStep, World, world_here
from pipeline.records import digest

Value = TypeVar("Value")
# A process that dies is noticed by torchrun at once. This is how long the others wait for one
# that is busy, such as with the images of a whole collection.
PATIENCE = datetime.timedelta(hours=2)
GRACE = datetime.timedelta(seconds=5)  # in which the first process tells a mistake of all
JOINS = itertools.count()
PAUSE = 0.05  # seconds between two looks
TOLD = "told"
NO_STORE = (RuntimeError, KeyError, ValueError)  # what failing to reach it raises


@contextmanager
def join() -> Iterator[World]:
    """Join the other processes that torchrun started, and leave when all are done.

    Without torchrun this process is alone, and nothing happens. Within another `join` the one
    outside holds.

    Raises:
        OutOfStep: Another process was lost.
    """
    world = world_here()
    if not world.several or dist.is_initialized():
        yield world
        return
    # Who joins again must not find the addresses of the time before.
    place = dist.PrefixStore(f"join{next(JOINS)}", _meeting_place(world))  # type: ignore[attr-defined]
    dist.init_process_group(
        _backends(world),
        timeout=PATIENCE,
        store=place,
        rank=world.rank,
        world_size=world.size,
    )
    try:
        yield world
        # torchrun ends all as soon as one ends badly, so nobody goes while another still works.
        wait_for_all(world)
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise OutOfStep(
            f"rank {world.rank}: another process of this training was lost",
            "continue with --resume",
        ) from None
    # After a failure the group is left as it is: to take it down means to wait for the others.
    dist.destroy_process_group()


@cache
def _meeting_place(world: World) -> Any:
    """Return the store that torchrun keeps, or the first process where it does not."""
    store, _, _ = next(rendezvous("env://", world.rank, world.size, timeout=PATIENCE))
    return store


def _backends(world: World) -> str:
    """Return what carries tensors of each device between processes."""
    if not torch.cuda.is_available():
        return "gloo"
    # Two processes that share a GPU are refused by NCCL.
    own_gpu = world.local_size <= torch.cuda.device_count() and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if own_gpu else "cpu:gloo,cuda:gloo"


def _is_loss(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    text = str(error)
    return "gloo" in text or "Connection closed by peer" in text


def take_gpu(world: World) -> None:
    """Make the GPU of this process the current one; the processes of a machine have one each."""
    if world.several:
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())


def agree(world: World, value: Value) -> Value:
    """Return the first process's value in all of them."""
    if not world.several:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_values(world: World, value: Value) -> list[Value]:
    """Return the values of all processes by rank, in all of them."""
    if not world.several:
        return [value]
    values: list[Value | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return cast("list[Value]", values)


def gather(world: World, part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the shares of all processes together, in the order that `World.share` cut them.

    Args:
        world: The processes.
        part: (n, ...) of this process; n may differ between processes and may be 0.

    Returns:
        (N, ...), bit for bit what the processes had, the same in all of them.
    """
    return np.concatenate(all_values(world, part)) if world.several else part


def add_up(world: World, value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, in place."""
    if world.several:
        dist.all_reduce(value)
    return value


def wait_for_all(world: World) -> None:
    """Wait until all processes have come here."""
    if world.several:
        dist.all_reduce(torch.zeros(1))


@contextmanager
def together(world: World) -> Iterator[None]:
    """Fail in all processes where the block fails in one, so that nobody waits for who is gone.

    The block must not need the other processes.

    Raises:
        UserError: The mistake that the first of them met, with its rank if it was another one.
    """
    mistake: UserError | None = None
    try:
        yield
    except UserError as error:
        mistake = error
        if not world.several:
            raise
    for rank, met in enumerate(all_values(world, mistake)):
        if met is not None:
            raise met if not rank else UserError(f"rank {rank}: {met.problem}", met.remedy)


def by_first(world: World, make: Callable[[], Value]) -> Value:
    """Do something in the first process alone, such as writing, and return its result in all.

    Raises:
        UserError: What the first one met, in all of them.
    """
    made: list[Value] = []
    with together(world):
        if world.first:
            made.append(make())
    return agree(world, made)[0]


def first_then_others(world: World, make: Callable[[], Value]) -> Value:
    """Do something in the first process, then in the others, which find what it left on the disk.

    Raises:
        UserError: What one of them met, in all of them.
    """
    made: list[Value] = []
    for turn in (True, False):
        with together(world):
            if world.first is turn:
                made.append(make())
    return made[0]


def check_same(world: World, value: object, what: str) -> None:
    """Refuse to go on where the processes do not see the same.

    Args:
        world: The processes.
        value: What this one sees.
        what: What it is: "checkpoint".

    Raises:
        UserError: They differ, in all of them.
    """
    if any(other != value for other in all_values(world, value)):
        raise UserError(
            f"the processes do not see the same {what}",
            "put --data and --runs where all machines see them under the same path",
        )


def note_mistake(world: World, text: str) -> None:
    """Note, in the first process, a mistake that is told, for those that met the same."""
    with suppress(*NO_STORE):
        store = _store(world)
        store.set(digest(text), "")
        store.set(TOLD, "")


def told_by_first(world: World, text: str) -> bool:
    """Tell whether the first process has told the same mistake, or does within a few seconds.

    Nothing is presumed of it: it may wait for this one, and the group may not exist yet.
    """
    with suppress(*NO_STORE):
        store, end = _store(world), time.monotonic() + GRACE.total_seconds()
        while not store.check([TOLD]) and time.monotonic() < end:
            time.sleep(PAUSE)  # torch's own way to wait complains aloud
        return bool(store.check([digest(text)]))
    return False


def _store(world: World) -> Any:
    """Return a place for messages that works whatever the group is doing."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    server = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=world.first and not agent,
        timeout=GRACE,
        wait_for_workers=False,
        multi_tenant=True,
    )
    turn = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"mammolab/{turn}", server)  # type: ignore[attr-defined]
