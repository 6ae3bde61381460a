"""What the terminal shows: bars, tables, panels. The only place that draws."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from interface.flags import command
from pipeline.interrupts import raise_if_interrupted
from pipeline.options import applies, as_text, defaults, items_of, spec_of
from pipeline.progress import Advance, Cell, Result, Table
from pipeline.records import SET_ASIDE

NOTICE = "Research software. Not a medical device; not for diagnosis."


class _Rate(ProgressColumn):
    """Steps a second of this run; what an earlier run did does not count."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0
        steps = task.completed - task.fields["done"]
        if elapsed < 0.5 or steps <= 0:
            return Text("")
        rate = steps / elapsed
        text = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return Text(text, style="dim")


class Screen:
    """The terminal as a stage's Progress, and as the place where results are shown."""

    def __init__(self, to_stderr: bool = False, quiet: bool = False) -> None:
        """Draw on stdout, on stderr where stdout is for the result as JSON, or nowhere.

        Args:
            to_stderr: Whether it is.
            quiet: Whether this is one of several processes, and another one draws.
        """
        self.console = Console(stderr=to_stderr, quiet=quiet, highlight=False)
        self._columns: tuple[str, ...] = ()

    @contextmanager
    def track(self, text: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Show a bar with rate and time left; see pipeline.progress.Progress."""
        # A bar that comes back every epoch clears itself; the epoch's row stays.
        passing = unit == "batches"
        if not total or (passing and not self.console.is_terminal):
            yield lambda _steps: raise_if_interrupted()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Rate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        bar = Progress(*columns, console=self.console, transient=passing, expand=True)
        with bar:
            task = bar.add_task(text, total=total, completed=done, done=done)

            def advance(steps: int) -> None:
                raise_if_interrupted()
                bar.advance(task, steps)

            yield advance

    def say(self, text: str) -> None:
        """Show one line that the person should read."""
        # A command or a path is copied whole; prose breaks between words.
        whole = not self.console.is_terminal or "python " in text or "/" in text
        self.console.print(text, soft_wrap=whole, markup=False)

    def row(self, cells: Mapping[str, Cell], best: bool = False) -> None:
        """Add a row to the running table; its head is drawn where the columns change."""
        columns = tuple(cells)
        if columns != self._columns:
            self._columns = columns
            self.say("".join(f"{name:>{_width(name)}}" for name in columns))
        text = "".join(f"{_cell(value):>{_width(name)}}" for name, value in cells.items())
        self.console.print(f"{text}  best" if best else text, style="bold" if best else "")

    def heading(self, text: str) -> None:
        """Begin a part of a longer run: a stage of several, a training of several."""
        self._columns = ()
        self.console.print()
        self.console.rule(f"[bold]{text}[/]", align="left", style="dim")

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """Show that something is on its way while the block runs."""
        return self.console.status(text)

    def table(self, table: Table) -> None:
        """Draw a table: text to the left, numbers to the right."""
        drawn = RichTable(title=table.title, title_justify="left", title_style="bold")
        drawn.box = SIMPLE_HEAD
        for index, name in enumerate(table.columns):
            numeric = all(not isinstance(row[index], str) for row in table.rows)
            drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(_cell(value)) for value in row))
        self.console.print(drawn)

    def summary(self, stage: str, options: Any) -> None:
        """Show the answers before a stage runs, what is not the default marked, and the command.

        Advanced options are shown where they are not at their default: all would fill the screen.
        """
        standard, values = defaults(type(options)), dataclasses.asdict(options)
        drawn = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
        drawn.add_column()
        drawn.add_column(overflow="fold")  # a path that is cut short is no use
        drawn.add_column()
        hidden = 0
        for item in items_of(type(options)):
            if not applies(item, values):
                continue
            value, spec = values[item.name], spec_of(item)
            standing = value == standard[item.name]
            if standing and spec.advanced:
                hidden += 1
                continue
            changed = "" if standing else "changed"
            drawn.add_row(Text(spec.text, style="dim"), Text(as_text(value) or "-"), Text(changed))
        if hidden:
            drawn.add_row(Text(f"{hidden} advanced options", style="dim"), Text("by default"))
        title = f"[bold]{stage}[/]"
        self.console.print(Panel(drawn, title=title, title_align="left", border_style="dim"))
        self.console.print("The same as one command:", style="dim")
        self.say(f"  {command(stage, options)}")

    def result(self, result: Result, next_command: str, seconds: float) -> None:
        """Show what a stage made, what it could not use, and what comes next."""
        self._columns = ()
        for table in result.tables:
            self.table(table)
        self.console.print(f"[bold]{_escaped(result.headline)}[/]", soft_wrap=True)
        for note in result.notes:
            self.say(f"Note: {note}")
        if result.folder is None:
            self.say(f"After {_duration(seconds)}.")
        else:
            if result.set_aside:
                where = result.folder / result.listed_in
                what = "Set aside" if result.listed_in == SET_ASIDE else "Listed"
                self.say(f"{what}: {result.set_aside:,}, each with its reason in {where}")
            self.say(f"In {result.folder}, after {_duration(seconds)}.")
        if next_command:
            self.say(f"Next: {next_command}")

    def notice(self) -> None:
        """Say what the figures are not for; shown with every score."""
        self.console.print(NOTICE, style="dim")

    def home(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show where the work stands."""
        drawn = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, state in lines:
            drawn.add_row(Text(name, style="bold"), Text(state))
        self.console.print()
        self.console.print(
            Panel(drawn, title="[bold]Mammolab[/]", title_align="left", subtitle=NOTICE)
        )


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _width(name: str) -> int:
    return max(len(name) + 2, 8)


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "-"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return time.strftime("%H:%M:%S" if seconds >= 3600 else "%M:%S min", time.gmtime(seconds))
