"""The curves of a run as geometry: Python counts and scales, template and files draw."""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np

from interface.report.charts.axes import (
    Bar,
    Chart,
    Dot,
    Point,
    Tick,
    between,
    line,
    marks,
    scales,
    ticks,
)
from interface.report.charts.bands import (
    Band,
    Drawn,
    benefit_band,
    precision_band,
    reliability,
    roc_band,
)
from interface.report.runs import Prediction, RunView
from interface.report.scores import Scores
from models.evaluation.decision_curve import net_benefit

BINS = 20  # of the histogram of probabilities
UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)
THRESHOLDS = np.linspace(0.01, 0.99, 99)  # of the decision curve
SPLITS = {"test": "Test", "val": "Validation"}
BAND = ("band", "95 % band, over patients")


def roc_points(predictions: Sequence[Prediction]) -> list[Point]:
    """Return the ROC curve as (1 - specificity, sensitivity), ties moved together.

    Returns:
        From (0, 0) to (1, 1); empty where one of the classes is missing.
    """
    counts = _cumulative(predictions)
    if not counts or not all(counts[-1]):
        return []
    malignant, benign = counts[-1]
    return _corners([(0.0, 0.0)] + [(fp / benign, tp / malignant) for tp, fp in counts])


def pr_points(predictions: Sequence[Prediction]) -> list[Point]:
    """Return the precision-recall curve as (recall, precision), in the steps of average precision.

    Returns:
        From recall 0 to recall 1; empty where no image is malignant.
    """
    counts = _cumulative(predictions)
    if not counts or not counts[-1][0]:
        return []
    malignant = counts[-1][0]
    points: list[Point] = []
    before = 0.0
    for tp, fp in counts:
        recall, precision = tp / malignant, tp / (tp + fp)
        if recall > before:
            points += [(before, precision), (recall, precision)]
            before = recall
    return _corners(points)


