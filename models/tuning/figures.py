"""The course of a search as SVG and PNG: history, importance, slices, parallel coordinates."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.evaluation.figures import FOLDER, GREY, SIZE, STYLE, TEST, VAL, lay_out, save
from models.tuning.result import COMPLETE, FAILED, PRUNED, Entry, Search
from models.tuning.search_space import Parameter

COLUMNS = 3  # panels beside each other
PANEL = (2.6, 2.1)  # inches
MARKS = {COMPLETE: ("o", TEST), PRUNED: ("x", GREY)}


def write_figures(folder: Path, search: Search, importance: Mapping[str, float]) -> None:
    """Write the figures of a search into `folder/figures`.

    Args:
        folder: The study's folder.
        search: With at least one complete trial.
        importance: Share of the variance that each hyper-parameter explains; empty where there
            are too few trials to tell.
    """
    from matplotlib import rc_context  # here, so that the first trial begins a second earlier

    drawings: dict[str, Callable[[], Any]] = {
        "tuning-history": lambda: _history(search),
        "tuning-slices": lambda: _slices(search),
        "tuning-parallel": lambda: _parallel(search),
    }
    if importance:
        drawings["tuning-importance"] = lambda: _importance(search, importance)
    with rc_context(STYLE):
        for name, draw in drawings.items():
            figure = draw()
            lay_out(figure)
            save(figure, folder / FOLDER / name)


def _figure(
    width: float, height: float, title: str, layout: Literal["constrained"] | None = "constrained"
) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    # A layout makes room for a title only where it may place it.
    place = {} if layout else {"y": 1 - 0.1 / height, "va": "top"}
    figure.suptitle(title, fontsize=9, **place)
    return figure


def _scored(search: Search) -> list[Entry]:
    return [one for one in search.entries if one.area is not None and one.state != FAILED]


def _history(search: Search) -> Any:
    figure = _figure(*SIZE, f"{search.facts['model']}: search")
    axes = figure.add_subplot()
    for state, (mark, color) in MARKS.items():
        entries = [one for one in _scored(search) if one.state == state]
        if entries:
            numbers, areas = [one.trial for one in entries], [one.area for one in entries]
            axes.plot(numbers, areas, mark, color=color, label=state, markersize=5)
    complete = sorted(search.complete, key=lambda one: one.trial)
    best = np.maximum.accumulate([one.area or 0.0 for one in complete])
    axes.step(
        [one.trial for one in complete], best, where="post", color=TEST, linewidth=1, label="best"
    )
    if search.own:
        axes.axhline(search.own.area or 0.0, color=VAL, linestyle="--", linewidth=1,
                     label="the model's own values")  # fmt: skip
    axes.set(xlabel="Trial", ylabel="Validation AUC")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _importance(search: Search, importance: Mapping[str, float]) -> Any:
    figure = _figure(*SIZE, f"{search.facts['model']}: importance of hyper-parameters")
    axes = figure.add_subplot()
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh(names, [importance[name] for name in names], color=TEST)
    axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=8)
    axes.set(
        xlabel="Share of the variance of validation AUC", xlim=(0, 1.1 * max(importance.values()))
    )
    return figure


def _slices(search: Search) -> Any:
    rows = math.ceil(len(search.space) / COLUMNS)
    height = rows * PANEL[1]
    # A dozen panels that are alike need no layout engine, which would take most of the time.
    figure = _figure(COLUMNS * PANEL[0], height, f"{search.facts['model']}: each value", None)
    figure.subplots_adjust(0.09, 0.6 / height, 0.98, 1 - 0.35 / height, 0.2, 0.6)
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat
    scored = _scored(search)
    for axes, parameter in zip(panels, search.space, strict=False):
        for state, (mark, color) in MARKS.items():
            points = [
                (one.params[parameter.name], one.area)
                for one in scored
                if one.state == state and parameter.name in one.params
            ]
            places = _places(parameter, [value for value, _ in points])
            axes.plot(places, [area for _, area in points], mark, color=color, markersize=4)
        _scale(axes, parameter)
        axes.set_xlabel(parameter.name)
    for axes in panels[len(search.space) :]:
        axes.set_visible(False)
    figure.supylabel("Validation AUC", fontsize=9, x=0.005)
    return figure


def _scale(axes: Any, parameter: Parameter) -> None:
    if parameter.choices:
        names = [str(choice).removeprefix("features.") for choice in parameter.choices]
        small = sum(map(len, names)) > 16
        axes.set_xticks(range(len(names)), names, fontsize=6.5 if small else 9)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    if parameter.kind == "int":
        axes.set_xticks(range(int(parameter.low), int(parameter.high) + 1))
        axes.set_xlim(parameter.low - 0.5, parameter.high + 0.5)
        return
    if parameter.log:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xlim(parameter.low, parameter.high)


def _places(parameter: Parameter, values: Sequence[Any]) -> list[float]:
    """Return where values stand on the axis of their hyper-parameter."""
    if parameter.choices:
        return [float(parameter.choices.index(value)) for value in values]
    return [float(value) for value in values]


def _height(parameter: Parameter, value: Any) -> float:
    """Return where a value stands between the ends of its hyper-parameter, in [0, 1]."""
    place = _places(parameter, [value])[0]
    if parameter.choices:
        return place / max(len(parameter.choices) - 1, 1)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        place, low, high = math.log(place), math.log(low), math.log(high)
    return (place - low) / (high - low)


def _parallel(search: Search) -> Any:
    import matplotlib

    space, scored = search.space, sorted(_scored(search), key=lambda one: one.area or 0.0)
    figure = _figure(
        max(SIZE[0], 0.95 * len(space)), SIZE[1], f"{search.facts['model']}: where the best are"
    )
    axes = figure.add_subplot()
    areas = [one.area or 0.0 for one in scored]
    scale = matplotlib.colors.Normalize(min(areas), max(areas))
    colors = matplotlib.colormaps["viridis_r"]  # the best are dark
    for one in scored:
        # Where a hyper-parameter did not apply, the line has a gap.
        heights = [
            _height(parameter, one.params[parameter.name])
            if parameter.name in one.params
            else math.nan
            for parameter in space
        ]
        axes.plot(
            range(len(space)),
            heights,
            color=colors(scale(one.area or 0.0)),
            linewidth=1,
            marker=".",
        )
    for place, parameter in enumerate(space):
        ends = (
            (str(parameter.choices[0]), str(parameter.choices[-1]))
            if parameter.choices
            else (f"{parameter.low:g}", f"{parameter.high:g}")
        )
        for height, text in zip((-0.05, 1.05), ends, strict=True):
            axes.text(place, height, text, ha="center", va="center", fontsize=7)
        axes.axvline(place, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xticks(range(len(space)), [one.name for one in space], rotation=30, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.spines["left"].set_visible(False)
    figure.colorbar(
        matplotlib.cm.ScalarMappable(scale, colors), ax=axes, label="Validation AUC", aspect=40
    )
    return figure
