"""The curves of a run as SVG and PNG, readable in print; the report shows the same files.

White ground and dark lines, so that they also read on a dark page. The same scores give the same
bytes: no date, and fixed ids in the SVG.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Estimate
from models.evaluation.bands import (
    Band,
    benefit_band,
    enough,
    net_benefit,
    precision_band,
    reliability,
    roc_band,
)
from models.evaluation.scored import ScoredSplit, interval_text
from models.metrics import cumulated, rank
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.records import atomic
from pipeline.tables import read_table

FOLDER = "figures"
SIZE = (4.4, 4.0)  # inches
DOTS = 150  # an inch, of the PNG
TEST, VAL, GREY = "#0b5394", "#b45f06", "#666666"  # line style tells them apart in grey print
STYLE = {"svg.hashsalt": "mammolab", "svg.fonttype": "path", "font.size": 9.0,
         "axes.spines.top": False, "axes.spines.right": False}  # fmt: skip
THRESHOLDS = np.linspace(0, 0.99, 100)  # of the decision curve
BINS = 20  # of the histogram of probabilities


def write_figures(
    folder: Path,
    model: str,
    images: Mapping[str, ScoredSplit],
    raw: NDArray[np.float64],
    seed: int,
    labels: Labels,
) -> None:
    """Write the figures of an evaluated run into `folder/figures`.

    Args:
        folder: The run folder; its history.csv is drawn where it lists epochs.
        model: The model's name, for the titles.
        images: By split: test, and validation where there is one.
        raw: (N,) probabilities of the test images before calibration.
        seed: Of the bootstrap behind the bands.
        labels: What the two classes are called.
    """
    from matplotlib import rc_context  # here, so that scoring begins a second earlier
    from matplotlib.figure import Figure

    test = images["test"]
    drawings: dict[str, Callable[[Any], None]] = {
        "roc": lambda axes: draw_roc(axes, images, seed),
        "pr": lambda axes: draw_precision_recall(axes, images, seed),
        "confusion": lambda axes: draw_confusion(axes, test, labels),
    }
    drawings |= (
        {
            "reliability": lambda axes: draw_reliability(axes, test, raw, seed, labels),
            "decision": lambda axes: draw_decision(axes, test, seed, labels),
            "probabilities": lambda axes: draw_probabilities(axes, test, labels),
        }
        if test.probabilities
        else {"errors": lambda axes: draw_errors(axes, test, labels)}
    )
    history = read_history(folder / "history.csv")
    if len(history.get("epoch", ())) > 1:
        by_error = not test.probabilities
        drawings["history"] = lambda axes: draw_history(axes, history, by_error)
    with rc_context(STYLE):
        for name, draw in drawings.items():
            figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
            axes = figure.add_subplot()
            draw(axes)
            title = f"{model}: {axes.get_title()}"
            axes.set_title(title, fontsize=9)
            found = [one.get_legend_handles_labels() for one in figure.axes]
            handles, texts = ([*chain(*parts)] for parts in zip(*found, strict=True))
            if texts:
                figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False,
                              fontsize=8, columnspacing=1, handlelength=1.5)  # fmt: skip
                title += ". " + "; ".join(texts)
            lay_out(figure)
            save(figure, folder / FOLDER / name, title)


def lay_out(figure: Any) -> None:
    """Lay a figure out once, not again for every file that it is written to."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    # "none" would leave an engine that does nothing, and have each file drawn twice because of it.
    figure.set_layout_engine(None)


def save(figure: Any, path: Path, description: str = "") -> None:
    """Write a figure as `path`.svg and `path`.png, each whole or not at all.

    The SVG holds the description, for who cannot see the figure.
    """
    texts = {"Date": None} | ({"Description": description} if description else {})
    for suffix, metadata in ((".svg", texts), (".png", {"Software": None})):
        with atomic(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=DOTS, metadata=metadata, transparent=False)


