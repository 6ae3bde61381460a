"""Curves and confusion matrices of a run as SVG and PNG, readable in print.

White ground and dark lines, so that they also read on a dark page. The same scores give the same
bytes: no date, and fixed ids in the SVG.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.bootstrap import Estimate
from models.evaluation.decision_curve import net_benefit
from models.evaluation.scored import Scored
from models.metrics import cumulated
from pipeline.records import atomic

FOLDER = "figures"
SIZE = (4.4, 4.0)  # inches
DOTS = 150  # an inch, of the PNG
TEST, VAL, GREY = "#0b5394", "#b45f06", "#666666"  # told apart in grey print too, by line style
STYLE = {"svg.hashsalt": "mammolab", "svg.fonttype": "path", "font.size": 9.0,
         "axes.spines.top": False, "axes.spines.right": False}  # fmt: skip


def write_figures(
    folder: Path, model: str, images: Mapping[str, Scored], raw: NDArray[np.float64]
) -> None:
    """Write the figures of an evaluated run into `folder/figures`.

    Args:
        folder: The run folder; its history.csv is drawn where it lists epochs.
        model: The model's name, for the titles.
        images: By split: test, and validation where there is one.
        raw: (N,) probabilities of the test images before calibration.
    """
    test = images["test"]
    drawings: dict[str, Callable[[Any], None]] = {
        "roc": lambda axes: draw_roc(axes, images),
        "pr": lambda axes: draw_precision_recall(axes, images),
        "confusion": lambda axes: draw_confusion(axes, test),
        "reliability": lambda axes: draw_reliability(axes, test, raw),
        "decision": lambda axes: draw_decision(axes, test),
    }
    history = read_history(folder / "history.csv")
    if len(history.get("epoch", ())) > 1:
        drawings["history"] = lambda axes: draw_history(axes, history)
    with matplotlib.rc_context(STYLE):
        for name, draw in drawings.items():
            figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
            axes = figure.add_subplot()
            draw(axes)
            axes.set_title(f"{model}: {axes.get_title()}", fontsize=9)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not again for every file
            save(figure, folder / FOLDER / name)


def save(figure: Any, path: Path) -> None:
    """Write a figure as `path`.svg and `path`.png, each whole or not at all."""
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        with atomic(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=DOTS, metadata=metadata, transparent=False)


def _curves(scored: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return true and false positives (K + 1,) for falling thresholds, in images, from 0 on."""
    ones = np.ones((1, len(scored.scores)))
    _, positives, negatives = cumulated(scored.targets, scored.scores, ones)
    return np.append(0, positives[0]), np.append(0, negatives[0])


def _label(name: str, estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return f"{name}: one class only"
    interval = "" if np.isnan(estimate.low) else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{name}: {estimate.value:.2f}{interval}"


def _drawn(images: Mapping[str, Scored]) -> Iterator[tuple[str, Scored, str, str]]:
    """Yield name, scores, colour and line style of each split."""
    for split, name, color, line in (("test", "Test", TEST, "-"), ("val", "Validation", VAL, "--")):
        if split in images:
            yield name, images[split], color, line


def draw_roc(axes: Any, images: Mapping[str, Scored]) -> None:
    """Draw the ROC curves of both splits, and the operating point on test."""
    test = images["test"]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for name, scored, color, line in _drawn(images):
        true, false = _curves(scored)
        label = _label(f"{name} AUC", scored.estimates["auc"])
        if scored.both_classes:
            axes.plot(false / false[-1], true / true[-1], color=color, linestyle=line, label=label)
        else:
            axes.plot([], [], color=color, linestyle=line, label=label)
    sensitivity, specificity = (test.estimates[m].value for m in ("sensitivity", "specificity"))
    point = f"operating point ({test.point.threshold:.2f})"
    axes.plot(1 - specificity, sensitivity, "o", color=TEST, markersize=7, label=point)
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("ROC")
    axes.legend(loc="lower right", frameon=False)


def draw_precision_recall(axes: Any, images: Mapping[str, Scored]) -> None:
    """Draw the precision-recall curves of both splits as the steps that average precision sums."""
    test = images["test"]
    for name, scored, color, line in _drawn(images):
        true, false = _curves(scored)
        label = _label(f"{name} PR AUC", scored.estimates["pr_auc"])
        recall = true[1:] / max(true[-1], 1)
        precision = true[1:] / (true + false)[1:]
        axes.step(recall, precision, where="pre", color=color, linestyle=line, label=label)
    share = float(test.targets.mean())
    axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":", label=f"guessing: {share:.2f}")
    axes.set(xlabel="Sensitivity (recall)", ylabel="Precision", xlim=(-0.02, 1.02))
    axes.set_ylim(-0.02, 1.05)
    axes.set_title("precision and recall")
    axes.legend(loc="lower left", frameon=False)


