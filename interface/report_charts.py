"""The curves of a run as geometry: Python counts and scales, the template draws inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from interface.report_runs import Prediction, RunView, Scores

WIDTH, HEIGHT = 340, 260  # of a chart, in CSS pixels at full size
LEFT, RIGHT, TOP, BOTTOM = 52, WIDTH - 10, 12, HEIGHT - 42  # edges of the plotting area
BINS = 20  # of the histogram of probabilities

Point = tuple[float, float]


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
class Line:
    """A polyline; `kind` is its CSS class and `points` what SVG's attribute takes."""

    kind: str
    points: str


@dataclass(frozen=True)
class Dot:
    """One marked point, in pixels, with what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in pixels; `kind` is its CSS class."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """All that the template needs to draw one chart.

    Attributes:
        name: Its heading.
        description: What it shows, in words, for who cannot see it.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        x_ticks: Along the horizontal axis.
        y_ticks: Along the vertical axis.
        lines: In drawing order.
        bars: Drawn under the lines.
        dots: Drawn over the lines.
        legend: (kind, text) of what has to be told apart.
    """

    name: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


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


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round numbers inside [low, high], about `wanted` of them."""
    raw = (high - low) / wanted
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(magnitude * m for m in (1, 2, 2.5, 5, 10) if magnitude * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
    return Scale(*x, LEFT, RIGHT), Scale(*y, BOTTOM, TOP)


def _marks(scale: Scale, values: Sequence[float], digits: int | None = None) -> tuple[Tick, ...]:
    texts = (f"{value:g}" if digits is None else f"{value:.{digits}f}" for value in values)
    return tuple(Tick(scale(value), text) for value, text in zip(values, texts, strict=True))


def _line(kind: str, points: Sequence[Point], x: Scale, y: Scale) -> Line:
    return Line(kind, " ".join(f"{x(a):g},{y(b):g}" for a, b in points))


UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)


def roc_chart(run: RunView) -> Chart | None:
    """Draw the ROC curves of test and validation with the operating point on test."""
    curves = {split: roc_points(rows) for split, rows in run.predictions.items()}
    x, y = _axes((0, 1), (0, 1))
    chance = [_line("chance", [(0, 0), (1, 1)], x, y)]
    dots = _operating_point(run.scores["test"], x, y)
    return _curves(
        "ROC curve", run, "auc", curves, (x, y), chance, dots,
        ("1 - specificity", "sensitivity"),
    )  # fmt: skip


def pr_chart(run: RunView) -> Chart | None:
    """Draw the precision-recall curves with the base rate of the test images."""
    curves = {split: pr_points(rows) for split, rows in run.predictions.items()}
    x, y = _axes((0, 1), (0, 1))
    base = run.scores["test"].base_rate
    chance = [] if base is None else [_line("chance", [(0, base), (1, base)], x, y)]
    dots = _operating_point(run.scores["test"], x, y, ("sensitivity", "precision"))
    return _curves(
        "Precision-recall curve", run, "pr_auc", curves, (x, y), chance, dots,
        ("recall (sensitivity)", "precision"),
    )  # fmt: skip


def _curves(
    name: str,
    run: RunView,
    metric: str,
    curves: dict[str, list[Point]],
    axes: tuple[Scale, Scale],
    chance: list[Line],
    dots: tuple[Dot, ...],
    labels: tuple[str, str],
) -> Chart | None:
    drawn = {split: curves[split] for split in ("val", "test") if curves.get(split)}
    if not drawn:
        return None
    x, y = axes
    legend = tuple(
        (split, f"{'Test' if split == 'test' else 'Validation'} {run.scores[split].text(metric)}")
        for split in reversed(drawn)
    )
    return Chart(
        name=name,
        description=f"{name} of {run.name}. " + "; ".join(text for _, text in legend),
        x_label=labels[0],
        y_label=labels[1],
        x_ticks=_marks(x, UNIT),
        y_ticks=_marks(y, UNIT),
        lines=(*chance, *(_line(split, points, x, y) for split, points in drawn.items())),
        dots=dots,
        legend=legend,
    )


