"""The figures that evaluation and searches drew: shown on the page, and copied beside it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any
from xml.etree import ElementTree

from interface.report.images import data_uri
from interface.report.scores import Interval
from interface.report.sheets import Note, Sheet, SheetRow, cell_text
from pipeline.records import atomic

FOLDER = "figures"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"  # as matplotlib writes it into SVG
BLUE, ORANGE, GREY = "#0b5394", "#b45f06", "#666666"
RUN_FIGURES = {
    "roc": "ROC curve",
    "pr": "Precision-recall curve",
    "reliability": "Reliability on test",
    "decision": "Decision curve on test",
    "probabilities": "Probabilities on test",
    "history": "Training",
}


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its heading, what it shows in words, and its data URI."""

    title: str
    description: str
    source: str


def pictures_of(folder: Path, titles: Mapping[str, str]) -> list[Picture]:
    """Return those of the figures below a run or study that are there, in the order of titles."""
    return [
        Picture(title, _description(path) or title, data_uri("image/svg+xml", path.read_bytes()))
        for name, title in titles.items()
        if (path := folder / FOLDER / f"{name}.svg").is_file()
    ]


def _description(path: Path) -> str:
    try:
        return ElementTree.parse(path).getroot().findtext(f".//{DESCRIPTION}") or ""
    except ElementTree.ParseError:
        return ""


def copy_figures(source: Path, target: Path) -> None:
    """Copy all figures of a run or study."""
    for path in sorted((source / FOLDER).glob("[!.]*.*")):
        if path.suffix in (".svg", ".png"):
            with atomic(target / path.name) as temporary:
                shutil.copyfile(path, temporary)


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
        first = row.cells[0]
        figures = cell_text(first) if isinstance(first, Interval | Note) else ""
        name = f"{row.part}, {row.head}" if leveled else row.head
        labels.append((place, f"{shorten(name, 50, placeholder=' ...')}  {figures}"))
        place += 1
    return labels
