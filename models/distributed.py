"""Collectives between the processes that torchrun started; with one process they do nothing.

All processes run the same lines in the same order. Rank zero alone prints and writes.
"""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.rendezvous import rendezvous

from pipeline.errors import UserError
from pipeline.processes import RankFailure, World, world_here

Value = TypeVar("Value")
# torchrun notices a process that dies at once. This is how long the others wait for one that is
# busy, such as with decoding the images of a whole collection.
TIMEOUT = datetime.timedelta(hours=2)
LOST = "another process of this training was lost", "continue with --resume"
_store: Any = None  # of torchrun, which outlives the processes


@contextmanager
def process_group() -> Iterator[World]:
    """Join the processes that torchrun started, and leave the group when all are done.

    Without torchrun, or within another `process_group`, nothing happens.

    Raises:
        RankFailure: Another process died.
    """
    world = world_here()
    if not world.distributed or dist.is_initialized():
        yield world
        return
    global _store
    _store, *_ = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        _backends(world), store=_store, rank=world.rank, world_size=world.size, timeout=TIMEOUT
    )
    try:
        yield world
        # torchrun ends all processes as soon as one ends badly, so none leaves before the last.
        barrier()
    except RuntimeError as error:
        if not _is_connection_loss(error):
            raise
        raise RankFailure(*LOST) from None
    # After a failure the group is left as it is: destroying it would wait for the others.
    dist.destroy_process_group()


def _backends(world: World) -> str:
    if not torch.cuda.is_available():
        return "gloo"
    # NCCL refuses two processes on one GPU.
    own_gpu = world.local_size <= torch.cuda.device_count() and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if own_gpu else "cpu:gloo,cuda:gloo"


def _is_connection_loss(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    text = str(error)  # gloo raises plain RuntimeErrors
    return "gloo" in text or "Connection closed by peer" in text


def is_first_to_call(purpose: str) -> bool:
    """Return whether no other rank has called this for the same purpose."""
    try:
        return _store is None or bool(_store.add(purpose, 1) == 1)
    except RuntimeError:  # torchrun is gone, and with it whoever would read what is printed
        return True


def is_rank_zero() -> bool:
    """Whether this process prints and writes for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


def select_gpu(world: World) -> None:
    """Make the GPU of this process the current one: one for each process of a machine."""
    if world.distributed:
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())


def broadcast(value: Value) -> Value:
    """Return rank zero's value on every rank."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(value: Value) -> list[Value]:
    """Return the values of all ranks, in their order, on every rank."""
    if not dist.is_initialized():
        return [value]
    # Pickled objects: shards differ in length, which all_gather of tensors does not allow.
    values: list[Value | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return cast("list[Value]", values)


def gather_shards(shard: NDArray[np.float32]) -> NDArray[np.float32]:
    """Concatenate the shards that `World.shard` cut, on every rank.

    Args:
        shard: (n, ...) of this rank; n may differ between ranks and may be 0.

    Returns:
        (N, ...), each item once and in its original order.
    """
    return np.concatenate(all_gather(shard))


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # unlike dist.barrier, on the processor with every backend


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise on every rank what the block raises on one, so that no rank waits for one that is gone.

    The block must hold no collective.

    Raises:
        UserError: Of the lowest rank that failed; its rank is named unless it is zero.
    """
    failure: UserError | None = None
    try:
        yield
    except UserError as error:
        failure = error
    for rank, found in enumerate(all_gather(failure)):
        if found is not None:
            raise found if not rank else UserError(f"rank {rank}: {found.problem}", found.remedy)


def on_rank_zero(function: Callable[[], Value]) -> Value:
    """Call a function on rank zero alone and return its result on every rank.

    Raises:
        UserError: What rank zero raised, on every rank.
    """
    results: list[Value] = []
    with raise_on_all_ranks():
        if is_rank_zero():
            results.append(function())
    return broadcast(results)[0]


def rank_zero_first(function: Callable[[], Value]) -> Value:
    """Call a function on rank zero, then on the others, which find what it left in a cache.

    Where ranks have no disk in common each fills a cache of its own.

    Raises:
        UserError: What one of them raised, on every rank.
    """
    results: list[Value] = []
    for rank_zero in (True, False):
        with raise_on_all_ranks():
            if is_rank_zero() is rank_zero:
                results.append(function())
    return results[0]


def require_equal(value: object, name: str) -> None:
    """Refuse to continue where ranks do not see the same.

    Args:
        value: What this rank sees.
        name: What it is, for the message: "checkpoint".

    Raises:
        UserError: They differ; on every rank.
    """
    if any(other != value for other in all_gather(value)):
        raise UserError(
            f"the processes do not see the same {name}",
            "put --data and --runs where all machines see them under the same path",
        )
