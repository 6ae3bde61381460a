"""What explanation, baselines, comparison and the shortcut probe find, as their JSON files hold it.

With the types of fields that `pipeline.schemas` shares.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=10**12)]
Size = Annotated[int, Meta(ge=0, le=2**15)]  # of an image or a layer
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=10**10)]
FoldNumber = Annotated[int, Meta(ge=0, le=9999)]
Unit = Literal["mammogram", "crop", "patch"]
# A dataset's two labels, the negative one first; counts stand under "benign" and "malignant".
LabelPair = tuple[Literal["benign", "not_malignant", "normal"], Literal["malignant", "abnormal"]]
BENIGN_MALIGNANT: LabelPair = ("benign", "malignant")


class Interval(Struct):
    """A measure with its 95 % interval; null where nothing can be said."""

    value: float | None
    low: float | None
    high: float | None


ByGroup = dict[str, dict[str, Interval]]  # group of images -> score of a map


class RandomUnit(Struct):
    """How far heat-maps stayed as they were when a unit of the network lost what it learnt."""

    unit: str
    correlation: float | None


class MapChecks(Struct):
    """Whether heat-maps are true to their network."""

    images: Count
    deletion: dict[str, Interval]
    insertion: dict[str, Interval]
    randomised: list[RandomUnit]
    single_mirror: Interval | None = None  # earlier versions: "mirror", of means, so always 1


class MapScale(Struct):
    """The one scale that the error maps of a run are drawn on."""

    median: float  # error of pixels of normal validation images
    limit: float  # quantile of them, the middle of the scale
    top: float  # its end
    quantile: Share
    images: Count


class MapStratum(Struct):
    """What heat-maps are worth on test images of one kind."""

    factor: str
    level: str
    images: Count
    patients: Count
    scores: ByGroup  # by kind of map, not by group


class Explanations(Struct):
    """explanations.json: what the heat-maps of a run are worth."""

    method: str
    evidence: Literal["called", "malignant", "benign", "errors"]
    images: Count
    drawn: Count
    scored: Count
    patients: Count
    tolerance: Share
    thresholds: dict[str, Share]
    scores: dict[str, ByGroup]
    leads: dict[str, ByGroup]
    checks: MapChecks | None
    masks_set_aside: Count
    labels: LabelPair = BENIGN_MALIGNANT
    scale: MapScale | None = None
    untrained_networks: Count = 1  # whose mean is the baseline; earlier versions had one
    strata: list[MapStratum] = []


class BaselineScores(Struct):
    """The probabilities of one baseline, by image_id."""

    name: str
    title: str
    description: str
    val: dict[str, Share]
    test: dict[str, Share]
    problem: str = ""


class Baselines(Struct):
    """The sanity baselines of a dataset."""

    data_hash: str
    seed: int
    baselines: list[BaselineScores]
    splits: str = ""
    images: str = ""
    code: str = ""


class KeptScores(Struct):
    """Scores of test images that `compare --anomaly` made."""

    key: str  # digest of what they depend on
    scores: dict[str, dict[str, Share]]  # by name and image_id


class MeasuredCosts(Struct):
    """What networks cost on one machine."""

    machine: dict[str, str | int]
    points: dict[str, dict[str, dict[str, list[float]]]]  # by network, what, and size


class DetectorsBeside(Struct):
    """anomaly.json: detectors beside classifiers."""

    inputs: str  # digest of what evaluation measured of the runs
    runs: list[str]
    unit: str
    words: list[str]
    lines: list[dict[str, str | float | None]]  # of anomaly.csv
    seeds: list[dict[str, Any]]
    machine: dict[str, str | int]
    slopes: dict[str, dict[str, Interval]]
    labels: LabelPair = BENIGN_MALIGNANT


class Probe(Struct):
    """How well one group of features alone predicts the label."""

    auc: float | None
    low: float | None
    high: float | None
    images: Count
    patients: Count


class Shortcuts(Struct):
    """shortcuts.json: what the probe of a dataset found."""

    summary: str
    warnings: list[str]
    problem: str
    groups: dict[str, Probe]
