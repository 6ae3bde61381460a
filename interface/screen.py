"""What the terminal shows: bars, tables, panels. The only place that draws."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
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
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from interface.flags import command
from pipeline.errors import UserError
from pipeline.interrupts import raise_if_interrupted
from pipeline.options import applies, defaults, items_of, shown_for, spec_of
from pipeline.paths import from_here
from pipeline.processes import as_started
from pipeline.progress import Advance, Cell, Result, Table
from pipeline.records import SET_ASIDE
from pipeline.workspace import Workspace

LOG_WIDTH = 120  # columns of what is written to a log
NOTEBOOK_WIDTH = 88  # columns below a cell of a notebook
REDRAWN = 0.2  # seconds between two states of a bar in a notebook
TALL = 34  # lines of a terminal from which the menu shows a panel
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


class _Spot:
    """A place in a notebook's output whose text is replaced; it is made when first written to.

    The bars of rich need ipywidgets there, and a saved notebook does not hold what those showed.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = 0.0

    def show(self, text: Callable[[], str], at_once: bool = True) -> None:
        """Replace its text; unless at once, not more than some times a second."""
        if not at_once and time.monotonic() - self._drawn < REDRAWN:
            return
        self._drawn = time.monotonic()
        self._write({"text/plain": text()})

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._handle:
            self._write({"text/html": "", "text/plain": ""})

    def _write(self, content: Mapping[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class _Console(Console):
    """A console that leaves it to main.py to end where the reader of its output is gone."""

    def on_broken_pipe(self) -> None:
        """Let the error travel up; rich would end with the status of a mistake."""
        raise BrokenPipeError


class Screen:
    """The terminal as a stage's Progress, and as the place where results are shown.

    In a notebook lines are plain text, and a bar is one line that is drawn anew.
    """

    def __init__(
        self,
        to_stderr: bool = False,
        quiet: bool = False,
        log: Path | None = None,
        words: Sequence[str] = (),
    ) -> None:
        """Draw on stdout, on stderr where stdout is for the result as JSON, or nowhere.

        Args:
            to_stderr: Whether it is.
            quiet: Whether this is one of several processes, and another one draws.
            log: A file to write what is shown to as well, after what stands there.
            words: The command line, as the log may hold it.

        Raises:
            UserError: It cannot be written.
        """
        self.console = _Console(stderr=to_stderr, quiet=quiet, highlight=False)
        self._spot: _Spot | None = None
        if self.console.is_jupyter:
            self._spot = None if quiet else _Spot()
            self.console = _Console(
                quiet=quiet, highlight=False, width=NOTEBOOK_WIDTH, force_jupyter=False,
                force_terminal=False,
            )  # fmt: skip
        self._log = None if quiet else log
        self._to_log(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(words)}", markup=False)
        self._columns: tuple[str, ...] = ()

    @contextmanager
    def logging_errors(self) -> Iterator[None]:
        """Write to the log why the block ended early; main.py shows it."""
        try:
            yield
        except (UserError, KeyboardInterrupt) as error:
            self._to_log(as_started(str(error) or "stopped"), markup=False)
            raise

    def _print(self, *parts: Any, **how: Any) -> None:
        self.console.print(*parts, **how)
        self._to_log(*parts, **how)

    def _to_log(self, *parts: Any, **how: Any) -> None:
        if self._log is None:
            return
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                Console(file=file, width=LOG_WIDTH, highlight=False).print(*parts, **how)
        except OSError as error:
            problem = f"{self._log}: cannot be written ({error.strerror})"
            raise UserError(problem, "give another --log-file") from None

    @contextmanager
    def track(self, text: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Show a bar with rate and time left; see pipeline.progress.Progress."""
        # A bar that comes back every epoch clears itself; the epoch's row stays.
        passing, spot = unit == "batches", self._spot
        if not total or (passing and not self.console.is_terminal and not spot):
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
        bar = Progress(
            *columns, console=self.console, transient=passing, expand=True, disable=bool(spot)
        )
        if not passing:
            self._to_log(f"{text}: {total:,} {unit}", markup=False)
        with bar, nullcontext() if spot is None else self._in_spot(spot, bar, passing):
            task = bar.add_task(text, total=total, completed=done, done=done)

            def advance(steps: int) -> None:
                raise_if_interrupted()
                bar.advance(task, steps)
                if spot:
                    spot.show(lambda: self._text_of(bar), at_once=False)

            yield advance

    @contextmanager
    def _in_spot(self, spot: _Spot, bar: Progress, passing: bool) -> Iterator[None]:
        """Take the bar away as the block ends; what is worth a line stays as one."""
        try:
            yield
        finally:
            spot.clear()
            if not passing:
                self.console.print(bar)

    def _text_of(self, drawn: Any) -> str:
        with self.console.capture() as captured:
            self.console.print(drawn)
        return captured.get().rstrip()

    def say(self, text: str) -> None:
        """Show one line that the person should read."""
        # A command or a path is copied whole; prose breaks between words.
        breaks = self.console.is_terminal or self._spot
        whole = not breaks or "python " in text or "/" in text
        self._print(as_started(text), soft_wrap=whole, markup=False)

    def row(self, cells: Mapping[str, Cell], best: bool = False) -> None:
        """Add a row to the running table; its head is drawn where the columns change."""
        columns = tuple(cells)
        if columns != self._columns:
            self._columns = columns
            self.say("".join(f"{name:>{_width(name)}}" for name in columns))
        text = "".join(f"{cell_text(value):>{_width(name)}}" for name, value in cells.items())
        self._print(f"{text}  best" if best else text, style="bold" if best else "")

    def heading(self, text: str) -> None:
        """Begin a part of a longer run: a stage of several, a training of several."""
        self._columns = ()
        self._print()
        self._print(Rule(Text(text, style="bold"), align="left", style="dim"))

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """Show that something is on its way while the block runs."""
        return self.console.status(text) if self._spot is None else self._waiting(self._spot, text)

    @contextmanager
    def _waiting(self, spot: _Spot, text: str) -> Iterator[None]:
        spot.show(lambda: text)
        try:
            yield
        finally:
            spot.clear()

    def table(self, table: Table) -> None:
        """Draw a table: text to the left, numbers to the right."""
        self._print(self._drawn(table))

    def text_of_table(self, table: Table) -> str:
        """Return what `table` would show."""
        return self._text_of(self._drawn(table))

    def _drawn(self, table: Table) -> RichTable:
        # A title may be wider than its table, but not than the terminal.
        fits = len(table.title) <= self.console.width
        title = Text(table.title, "bold", no_wrap=fits, overflow="ignore" if fits else "fold")
        drawn = RichTable(title=title, title_justify="left")
        drawn.box = SIMPLE_HEAD
        for index, name in enumerate(table.columns):
            numeric = all(not isinstance(row[index], str) for row in table.rows)
            drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(cell_text(value)) for value in row))
        return drawn

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
            shown = shown_for(item, value) or "-"
            drawn.add_row(Text(spec.text, style="dim"), Text(shown), Text(changed))
        if hidden:
            drawn.add_row(Text(f"{hidden} advanced options", style="dim"), Text("by default"))
        title = f"[bold]{stage}[/]"
        self._print(Panel(drawn, title=title, title_align="left", border_style="dim"))
        self._print("The same as one command:", style="dim")
        self.say(f"  {command(stage, options)}")

    def result(self, result: Result, next_command: str, seconds: float) -> None:
        """Show what a stage made, what it could not use, and what comes next."""
        self._columns = ()
        for table in result.tables:
            self.table(table)
        self._print(f"[bold]{_escaped(as_started(result.headline))}[/]", soft_wrap=True)
        for note in result.notes:
            self.say(f"Note: {note}")
        if result.folder is None:
            self.say(f"After {duration(seconds)}.")
        else:
            if result.set_aside:
                where = from_here(result.folder) / result.listed_in
                what = "Set aside" if result.listed_in == SET_ASIDE else "Listed"
                self.say(f"{what}: {result.set_aside:,}, each with its reason in {where}")
            self.say(f"In {from_here(result.folder)}, after {duration(seconds)}.")
        if next_command:
            self.say(f"Next: {next_command}")

    def text_of_result(
        self, result: Result, next_command: str, seconds: float, notice: bool
    ) -> str:
        """Return what `result`, and `notice` before it, would show."""
        with self.console.capture() as captured:
            if notice:
                self.notice()
            self.result(result, next_command, seconds)
        return captured.get().rstrip()

    def notice(self) -> None:
        """Say what the figures are not for; shown with every score."""
        self._print(NOTICE, style="dim")

    def home(self, state: Workspace) -> None:
        """Show where the work stands; in a line where a panel would hide what stands above it."""
        if self.console.height < TALL:
            self._print(f"\n[bold]Mammolab[/]  {_escaped(state.brief)}")
            return
        drawn = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, text in state.lines:
            drawn.add_row(Text(name, style="bold"), Text(text))
        self._print()
        self._print(Panel(drawn, title="[bold]Mammolab[/]", title_align="left"))
        self.notice()


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _width(name: str) -> int:
    return max(len(name) + 2, 8)


def cell_text(value: Cell) -> str:
    """Write a cell of a table: three decimals, thousands apart, "-" for nothing."""
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "-"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def duration(seconds: float) -> str:
    """Write a time as people read it: "12.3 s", "05:20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return time.strftime("%H:%M:%S" if seconds >= 3600 else "%M:%S min", time.gmtime(seconds))
