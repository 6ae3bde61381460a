"""A table of the report: the template draws it, and it is written beside the page."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from interface.report.reading.runs import RunView
from interface.report.reading.scores import NONE, Interval
from pipeline.records import write_table, write_text

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "\u00a0": "~", "\u2013": "--", "\u2212": "$-$", "\u00b1": r"$\pm$", "\u00d7": r"$\times$",
    "\u2265": r"$\geq$", "\u2264": r"$\leq$", "\u2026": r"\dots{}", "\u00b7": r"$\cdot$",
}  # fmt: skip


@dataclass(frozen=True)
class Note:
    """A cell with a second, smaller line; `strong` where it says more than chance."""

    value_text: str
    range_text: str = ""
    strong: bool = False


Cell = str | int | float | None | Interval | Note


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] in data units to [start, end] in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis; `at` in pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Whisker:
    """An interval on the scale of its table, in pixels."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Forest:
    """The scale on which a table's whiskers are drawn."""

    title: str  # what is drawn, for who cannot see it
    scale: Scale  # from the figure to pixels
    ticks: tuple[Tick, ...]  # of the scale
    chance: float  # where a model that guesses lies, in pixels
    # (CSS class, left, right) in pixels, drawn behind the whiskers.
    bands: tuple[tuple[str, float, float], ...] = ()

    @property
    def width(self) -> float:
        """Of the drawing, in pixels."""
        return self.scale.end + self.scale.start

    def whisker(self, found: Interval) -> Whisker | None:
        """Draw an interval; None where there is no figure."""
        if found.value is None:
            return None
        low = found.value if found.low is None else found.low
        high = found.value if found.high is None else found.high
        return Whisker(*(self.scale(max(value, self.scale.low)) for value in
                         (low, found.value, high)))  # fmt: skip


def forest_of(
    title: str, intervals: Sequence[Interval], width: float = 150, floor: float = 0.4
) -> Forest:
    """Return a scale that AUCs and their intervals fit on, down to at least `floor`."""
    lows = [found.low if found.low is not None else found.value for found in intervals]
    lowest = min([floor, *(int(low * 10) / 10 for low in lows if low is not None)])
    scale = Scale(lowest, 1.0, 6, width - 6)
    return Forest(
        title, scale, tuple(Tick(scale(auc), f"{auc:g}") for auc in (0.5, 0.75, 1.0)), scale(0.5)
    )


def rare_forest_of(title: str, intervals: Sequence[Interval], chance: float | None) -> Forest:
    """Return a scale from 0 to 1 that PR AUCs fit on, with what guessing reaches marked."""
    scale = forest_of(title, intervals, floor=0.0).scale
    ticks = tuple(Tick(scale(area), f"{area:g}") for area in (0.0, 0.5, 1.0))
    return Forest(title, scale, ticks, scale(chance or 0.0))


@dataclass(frozen=True)
class SheetRow:
    """One row."""

    head: str  # what it is of
    cells: Sequence[Cell]  # one for each column but the first
    detail: str = ""  # A second line under the head
    anchor: str = ""  # the id that the head links to; empty for no link
    part: str = ""  # the heading of the rows that it stands among; empty for none
    kind: str = ""  # its CSS class: "small" where it says little, or empty
    whisker: Whisker | None = None  # what the forest shows of it


def run_row(
    run: RunView, cells: Sequence[Cell], part: str = "", whisker: Whisker | None = None
) -> SheetRow:
    """Return the row of a run, which links to its section."""
    return SheetRow(run.title, cells, run.folder.name, run.anchor, part, whisker=whisker)


@dataclass(frozen=True)
class Sheet:
    """One table."""

    name: str  # of its files, with a folder in front where it is one run's
    caption: str  # what it shows, in a sentence or two
    columns: Sequence[str]  # headings, of the row heads too
    rows: Sequence[SheetRow]  # its rows
    forest: Forest | None = None  # drawn behind the first cell, where there is one

    @property
    def parts(self) -> Iterator[tuple[str, list[SheetRow]]]:
        """Its rows under their headings."""
        for title, rows in groupby(self.rows, key=lambda row: row.part):
            yield title, list(rows)


def cell_text(cell: Cell) -> str:
    """Return a cell as one line of text."""
    if isinstance(cell, Interval):
        return f"{cell.value_text} ({cell.range_text})" if cell.known else cell.value_text
    if isinstance(cell, Note):
        return f"{cell.value_text} ({cell.range_text})" if cell.range_text else cell.value_text
    if cell is None:
        return NONE
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else figure(cell)


def figure(value: float) -> str:
    """Return a figure to three digits or so, without an exponent."""
    if value != value:
        return NONE
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def write_sheet(folder: Path, sheet: Sheet) -> None:
    """Write a table as CSV, figures in full, and as LaTeX for booktabs, as the page shows it."""
    write_table(folder / f"{sheet.name}.csv", *_csv(sheet))
    write_text(folder / f"{sheet.name}.tex", latex(sheet))


def _csv(sheet: Sheet) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows; an interval takes three columns."""
    ranged = [
        any(isinstance(row.cells[place], Interval) for row in sheet.rows)
        for place in range(len(sheet.columns) - 1)
    ]
    grouped, detailed = (any(row.part for row in sheet.rows), any(row.detail for row in sheet.rows))
    columns = ["group"] * grouped + [sheet.columns[0]] + ["detail"] * detailed
    for title, wide in zip(sheet.columns[1:], ranged, strict=True):
        columns += [title, f"{title} low", f"{title} high"] if wide else [title]
    lines = []
    for row in sheet.rows:
        line: list[object] = [*[row.part] * grouped, row.head, *[row.detail] * detailed]
        for cell, wide in zip(row.cells, ranged, strict=True):
            if isinstance(cell, Interval):
                line += [cell.value, cell.low, cell.high]
            else:
                plain = cell_text(cell) if isinstance(cell, Note) else cell
                line += [plain, None, None] if wide else [plain]
        lines.append(line)
    return columns, lines


def latex(sheet: Sheet) -> str:
    """Return a table as LaTeX; it needs the package booktabs."""
    width = len(sheet.columns)
    heads = Counter(row.head for row in sheet.rows)
    kinds = "".join("l" if _wordy(sheet, place) else "r" for place in range(width - 1))
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(sheet.caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', sheet.name)}}}",
        rf"\begin{{tabular}}{{l{kinds}}}",
        r"\toprule",
        " & ".join(escape(title) for title in sheet.columns) + r" \\",
        r"\midrule",
    ]
    for place, (title, rows) in enumerate(sheet.parts):
        if place:
            lines.append(r"\addlinespace")
        if title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(title)}}}}} \\")
        for row in rows:
            head = row.head if heads[row.head] == 1 else f"{row.head} ({row.detail})"
            cells = [head, *(cell_text(cell) for cell in row.cells)]
            lines.append(" & ".join(escape(text) for text in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _wordy(sheet: Sheet, place: int) -> bool:
    return any(isinstance(row.cells[place], str) for row in sheet.rows)


def escape(text: str) -> str:
    """Return text with what LaTeX would take for a command escaped."""
    return "".join(LATEX.get(letter, letter) for letter in text)
