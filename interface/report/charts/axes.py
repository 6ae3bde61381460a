"""What a chart is made of, in pixels: the template draws it as SVG, `report_draw` as a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340, 260  # of a chart, in CSS pixels at full size
LEFT, RIGHT, TOP, BOTTOM = 52, WIDTH - 10, 12, HEIGHT - 42  # edges of the plotting area

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
    """A polyline, or a filled polygon; `kind` is its CSS class."""

    kind: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """What SVG's attribute `points` takes."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Dot:
    """One marked point, in pixels, with what it says; without text it stands in no legend."""

    x: float
    y: float
    text: str = ""


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
    """All that is needed to draw one chart.

    Attributes:
        key: Its name as a file.
        name: Its heading.
        description: What it shows, in words, for who cannot see it.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        x_ticks: Along the horizontal axis.
        y_ticks: Along the vertical axis.
        areas: Drawn first.
        lines: In drawing order.
        bars: Drawn under the lines.
        dots: Drawn over the lines.
        legend: (kind, text) of what has to be told apart.
    """

    key: str
    name: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    areas: tuple[Line, ...] = ()
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round numbers inside [low, high], about `wanted` of them."""
    raw = (high - low) / wanted
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(magnitude * m for m in (1, 2, 2.5, 5, 10) if magnitude * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = (index * step for index in range(first, math.floor(high / step + 1e-9) + 1))
    return [round(value, 10) for value in found]


def scales(x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
    """Return the scales of a chart's two axes."""
    return Scale(*x, LEFT, RIGHT), Scale(*y, BOTTOM, TOP)


def marks(scale: Scale, values: Sequence[float]) -> tuple[Tick, ...]:
    """Label values on an axis."""
    return tuple(Tick(scale(value), f"{value:g}") for value in values)


def line(kind: str, points: Sequence[Point], axes: tuple[Scale, Scale]) -> Line:
    """Draw points in data units; what lies beyond the vertical axis is cut off at its ends."""
    x, y = axes
    ends = sorted((y.low, y.high))
    return Line(kind, tuple((x(a), y(min(max(b, ends[0]), ends[1]))) for a, b in points))


def between(
    kind: str, lower: Sequence[Point], upper: Sequence[Point], axes: tuple[Scale, Scale]
) -> Line:
    """Draw what lies between two curves as a polygon."""
    return line(kind, [*upper, *reversed(lower)], axes)