def draw_confusion(axes: Any, test: Scored) -> None:
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
    axes.set_xticks((0, 1), ("benign", "malignant"))
    axes.set_yticks((0, 1), ("benign", "malignant"), rotation=90, va="center")
    axes.set(xlabel=f"Called at {test.point.threshold:.2f}", ylabel="Truth")
    axes.set_title("test images")


def draw_reliability(axes: Any, test: Scored, raw: NDArray[np.float64], bins: int = 10) -> None:
    """Draw the share of malignant images against the predicted probability, in equal bins.

    Args:
        axes: To draw on.
        test: With calibrated scores.
        raw: (N,) probabilities before calibration.
        bins: Between 0 and 1.
    """
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    changed = not np.allclose(raw, test.scores)
    ways = [("before calibration", raw, VAL, "s--")] if changed else []
    ways.append(("after calibration" if changed else "test", test.scores, TEST, "o-"))
    for name, scores, color, style in ways:
        index = np.minimum((scores * bins).astype(int), bins - 1)
        used = [place for place in range(bins) if (index == place).any()]
        means = [scores[index == place].mean() for place in used]
        shares = [test.targets[index == place].mean() for place in used]
        axes.plot(means, shares, style, color=color, label=name, markersize=4)
    counts = [int((index == place).sum()) for place in used]
    for mean, share, count in zip(means, shares, counts, strict=True):
        axes.annotate(str(count), (mean, share), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="Predicted probability", ylabel="Share malignant (number: images)")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.06))
    axes.legend(loc="lower right", frameon=False)
    axes.set_title("reliability on test")


def draw_decision(axes: Any, test: Scored) -> None:
    """Draw the net benefit of calling by the scores beside that of calling all or none."""
    thresholds = np.linspace(0, 0.99, 100)
    share = float(test.targets.mean())
    once, everybody = np.ones((1, len(test.scores))), np.ones_like(test.scores)
    (own,) = net_benefit(test.targets, test.scores, thresholds, once)
    (all_called,) = net_benefit(test.targets, everybody, thresholds, once)
    axes.plot(thresholds, own, color=TEST, label="by the scores")
    axes.plot(thresholds, all_called, color=VAL, linestyle="--", label="all called malignant")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":", label="none called malignant")
    top = max(share, 0.05)
    axes.set(xlabel="Threshold probability", ylabel="Net benefit", xlim=(0, 1))
    axes.set_ylim(-0.3 * top, 1.1 * top)
    axes.legend(loc="upper right", frameon=False)
    axes.set_title("decision curve on test")


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of history.csv as figures; empty where there are no epochs."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or "epoch" not in lines[0]:
        return {}
    return {name: [float(line[name]) for line in lines] for name in lines[0]}


def draw_history(axes: Any, history: dict[str, list[float]]) -> None:
    """Draw losses (left) and the validation AUC (right) over the epochs."""
    axes.plot(history["epoch"], history["train_loss"], color=GREY, label="train loss")
    axes.plot(history["epoch"], history["val_loss"], color=VAL, linestyle="--", label="val loss")
    axes.set(xlabel="Epoch", ylabel="Loss")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(history["epoch"], history["val_auc"], color=TEST, marker=".", label="val AUC")
    right.set(ylabel="Validation AUC", ylim=(0, 1.02))
    lines = [*axes.get_lines(), *right.get_lines()]
    labels = [line.get_label() for line in lines]
    axes.figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    axes.set_title("training")
