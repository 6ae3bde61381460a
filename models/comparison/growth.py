"""The figure of how costs grow with the side of images and with their number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.comparison.costs import Costs, Range
from models.evaluation.figures import FOLDER, STYLE, lay_out, save

FIGURE = "growth"
PANELS = {
    "step": ("Training step", "Side of the images, pixels", "Seconds"),
    "forward": ("Forward pass", "Side of the images, pixels", "Seconds"),
    "step_memory": ("Memory of a training step", "Side of the images, pixels", "MB"),
    "epoch": ("Epoch", "Images of 64 pixels", "Seconds"),
}
COLORS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#666666", "#134f5c", "#990000", "#7f6000")
MARKS = "osD^vP*X"
SIZE = (9.0, 8.6)  # inches
MEGA = 1e6


def power_text(found: Range) -> str:
    """Return a slope for people: "1.93 (1.80 to 2.06)", or "-"."""
    if found.value != found.value:
        return "-"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def draw_growth(folder: Path, costs: Costs, titles: Mapping[str, str]) -> None:
    """Draw costs against sizes on logarithmic axes, as `folder/figures/growth`.{svg,png}.

    Args:
        folder: Of the comparison.
        costs: What was measured.
        titles: What the kinds of networks are called, by key.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
        for axes, what in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            _draw(axes, what, costs, titles)
        lay_out(figure)
        save(figure, folder / FOLDER / FIGURE, "Costs of networks against the size of their input")


def _draw(axes: Any, what: str, costs: Costs, titles: Mapping[str, str]) -> None:
    title, below, beside = PANELS[what]
    unit = MEGA if beside == "MB" else 1
    for place, (key, name) in enumerate(titles.items()):
        found = costs.medians(key, what)
        if not found:
            continue
        slope = costs.slope(key, what)
        axes.plot(
            list(found), [value / unit for value in found.values()],
            color=COLORS[place % len(COLORS)], marker=MARKS[place % len(MARKS)], markersize=4,
            linestyle="-" if place < len(COLORS) else "--",
            label=f"{name}: {power_text(slope)}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=below, ylabel=beside, title=title)
    axes.xaxis.set_minor_formatter("")
    axes.xaxis.set_major_formatter("{x:g}")
    sizes = sorted({size for key in titles for size in costs.medians(key, what)})
    axes.set_xticks(sizes)
    if sizes:
        axes.legend(fontsize=7, frameon=False, title="slope (95 % interval)", title_fontsize=7)
    axes.title.set_fontsize(9)
