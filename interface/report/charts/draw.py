"""The figures beside the page, as SVG and PNG: those of the runs, and those that they lack."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from interface.report.charts.axes import BOTTOM, LEFT, RIGHT, TOP, Chart
from interface.report.runs import RunView
from interface.report.scores import Interval
from interface.report.sheets import Note, Sheet, SheetRow, cell_text
from pipeline.records import atomic

FOLDER = "figures"
DRAWN_BY_RUN = {"loss": "history", "validation-auc": "history"}  # two charts in one figure
BLUE, ORANGE, GREY, BLACK = "#0b5394", "#b45f06", "#666666", "#1c2126"
LINES: dict[str, dict[str, Any]] = {
    "test": {"color": BLUE, "linewidth": 1.6},
    "train": {"color": BLUE, "linewidth": 1.6},
    "val": {"color": ORANGE, "linewidth": 1.2, "linestyle": "--"},
    "error": {"color": BLUE, "linewidth": 0.8},
    "cut": {"color": BLACK, "linewidth": 1.0, "linestyle": "-."},
    "zero": {"color": GREY, "linewidth": 0.8},
    "chance": {"color": GREY, "linewidth": 0.8, "linestyle": ":"},
    "malignant": {"color": ORANGE, "linewidth": 6},
    "benign": {"color": "#5f7f9c", "linewidth": 6},
    "band": {"color": BLUE, "linewidth": 6, "alpha": 0.2},
}


def copy_figures(run: RunView, folder: Path) -> set[str]:
    """Copy the figures that evaluation drew of a run.

    Returns:
        Their names, without suffix.
    """
    found = set()
    for path in sorted((run.folder / FOLDER).glob("*.*")):
        if path.suffix in (".svg", ".png") and not path.name.startswith("."):
            with atomic(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
            found.add(path.stem)
    return found


def draw_charts(run: RunView, charts: Iterable[Chart], folder: Path) -> None:
    """Write the charts of a run: those that evaluation drew are copied, the others drawn."""
    from matplotlib import rc_context

    from models.evaluation.figures import STYLE

    there = copy_figures(run, folder)
    with rc_context(STYLE):
        for chart in charts:
            if not {chart.key, DRAWN_BY_RUN.get(chart.key)} & there:
                _draw_chart(chart, run.title, folder)


def _draw_chart(chart: Chart, title: str, folder: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from models.evaluation.figures import SIZE, save

    dots = [dot for dot in chart.dots if dot.text]
    room = 0.17 * (
        len(chart.legend) + len(dots)
    )  # inches; a layout engine would take most of the time
    width, height = SIZE[0], SIZE[1] + room
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0.15, (room + 0.65) / height, 0.81, 1 - (room + 0.95) / height))
    for area in chart.areas:
        axes.fill(*zip(*area.points, strict=True), color=BLUE, alpha=0.2, linewidth=0)
    for bar in chart.bars:
        color = LINES[bar.kind]["color"]
        axes.bar(bar.x, bar.height, bar.width, bar.y, align="edge", color=color)
    for line in chart.lines:
        axes.plot(*zip(*line.points, strict=True), **LINES[line.kind])
    for dot in chart.dots:
        axes.plot(dot.x, dot.y, "o", color=BLUE, markersize=5)
    axes.set(xlim=(LEFT - 4, RIGHT + 4), ylim=(BOTTOM + 4, TOP - 4))
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.set_xticks([t.at for t in chart.x_ticks], [t.text for t in chart.x_ticks])
    axes.set_yticks([t.at for t in chart.y_ticks], [t.text for t in chart.y_ticks])
    axes.set_title(f"{title}: {chart.name}", fontsize=9)
    keys = [Line2D([], [], **LINES[kind]) for kind, _ in chart.legend]
    keys += [Line2D([], [], color=BLUE, marker="o", linestyle="", markersize=5) for _ in dots]
    texts = [*(text for _, text in chart.legend), *(dot.text for dot in dots)]
    figure.legend(keys, texts, loc="lower center", frameon=False, fontsize=7)
    save(figure, folder / chart.key)


def draw_forest(sheet: Sheet, path: Path) -> None:
    """Draw the first figure of each row of a table with its interval."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from models.evaluation.figures import STYLE, save

    assert sheet.forest is not None
    rows = [row for row in sheet.rows if row.whisker is not None]
    scale = sheet.forest.scale
    with rc_context(STYLE):
        height = 1.2 + 0.24 * (len(rows) + len({row.part for row in rows}))
        figure = Figure(figsize=(7.2, height), facecolor="white")
        axes = figure.add_axes((0.5, 0.5 / height, 0.48, 1 - 0.6 / height))
        for place, (_, left, right) in enumerate(sheet.forest.bands):
            axes.axvspan(left, right, color=(ORANGE, BLUE)[place % 2], alpha=0.12, linewidth=0)
        axes.axvline(sheet.forest.chance, color=GREY, linewidth=0.8, linestyle=":")
        labels = _draw_rows(axes, rows)
        axes.set_yticks([place for place, _ in labels], [text for _, text in labels], fontsize=7)
        axes.set(ylim=(labels[-1][0] + 0.7, labels[0][0] - 0.7), xlabel=sheet.forest.title)
        axes.set(xlim=(scale.start, scale.end))
        axes.set_xticks([t.at for t in sheet.forest.ticks], [t.text for t in sheet.forest.ticks])
        save(figure, path)


def _draw_rows(axes: Any, rows: Sequence[SheetRow]) -> list[tuple[float, str]]:
    """Draw whiskers from the top down, with room before each part; return places and labels."""
    labels: list[tuple[float, str]] = []
    place = 0.0
    leveled = len({row.part for row in rows}) > 2  # heads such as "2" need the factor's name
    for before, row in zip((None, *rows), rows, strict=False):
        if before is not None and before.part != row.part:
            place += 0.8
        found = row.whisker
        assert found is not None
        color = GREY if row.kind else BLUE
        axes.plot([found.low, found.high], [place, place], color=color, linewidth=1.4)
        axes.plot(found.value, place, "o", color=color, markersize=4)
        figures = row.cells[0]
        said = cell_text(figures) if isinstance(figures, (Interval, Note)) else ""
        name = f"{row.part}, {row.head}" if leveled else row.head
        labels.append((place, f"{shorten(name, 50, placeholder=' ...')}  {said}"))
        place += 1
    return labels
