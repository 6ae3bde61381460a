"""What a search may choose for each family of models, as data; nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.registry import LINEAR_PROBE, MAMMO_CNN, MODELS, STRENGTHS, ModelRow, own_values
from pipeline.options import Answers

Value = str | int | float


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One hyper-parameter of a search space."""

    name: str  # as it is called in the study
    low: float = 0.0  # smallest value of a number
    high: float = 0.0  # largest value, likewise
    log: bool = False  # whether a number is drawn evenly on a logarithmic scale
    choices: tuple[Value, ...] = ()  # the values of one that is no number on a scale
    # Another hyper-parameter and the values of it with which this one applies.
    when: tuple[str, tuple[Value, ...]] | None = None
    sets: str = ""  # the option or fact of a model that it decides, where that has another name
    # What stands before its value in a line; None leaves it out of the line.
    short: str | None = None

    @property
    def kind(self) -> str:
        """Its kind: "choice", "int" or "float"."""
        if self.choices:
            return "choice"
        return "int" if isinstance(self.low, int) else "float"

    @property
    def target(self) -> str:
        """The option or fact of a model that it decides."""
        return self.sets or self.name

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Return whether it matters beside the values that were chosen before it."""
        return self.when is None or params.get(self.when[0]) in self.when[1]


Space = tuple[Parameter, ...]

# Coarse, so that trials share what the layers before give; the last one trains the head alone.
TRAINED_FROM: Mapping[str, tuple[str, ...]] = {
    "resnet18.a1_in1k": ("layer3", "layer4", "fc"),
    "densenet121.ra_in1k": ("features.denseblock3", "features.denseblock4", "classifier"),
    "efficientnet_b3.ra2_in1k": ("blocks.4", "blocks.5", "blocks.6", "conv_head"),
}
HEAD: Space = (
    Parameter(name="head_depth", low=0, high=2),
    Parameter(name="head_width", choices=(64, 128, 256, 512), when=("head_depth", (1, 2)),
              short="h"),
    Parameter(name="dropout", low=0.0, high=0.6),
)  # fmt: skip
LEARNING: Space = (
    Parameter(name="optimizer", choices=("adamw", "sgd"), short=""),
    Parameter(name="learning_rate", low=3e-5, high=3e-3, log=True, when=("optimizer", ("adamw",)),
              short=""),
    Parameter(name="sgd_learning_rate", low=1e-3, high=1e-1, log=True, when=("optimizer", ("sgd",)),
              sets="learning_rate", short=""),
    Parameter(name="layer_decay", low=0.5, high=1.0),
    Parameter(name="weight_decay", low=1e-5, high=1e-1, log=True),
    Parameter(name="augment", choices=("none", "flip", "flip-rotate", "wide"), short=""),
    Parameter(name="batch_size", choices=(8, 16, 32)),
    Parameter(name="label_smoothing", low=0.0, high=0.2),
    Parameter(name="balance", choices=("weights", "sampler", "none")),
)  # fmt: skip
# Mixed images have to pass through the frozen layers themselves, so it is only for whole networks.
MIXUP = Parameter(name="mixup", choices=(0.0, 0.1, 0.2, 0.4))
LINEAR_PROBES: Space = (
    Parameter(name="C", low=1e-5, high=1e2, log=True, short="C "),
    Parameter(name="balance", choices=("weights", "none"), short=""),
    Parameter(name="augment", choices=("none", "flip", "flip-rotate", "wide"), short=""),
    Parameter(name="variants", low=1, high=4, when=("augment", ("flip", "flip-rotate", "wide")),
              short="x"),
)  # fmt: skip
# Known good points beside a model's own, as what they change of it.
BESIDE: Sequence[dict[str, Value]] = (
    {"augment": "wide"},
    {"head_depth": 0, "dropout": 0.2, "augment": "flip"},
)


def space_of(row: ModelRow) -> Space:
    """Return what is searched for a model."""
    if row.strategy == LINEAR_PROBE:
        return LINEAR_PROBES
    if row.architecture == MAMMO_CNN:  # which has a head of its own
        return (*LEARNING, MIXUP)
    if not row.trained_from:
        return (*HEAD, *LEARNING, MIXUP)
    trained_from = Parameter(name="trained_from", choices=TRAINED_FROM[row.architecture], short="")
    return (trained_from, *HEAD, *LEARNING)


def start_points(row: ModelRow, scratch: bool) -> list[tuple[dict[str, Value], bool]]:
    """Return the points that a search begins with, and of each whether it is the model's own."""
    space = space_of(row)
    if row.strategy == LINEAR_PROBE:  # its own is the best of these
        return [({"C": c, "balance": "weights", "augment": "none"}, True) for c in STRENGTHS]
    own = own_values(row, scratch) | {
        "trained_from": row.trained_from,
        "head_depth": len(row.head.widths),
        "head_width": row.head.widths[0] if row.head.widths else 0,
        "dropout": row.head.dropout,
    }
    points = [_fitting(space, own)]
    points += [point for change in BESIDE if (point := _fitting(space, own | change)) not in points]
    return [(point, not number) for number, point in enumerate(points)]


def _fitting(space: Space, values: Mapping[str, Any]) -> dict[str, Value]:
    point: dict[str, Value] = {}
    for parameter in space:
        if parameter.applies(point):
            point[parameter.name] = values[parameter.target]
    return point


def short(space: Space, params: Mapping[str, Any]) -> str:
    """Return the most important values of a point in a few words, for a line in the terminal."""
    parts = []
    for parameter in space:
        value = params.get(parameter.name)
        if value is not None and parameter.short is not None:
            text = f"{value:.1g}" if isinstance(value, float) else str(value)
            parts.append(f"{parameter.short}{text.removeprefix('features.')}")
    return " ".join(parts)


def learns(answers: Answers) -> bool:
    """Return whether a model's layers are trained step by step, which a linear probe is not."""
    row = MODELS.get(str(answers.get("model")))
    return row is None or row.strategy != LINEAR_PROBE


def tunable_choices(_answers: Answers) -> dict[str, str]:
    """Return the models whose hyper-parameters can be searched, for a question."""
    rows = [row for row in MODELS.values() if not row.is_detector]
    return {row.name: f"{row.description}; {_extent(row)}" for row in rows}


def _extent(row: ModelRow) -> str:
    return f"{len(space_of(row))} hyper-parameters"