def _curves(scored: ScoredSplit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return true and false positives (K + 1,) for falling thresholds, in images, from 0 on."""
    ones = np.ones((1, len(scored.scores)))
    _, positives, negatives = cumulated(scored.targets, scored.scores, ones)
    return np.append(0, positives[0]), np.append(0, negatives[0])


def _label(name: str, estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return f"{name}: one class only"
    known = not np.isnan(estimate.low)
    interval = f" ({interval_text(estimate.low, estimate.high)})" if known else ""
    return f"{name}: {estimate.value:.3f}{interval}"


def _lines(images: Mapping[str, ScoredSplit]) -> Iterator[tuple[str, ScoredSplit, str, str]]:
    """Yield name, scores, colour and line style of each split."""
    for split, name, color, line in (("test", "Test", TEST, "-"), ("val", "Validation", VAL, "--")):
        if split in images:
            yield name, images[split], color, line


def _fill(axes: Any, band: Band) -> None:
    axes.fill_between(band.x, band.low, band.high, color=TEST, alpha=0.18, linewidth=0,
                      label="95 % band, over patients")  # fmt: skip


def _unit_square(axes: Any) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))


def draw_roc(axes: Any, images: Mapping[str, ScoredSplit], seed: int) -> None:
    """Draw the ROC curves of both splits, the band and the operating point of test."""
    test = images["test"]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="guessing")
    for name, scored, color, line in _lines(images):
        true, false = _curves(scored)
        label = _label(f"{name} AUC", scored.estimates["auc"])
        if scored.both_classes:
            axes.plot(false / false[-1], true / true[-1], color=color, linestyle=line, label=label)
        else:
            axes.plot([], [], color=color, linestyle=line, label=label)
    if enough(test.unit):
        _fill(axes, roc_band(test.unit, seed))
    sensitivity, specificity = (test.estimates[m].value for m in ("sensitivity", "specificity"))
    point = f"operating point ({test.threshold_text})"
    axes.plot(1 - specificity, sensitivity, "o", color=TEST, markersize=7, label=point)
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", title="ROC")
    _unit_square(axes)


def draw_precision_recall(axes: Any, images: Mapping[str, ScoredSplit], seed: int) -> None:
    """Draw the precision-recall curves of both splits as the steps that average precision sums."""
    test = images["test"]
    for name, scored, color, line in _lines(images):
        true, false = _curves(scored)
        label = _label(f"{name} PR AUC", scored.estimates["pr_auc"])
        recall = true[1:] / max(true[-1], 1)
        precision = true[1:] / (true + false)[1:]
        axes.step(recall, precision, where="pre", color=color, linestyle=line, label=label)
    if enough(test.unit):
        _fill(axes, precision_band(test.unit, seed))
    point = [test.estimates[m].value for m in ("sensitivity", "precision")]
    axes.plot(*point, "o", color=TEST, markersize=7, label="operating point")
    share = float(test.targets.mean())
    axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":", label=f"guessing: {share:.2f}")
    axes.set(xlabel="Sensitivity (recall)", ylabel="Precision", title="precision and recall")
    _unit_square(axes)


def draw_confusion(axes: Any, test: ScoredSplit, labels: Labels) -> None:
    """Draw the confusion matrix of the test images at the operating point."""
    cells = test.confusion
    matrix = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])  # rows: truth
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        dark = shares[row, column] > 0.5
        text = f"{count}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=13,
                  color="white" if dark else "black")  # fmt: skip
    axes.set_xticks((0, 1), labels.names if test.probabilities else ("not anomalous", "anomalous"))
    axes.set_yticks((0, 1), labels.names, rotation=90, va="center")
    axes.set(xlabel=f"Called at {test.threshold_text}", ylabel="Truth", title="test images")


def draw_reliability(
    axes: Any, test: ScoredSplit, raw: NDArray[np.float64], seed: int, labels: Labels
) -> None:
    """Draw the share of positive images against the predicted probability, in equal bins.

    DeGroot & Fienberg 1983.

    Args:
        axes: To draw on.
        test: With calibrated scores.
        raw: (N,) probabilities before calibration.
        seed: Of the bootstrap behind the intervals.
        labels: What the two classes are called.
    """
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfect")
    changed = not np.allclose(raw, test.scores)
    if changed:
        before = reliability(test.unit, raw)
        axes.plot(before.means, before.shares, "s--", color=VAL, markersize=4,
                  label="before calibration")  # fmt: skip
    found = reliability(test.unit, test.scores, seed)
    name = "after calibration" if changed else "test"
    errors = ", ".join(
        f"{title} {test.estimates[metric].value:.3f}"
        for title, metric in (("Brier", "brier"), ("ECE", "ece"))
    )
    axes.plot(found.means, found.shares, "o-", color=TEST, markersize=4, label=f"{name}: {errors}")
    axes.vlines(found.means, found.low, found.high, color=TEST, linewidth=0.8)
    for mean, share, count in zip(found.means, found.shares, found.counts, strict=True):
        axes.annotate(str(count), (mean, share), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="Predicted probability", ylabel=f"Share {labels.positive} (number: images)",
             title="reliability on test")  # fmt: skip
    _unit_square(axes)


def draw_decision(axes: Any, test: ScoredSplit, seed: int, labels: Labels) -> None:
    """Draw the net benefit beside calling all or none positive (Vickers & Elkin 2006)."""
    share = float(test.targets.mean())
    once, everybody = np.ones((1, len(test.scores))), np.ones_like(test.scores)
    (own,) = net_benefit(test.targets, test.scores, THRESHOLDS, once)
    (all_called,) = net_benefit(test.targets, everybody, THRESHOLDS, once)
    axes.plot(THRESHOLDS, own, color=TEST, label="by the scores")
    if enough(test.unit):
        _fill(axes, benefit_band(test.unit, THRESHOLDS, seed))
    called = f"called {labels.positive}"
    axes.plot(THRESHOLDS, all_called, color=VAL, linestyle="--", label=f"all {called}")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":", label=f"none {called}")
    _mark_threshold(axes, test)
    top = max(share, 0.05)
    axes.set(xlabel="Threshold probability", ylabel="Net benefit", title="decision curve on test",
             xlim=(0, 1), ylim=(-0.3 * top, 1.1 * top))  # fmt: skip


def _mark_threshold(axes: Any, test: ScoredSplit) -> None:
    threshold = test.point.threshold
    axes.axvline(threshold, color="black", linewidth=1, linestyle="-.",
                 label=f"operating point ({threshold:.3f})")  # fmt: skip


def draw_probabilities(axes: Any, test: ScoredSplit, labels: Labels) -> None:
    """Draw the histogram of the probabilities of test images: positive ones up, others down."""
    for name, members, sign, color in (
        (labels.names[1], test.targets, 1, VAL), (labels.names[0], ~test.targets, -1, "#5f7f9c")
    ):  # fmt: skip
        counts, edges = np.histogram(test.scores[members], BINS, (0, 1))
        axes.bar(edges[:-1], sign * counts, 0.94 / BINS, align="edge", color=color, label=name)
    axes.axhline(0, color=GREY, linewidth=0.8)
    _mark_threshold(axes, test)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{abs(value):g}")
    axes.set(
        xlabel=f"Probability of {labels.condition}", ylabel="Images", title="probabilities on test"
    )


def draw_errors(axes: Any, test: ScoredSplit, labels: Labels) -> None:
    """Draw how far the errors of test images lie from normal ones: positive up, others down."""
    sure = np.clip(test.scores, np.finfo(float).tiny, 1 - 2**-53)
    away = np.log(sure) - np.log1p(-sure)  # in standard deviations
    (threshold,) = (float(np.log(one) - np.log1p(-one)) for one in [test.point.threshold])
    low, high = min(-2.0, float(away.min())), max(threshold + 1, float(np.quantile(away, 0.98)))
    shown = np.minimum(away, high)  # the last bar holds all beyond
    for name, members, sign, color in (
        (labels.names[1], test.targets, 1, VAL), (labels.names[0], ~test.targets, -1, "#5f7f9c")
    ):  # fmt: skip
        counts, edges = np.histogram(shown[members], BINS, (low, high))
        width = 0.94 * (high - low) / BINS
        axes.bar(edges[:-1], sign * counts, width, align="edge", color=color, label=name)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(threshold, color=GREY, linestyle=":", label=f"threshold ({test.threshold_text})")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{abs(value):g}")
    axes.set(
        xlabel="Error, in standard deviations from the mean of normal ones", ylabel="Images",
        title="errors on test",
    )  # fmt: skip


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of history.csv as figures; empty where there are no epochs."""
    if not path.is_file():
        return {}
    lines = read_table(path).lines
    if not lines or "epoch" not in lines[0].cells:  # of a linear probe: it has no epochs
        return {}
    try:
        return {name: [float(line.cells[name]) for line in lines] for name in lines[0].cells}
    except ValueError as error:
        raise UserError(f"{path}: {error}", "remove it, or train again") from None


def draw_history(axes: Any, history: dict[str, list[float]], by_error: bool = False) -> None:
    """Draw losses (left) and the validation AUC (right) over the epochs.

    Args:
        axes: To draw on.
        history: Columns of history.csv.
        by_error: Whether the epoch of the smallest validation loss was kept, as of an anomaly
            detector, and not that of the highest AUC.
    """
    axes.plot(history["epoch"], history["train_loss"], color=GREY, label="training loss")
    axes.plot(history["epoch"], history["val_loss"], color=VAL, linestyle="--",
              label="validation loss")  # fmt: skip
    axes.set(xlabel="Epoch", ylabel="Loss", title="training")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(history["epoch"], history["val_auc"], color=TEST, marker=".", label="validation AUC")
    rows = [dict(zip(history, row, strict=True)) for row in zip(*history.values(), strict=True)]
    key = (lambda row: -row["val_loss"]) if by_error else rank
    best = max(rows, key=key)  # the first of equal ones, as training keeps it
    right.plot(best["epoch"], best["val_auc"], "o", color=TEST, markersize=7,
               label=f"epoch {best['epoch']:.0f}: weights kept")  # fmt: skip
    right.set(ylabel="Validation AUC", ylim=(0, 1.02))