def _operating_point(
    scores: Scores, x: Scale, y: Scale, metrics: tuple[str, str] = ("specificity", "sensitivity")
) -> tuple[Dot, ...]:
    across, up = (
        scores.metrics[name].value if name in scores.metrics else None for name in metrics
    )
    if across is None or up is None:
        return ()
    across = 1 - across if metrics[0] == "specificity" else across
    return (Dot(x(across), y(up), "operating point"),)


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
    x, y = _axes((min(epochs), max(epochs)), (low - room, high + room))
    dots: tuple[Dot, ...] = ()
    if "val_auc" in series:
        best = [(epoch, value) for epoch, value in series["val_auc"] if epoch == run.best_epoch]
        dots = tuple(Dot(x(a), y(b), f"epoch {a:g}: weights kept") for a, b in best)
    x_values = [value for value in _ticks(x.low, x.high, 5) if value == int(value)]
    return Chart(
        name=name,
        description=f"{name} of {run.name} over {max(epochs):g} epochs: "
        + "; ".join(
            f"{columns[c]} from {p[0][1]:.3f} to {p[-1][1]:.3f}" for c, p in series.items()
        ),
        x_label="epoch",
        y_label=y_label,
        x_ticks=_marks(x, x_values),
        y_ticks=_marks(y, [round(value, 10) for value in _ticks(y.low, y.high, 4)]),
        lines=tuple(_line(column.split("_")[0], points, x, y) for column, points in series.items()),
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
    x, y = _axes((0, 1), (-peak * 1.08, peak * 1.08))
    edges = list(pairwise(index / BINS for index in range(BINS + 1)))
    bars = []
    for malignant, kind in ((True, "malignant"), (False, "benign")):
        for (left, right), count in zip(edges, counts[malignant], strict=True):
            tall = round(abs(y(count) - y(0)), 1)
            upper = y(count) if malignant else y(0)
            if count:
                bars.append(Bar(kind, x(left) + 0.5, upper, round(x(right) - x(left) - 1, 1), tall))
    cut = [_line("cut", [(run.threshold, y.low), (run.threshold, y.high)], x, y)]
    marks = [value for value in _ticks(-peak, peak, 4) if value == int(value)]
    return Chart(
        name="Probabilities on test",
        description=f"Histogram of the predicted probabilities of {run.name}: malignant test "
        f"images upwards, benign ones downwards, threshold {run.threshold:.3f}",
        x_label="probability of malignancy",
        y_label="images",
        x_ticks=_marks(x, UNIT),
        y_ticks=tuple(Tick(y(value), f"{abs(value):g}") for value in marks),
        lines=(_line("zero", [(0, 0), (1, 0)], x, y), *cut),
        bars=tuple(bars),
        legend=(("malignant", "malignant"), ("benign", "benign"), ("cut", "threshold")),
    )


def charts_of(run: RunView) -> list[Chart]:
    """Return the charts of a run that its files allow, in reading order."""
    made = (
        roc_chart(run),
        pr_chart(run),
        scores_chart(run),
        history_chart(run, "Loss", "loss", {"train_loss": "Training", "val_loss": "Validation"}),
        history_chart(run, "Validation AUC", "AUC", {"val_auc": "Validation"}),
    )
    return [chart for chart in made if chart]


@dataclass(frozen=True)
class Whisker:
    """An interval on the scale of its table, in pixels."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Forest:
    """The intervals of a table on one scale.

    Attributes:
        width: Of the drawing, in pixels.
        ticks: Of the scale.
        chance: Where an AUC of 0.5 lies.
        whiskers: One for each row; None where the metric is unknown.
    """

    width: int
    ticks: tuple[Tick, ...]
    chance: float
    whiskers: tuple[Whisker | None, ...]


def forest(runs: Sequence[RunView], width: int = 150) -> Forest:
    """Put the test AUCs of runs and their intervals on one scale."""
    intervals = [run.scores["test"].metrics.get("auc") for run in runs]
    lows = [item.low for item in intervals if item and item.low is not None]
    scale = Scale(min([0.4, *(math.floor(low * 10) / 10 for low in lows)]), 1.0, 6, width - 6)
    whiskers = tuple(
        None
        if item is None or item.value is None
        else Whisker(
            scale(item.value if item.low is None else item.low),
            scale(item.value),
            scale(item.value if item.high is None else item.high),
        )
        for item in intervals
    )
    return Forest(width, _marks(scale, [0.5, 0.75, 1.0]), scale(0.5), whiskers)
