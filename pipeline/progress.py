"""What a stage reports while it works and when it is done; the faces decide how it looks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.records import SET_ASIDE

Cell = str | int | float | None
Advance = Callable[[int], None]


class Progress(Protocol):
    """Where a stage reports; it never prints itself."""

    def track(
        self, text: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Advance]:
        """Show a bar with rate and time left while the block runs; call the result to advance.

        Args:
            text: What is being done, such as "Reading headers".
            total: How many steps there are.
            unit: What one step is, in the plural: "images".
            done: How many were done by an earlier run and do not count for the rate.
        """
        ...

    def say(self, text: str) -> None:
        """Show one line that the person should read."""
        ...

    def row(self, cells: Mapping[str, Cell], best: bool = False) -> None:
        """Add a row to a running table, such as one an epoch; `best` marks the best so far."""
        ...

    def heading(self, text: str) -> None:
        """Begin a part of a longer run, such as one training of several."""
        ...

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """Show that something is on its way while the block runs, such as "Loading PyTorch ..."."""
        ...


class Silent:
    """A Progress that shows nothing, for use as a library and in tests."""

    @contextmanager
    def track(self, text: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:  # noqa: ARG002
        """Count nothing."""
        yield lambda _steps: None

    def say(self, text: str) -> None:
        """Say nothing."""

    def row(self, cells: Mapping[str, Cell], best: bool = False) -> None:
        """Show nothing."""

    def heading(self, text: str) -> None:
        """Say nothing."""

    def waiting(self, text: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Show nothing."""
        return nullcontext()


@dataclass(frozen=True)
class Table:
    """A small table for the terminal and the report: at most 80 columns wide when drawn."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Result:
    """What a stage returns."""

    folder: Path | None  # where its output lies; None where it wrote nothing
    headline: str  # one sentence that says what was made
    # The same in figures, for `--json` and for tests; values that JSON can hold.
    facts: Mapping[str, Any]
    tables: tuple[Table, ...] = ()  # what to show a person
    notes: tuple[str, ...] = ()  # warnings, one line each
    set_aside: int = 0  # how many inputs could not be used
    listed_in: str = SET_ASIDE  # the file in `folder` that lists each with its reason
    next_stage: str = ""  # the stage that comes next, or empty
    # What it should be given, by option name.
    next_options: Mapping[str, Any] = field(default_factory=dict)