def _cumulative(predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
    """Return (true positives, false positives) at every threshold, from the highest down."""
    ordered = sorted(predictions, key=lambda item: -item.probability)
    counts, tp, fp = [], 0, 0
    for _, tied in groupby(ordered, key=lambda item: item.probability):
        group = [item.malignant for item in tied]
        tp, fp = tp + sum(group), fp + len(group) - sum(group)
        counts.append((tp, fp))
    return counts


def _corners(points: Sequence[Point]) -> list[Point]:
    """Drop the points inside straight runs along an axis: a third of the bytes, the same curve."""
    kept = [
        here
        for before, here, after in zip(points, points[1:], points[2:], strict=False)
        if not (before[0] == here[0] == after[0] or before[1] == here[1] == after[1])
    ]
    return [*points[:1], *kept, *points[1:][-1:]]


def _curve(
    run: RunView,
    key: str,
    metric: str,
    curves: Mapping[str, list[Point]],
    labels: tuple[str, str],
    beside: Sequence[tuple[str, list[Point], str]],
    band: Band | None,
    dots: Sequence[tuple[float | None, float | None]],
) -> Chart | None:
    """Draw a curve of test and of validation over [0, 1] x [0, 1].

    Args:
        run: The run.
        key: "ROC" or "Precision-recall".
        metric: The area under the curve.
        curves: Points by split.
        labels: Of the axes.
        beside: (kind, points, what the legend says, or nothing) of straight lines.
        band: Of the test curve.
        dots: Operating points.
    """
    drawn = {split: curves[split] for split in ("val", "test") if curves.get(split)}
    if not drawn:
        return None
    axes = scales((0, 1), (0, 1))
    legend = [
        (split, f"{SPLITS[split]} {run.scores[split].text(metric)}") for split in reversed(drawn)
    ]
    description = f"{key} curve of {run.name}. " + "; ".join(text for _, text in legend)
    return Chart(
        key={"ROC": "roc", "Precision-recall": "pr"}[key],
        name=f"{key} curve",
        description=description,
        x_label=labels[0],
        y_label=labels[1],
        x_ticks=marks(axes[0], UNIT),
        y_ticks=marks(axes[1], UNIT),
        areas=(between("band", band.lower, band.upper, axes),) if band else (),
        lines=(
            *(line(kind, points, axes) for kind, points, _ in beside),
            *(line(split, points, axes) for split, points in drawn.items()),
        ),
        dots=tuple(
            Dot(axes[0](x), axes[1](y), "operating point")
            for x, y in dots
            if x is not None and y is not None
        ),
        legend=(
            *legend,
            *((BAND,) if band else ()),
            *((kind, text) for kind, _, text in beside if text),
        ),
    )


def _value(scores: Scores, metric: str) -> float | None:
    return scores.of(metric).value


def roc_chart(run: RunView, drawn: Drawn | None) -> Chart | None:
    """Draw the ROC curves of test and validation with the operating point on test.

    Args:
        run: The run.
        drawn: Its test images, for the band; None where they are too few.
    """
    curves = {split: roc_points(rows) for split, rows in run.predictions.items()}
    specificity = _value(run.test, "specificity")
    point = (None if specificity is None else 1 - specificity, _value(run.test, "sensitivity"))
    return _curve(
        run, "ROC", "auc", curves, ("1 - specificity", "sensitivity"),
        [("chance", [(0.0, 0.0), (1.0, 1.0)], "guessing")],
        roc_band(drawn) if drawn else None, [point],
    )  # fmt: skip


def pr_chart(run: RunView, drawn: Drawn | None) -> Chart | None:
    """Draw the precision-recall curves with the base rate of the test images."""
    curves = {split: pr_points(rows) for split, rows in run.predictions.items()}
    rate = run.test.base_rate or 0.0
    point = (_value(run.test, "sensitivity"), _value(run.test, "precision"))
    return _curve(
        run, "Precision-recall", "pr_auc", curves, ("recall (sensitivity)", "precision"),
        [("chance", [(0.0, rate), (1.0, rate)], f"guessing: {rate:.3f}")],
        precision_band(drawn) if drawn else None, [point],
    )  # fmt: skip


def reliability_chart(run: RunView, test: Drawn) -> Chart:
    """Draw the share of malignant test images against their probability, before and after.

    DeGroot & Fienberg 1983. Images lie in ten equally wide bins; bars are 95 % intervals.
    """
    axes = scales((0, 1), (0, 1))
    before, after = (
        reliability(test, scores, intervals)
        for scores, intervals in ((test.raw, False), (test.scores, True))
    )
    lines = [line("chance", [(0, 0), (1, 1)], axes)]
    for kind, found in (("val", before), ("test", after)):
        lines.append(line(kind, _pairs(found.means, found.shares), axes))
    lines += [
        line("error", [(float(x), float(low)), (float(x), float(high))], axes)
        for x, low, high in zip(after.means, after.low, after.high, strict=True)
        if not np.isnan(low)
    ]
    old = run.uncalibrated.get("test", {})
    method = run.calibration["method"]
    legend = (
        ("test", f"After calibration ({method}): " + _errors(run.test.of("brier").value,
                                                             run.test.of("ece").value)),
        ("val", "Before: " + _errors(old.get("brier"), old.get("ece"))),
        ("chance", "perfect"),
    )  # fmt: skip
    counts = ", ".join(f"{n} at {m:.2f}" for n, m in zip(after.counts, after.means, strict=True))
    return Chart(
        key="reliability",
        name="Reliability on test",
        description=f"Reliability diagram of {run.name}. {legend[0][1]}; {legend[1][1]}. "
        f"Images in the bins: {counts}",
        x_label="probability of malignancy",
        y_label="share malignant",
        x_ticks=marks(axes[0], UNIT),
        y_ticks=marks(axes[1], UNIT),
        lines=tuple(lines),
        dots=tuple(Dot(axes[0](x), axes[1](y)) for x, y in _pairs(after.means, after.shares)),
        legend=legend,
    )


def _errors(brier: float | None, ece: float | None) -> str:
    return ", ".join(
        f"{name} {value:.3f}"
        for name, value in (("Brier", brier), ("ECE", ece))
        if value is not None
    )


def _pairs(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> list[Point]:
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def decision_chart(run: RunView, test: Drawn) -> Chart:
    """Draw the net benefit on test beside calling all or none malignant (Vickers & Elkin 2006)."""
    rate = float(test.targets.mean())
    ones = np.ones((1, len(test.targets)))
    model = net_benefit(test.targets, test.scores, THRESHOLDS, ones)[0]
    everyone = net_benefit(test.targets, np.ones(len(test.targets)), THRESHOLDS, ones)[0]
    axes = scales((0, 1), (-0.25 * rate, 1.1 * rate))
    band = benefit_band(test, THRESHOLDS) if test.enough else None
    above = [t for t, a, b in zip(THRESHOLDS, model, everyone, strict=True) if a > max(b, 0) + 1e-9]
    words = f"{len(above)} of {len(THRESHOLDS)} thresholds"
    seen = everyone >= axes[1].low  # what falls off the bottom is not drawn along it
    return Chart(
        key="decision",
        name="Decision curve on test",
        description=f"Decision curve of {run.name}: its net benefit is above calling all images "
        f"malignant and above calling none at {words}",
        x_label="threshold probability",
        y_label="net benefit",
        x_ticks=marks(axes[0], UNIT),
        y_ticks=marks(axes[1], ticks(axes[1].low, axes[1].high, 4)),
        areas=(between("band", band.lower, band.upper, axes),) if band else (),
        lines=(
            line("zero", [(0, 0), (1, 0)], axes),
            line("chance", _pairs(THRESHOLDS[seen], everyone[seen]), axes),
            line("test", _pairs(THRESHOLDS, model), axes),
            line("cut", [(run.threshold, axes[1].low), (run.threshold, axes[1].high)], axes),
        ),
        legend=(
            ("test", "the model"),
            *((BAND,) if band else ()),
            ("chance", "all called malignant"),
            ("zero", "none"),
            ("cut", "operating point"),
        ),
    )


def history_chart(run: RunView, name: str, y_label: str, columns: dict[str, str]) -> Chart | None:
    """Draw columns of history.csv over the epochs; None where there are fewer than two epochs.

    Args:
        run: The run.
        name: The chart's heading.
        y_label: Of the vertical axis.
        columns: Column -> what it is called; the CSS class is its first part ("val" of val_auc).
    """
    series = {
        column: [
            (row["epoch"], row[column]) for row in run.history if {"epoch", column} <= set(row)
        ]
        for column in columns
    }
    series = {column: points for column, points in series.items() if len(points) > 1}
    values = [value for points in series.values() for _, value in points]
    epochs = [epoch for points in series.values() for epoch, _ in points]
    if not values or min(epochs) == max(epochs):
        return None
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1
    axes = scales((min(epochs), max(epochs)), (low - room, high + room))
    x, y = axes
    dots: tuple[Dot, ...] = ()
    if "val_auc" in series:
        best = [(epoch, value) for epoch, value in series["val_auc"] if epoch == run.best_epoch]
        dots = tuple(Dot(x(a), y(b), f"epoch {a:g}: weights kept") for a, b in best)
    x_values = [value for value in ticks(x.low, x.high, 5) if value == int(value)]
    return Chart(
        key=name.lower().replace(" ", "-"),
        name=name,
        description=f"{name} of {run.name} over {max(epochs):g} epochs: "
        + "; ".join(
            f"{columns[c]} from {p[0][1]:.3f} to {p[-1][1]:.3f}" for c, p in series.items()
        ),
        x_label="epoch",
        y_label=y_label,
        x_ticks=marks(x, x_values),
        y_ticks=marks(y, ticks(y.low, y.high, 4)),
        lines=tuple(line(column.split("_")[0], points, axes) for column, points in series.items()),
        dots=dots,
        legend=tuple((column.split("_")[0], columns[column]) for column in series),
    )


def scores_chart(run: RunView) -> Chart | None:
    """Draw how the probabilities of the test images spread: malignant up, benign down."""
    rows = run.predictions["test"]
    if not rows:
        return None
    counts = {True: [0] * BINS, False: [0] * BINS}
    for row in rows:
        counts[row.malignant][min(int(row.probability * BINS), BINS - 1)] += 1
    peak = max(max(counts[True]), max(counts[False]))
    axes = scales((0, 1), (-peak * 1.08, peak * 1.08))
    x, y = axes
    edges = list(pairwise(index / BINS for index in range(BINS + 1)))
    bars = []
    for malignant, kind in ((True, "malignant"), (False, "benign")):
        for (left, right), count in zip(edges, counts[malignant], strict=True):
            tall = round(abs(y(count) - y(0)), 1)
            upper = y(count) if malignant else y(0)
            if count:
                bars.append(Bar(kind, x(left) + 0.5, upper, round(x(right) - x(left) - 1, 1), tall))
    cut = line("cut", [(run.threshold, y.low), (run.threshold, y.high)], axes)
    counted = [value for value in ticks(-peak, peak, 4) if value == int(value)]
    return Chart(
        key="probabilities",
        name="Probabilities on test",
        description=f"Histogram of the predicted probabilities of {run.name}: malignant test "
        f"images upwards, benign ones downwards, threshold {run.threshold:.3f}",
        x_label="probability of malignancy",
        y_label="images",
        x_ticks=marks(x, UNIT),
        y_ticks=tuple(Tick(y(value), f"{abs(value):g}") for value in counted),
        lines=(line("zero", [(0, 0), (1, 0)], axes), cut),
        bars=tuple(bars),
        legend=(("malignant", "malignant"), ("benign", "benign"), ("cut", "threshold")),
    )


def charts_of(run: RunView) -> list[Chart]:
    """Return the charts of a run that its files allow, in reading order."""
    rows = run.predictions["test"]
    test = Drawn(rows, run.seed) if rows else None
    drawn = test if test and test.enough else None
    made = (
        roc_chart(run, drawn),
        pr_chart(run, drawn),
        reliability_chart(run, test) if test else None,
        decision_chart(run, test) if test and run.test.malignant else None,
        scores_chart(run),
        history_chart(run, "Loss", "loss", {"train_loss": "Training", "val_loss": "Validation"}),
        history_chart(run, "Validation AUC", "AUC", {"val_auc": "Validation"}),
    )
    return [chart for chart in made if chart]
