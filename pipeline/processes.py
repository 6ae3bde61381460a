"""Which of several processes this is: what torchrun says in the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline.errors import UserError


class _Sliceable(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


Whole = TypeVar("Whole", bound=_Sliceable)


class OutOfStep(UserError):
    """One process failed where the others go on: all of them have to end, whatever is left."""


@dataclass(frozen=True)
class World:
    """The processes that work on one training, and which of them this is.

    Attributes:
        rank: This process among all of them, from 0.
        size: How many there are; 1 without torchrun.
        local_rank: This process among those on this machine, from 0.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process tells and writes what all of them have done."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def bounds(self, count: int) -> tuple[int, int]:
        """Return where this process's share of `count` things begins and ends.

        The shares follow each other by rank and differ by at most one. Where there are fewer
        things than processes, the last processes have none.
        """
        least, over = divmod(count, self.size)
        start = self.rank * least + min(self.rank, over)
        return start, start + least + (self.rank < over)

    def share(self, whole: Whole) -> Whole:
        """Return this process's share of an array or a sequence."""
        start, stop = self.bounds(len(whole))
        part: Whole = whole[start:stop]
        return part


ALONE = World()


def world_here(environment: Mapping[str, str] = os.environ) -> World:
    """Return the world that torchrun started this process in; alone where it did not.

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
