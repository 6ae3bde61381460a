"""How this process was started: by which command, and as which rank by torchrun."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.errors import UserError


class _Sliceable(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


Items = TypeVar("Items", bound=_Sliceable)
PLAIN = "python main.py"  # as commands stand in messages
# Threads that spin while they wait take the core that another program needs: beside one a step of
# training took five times as long, not twice. OpenMP's, and OpenBLAS's, which as numpy loads spin
# for 22 ms each on every other core, now for 0.3 ms (2^20 cycles).
WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "OPENBLAS_THREAD_TIMEOUT": "20"}
SCRIPTS = ("main.py", "organize_data.py", "preprocess_data.py")


class RankFailure(UserError):
    """One rank failed while the others continue: all of them have to end."""


@dataclass(frozen=True)
class World:
    """The processes that torchrun started for one training, and which of them this is."""

    rank: int = 0  # this process among all of them, from 0
    size: int = 1  # how many there are; 1 without torchrun
    local_rank: int = 0  # this process among those on this machine, from 0
    local_size: int = 1  # how many there are on this machine

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1

    def shard(self, items: Items) -> Items:
        """Return this rank's part of an array or a sequence.

        The parts follow each other by rank, without overlap or padding, and differ in length by
        at most one; with fewer items than ranks the last ones are empty.
        """
        least, extra = divmod(len(items), self.size)
        start = self.rank * least + min(self.rank, extra)
        part: Items = items[start : start + least + (self.rank < extra)]
        return part


def world_here(environment: Mapping[str, str] = os.environ) -> World:
    """Return what torchrun says in the environment; one process where it said nothing.

    Raises:
        UserError: The environment contradicts itself.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return World()
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        rank, size, local_rank, local_size = -1, 0, 0, 0
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        found = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise UserError(
            f"{found}: these environment variables contradict each other", "start it with torchrun"
        )
    return World(rank, size, local_rank, local_size)


def leave_cores_to_others() -> None:
    """Have threads of libraries that load from now on not spin while they wait.

    It is read when torch and numpy load; what a person has set wins.
    """
    for name, value in WAITS.items():
        os.environ.setdefault(name, value)


def program() -> str:
    """Return how to start the program from where the person is: "python ../lab/main.py"."""
    started = Path(sys.argv[0])
    if started.name not in SCRIPTS:  # a test, or another program
        return PLAIN
    return f"python {shlex.quote(str(started.with_name('main.py')))}"


def as_started(text: str) -> str:
    """Return a message whose commands start the program as it was started."""
    return text.replace(PLAIN, program())
