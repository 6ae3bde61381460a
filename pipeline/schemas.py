"""What the tool's JSON files hold: each is read through its schema, so a damaged one is one line.

A field with a default may be missing: files of earlier versions lack it. Fields that are not
listed are not looked at.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pipeline.findings import (
    BENIGN_MALIGNANT,
    Baselines,
    Count,
    DetectorsBeside,
    Explanations,
    FoldNumber,
    Interval,
    KeptScores,
    LabelPair,
    MeasuredCosts,
    Seconds,
    Share,
    Shortcuts,
    Size,
    Unit,
)


class Counts(Struct):
    """What a stage made, in figures; more by stage."""

    fold: FoldNumber = 0
    folds: FoldNumber | dict[str, Any] = 0  # of a dataset, its folds' sizes
    epochs: Count = 0
    best_epoch: Count = 0
    best_val_auc: Share | None = None
    peak_memory: float | None = None
    splits: dict[str, dict[str, Any]] = {}
    left_out: list[dict[str, Any]] = []


class Source(Struct):
    """The dataset that one was made from."""

    folder: str
    relative: str
    hash: str
    options: dict[str, Any]


class StageRecord(Struct):
    """stage.json: written last, when a stage's folder is complete."""

    stage: str
    options: dict[str, Any]
    counts: Counts
    input_hash: str = ""
    seconds: Seconds = 0
    time: str = ""
    versions: dict[str, str] = {}
    pixels: str | None = None
    source: Source | None = None


class Begun(Struct):
    """unfinished.json: written first; the folder is the stage's, and not complete."""

    stage: str
    options: dict[str, Any]
    time: str = ""


class AnsweredStage(Struct):
    """One stage of an answers file."""

    stage: str
    options: dict[str, Any]


class Answers(Struct):
    """answers.json: stages with their options, to be run again."""

    stages: list[AnsweredStage]


class HeadFacts(Struct):
    """The head of a network."""

    widths: Annotated[list[Annotated[int, Meta(ge=1, le=2**15)]], Meta(max_length=16)]
    dropout: Share
    error: Literal["", "mse", "l1", "ssim", "mix", "patches", "elsewhere"] = ""


class Input(Struct):
    """What a network takes."""

    size: Size
    channels: Annotated[int, Meta(ge=0, le=4)]
    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0


class Patients(Struct):
    """Who was trained and validated on."""

    train: list[str]
    val: list[str]


class Search(Struct):
    """Where hyper-parameters come from."""

    study: str
    trial: Count
    val_auc: float
    params: dict[str, Any]


class Model(Struct):
    """model.json: all that prediction, evaluation and the report need to know of a run."""

    model: str
    architecture: str
    strategy: Literal["opw", "pft", "cft", "anomaly", "ensemble", "elsewhere"]
    input: Input
    weights: str
    parameters: Count
    trainable: Count
    unit: Unit
    data: str
    data_hash: str
    patients: Patients
    preprocess: dict[str, Any] | None
    depth: Literal[8, 16] = 16
    trained_from: str = ""
    untrained_head: bool = False
    head: HeadFacts | None = None
    weights_hash: str = ""
    precision: Literal["fp32", "bf16"] = "fp32"
    pixels: dict[str, str] = {}
    fold: FoldNumber = 0
    folds: FoldNumber = 0
    tuning: Search | None = None
    recipe: dict[str, Any] = {}
    members: list[str] | None = None
    labels: LabelPair = BENIGN_MALIGNANT


class ExportedInput(Input):
    """What an exported network takes."""

    size: Annotated[int, Meta(ge=1, le=2**15)]


class ExportedFacts(Struct):
    """What an exported model says of its run: model.json without patients and places."""

    model: str
    architecture: str
    strategy: str
    input: ExportedInput
    weights: str
    unit: Unit
    preprocess: dict[str, Any] | None
    depth: Literal[8, 16] = 16
    head: HeadFacts | None = None
    labels: LabelPair = BENIGN_MALIGNANT


class CalibrationFacts(Struct):
    """How logits become probabilities."""

    method: Literal["temperature", "isotonic", "normals", "none"]
    temperature: Annotated[float, Meta(gt=0)] | None
    x: list[Share]
    y: list[Share]
    normal: tuple[float, Annotated[float, Meta(gt=0)]] | None = None


class SplitFigures(Struct):
    """What was measured on one split."""

    images: Count
    patients: Count
    benign: Count  # of the negative label
    malignant: Count  # of the positive one
    metrics: dict[str, Interval]


class Point(Struct):
    """An operating point."""

    threshold: Annotated[float, Meta(ge=0, le=1.001)]  # just above 1 where none is called malignant
    rule: str


class AnomalyFigures(Struct):
    """What an anomaly detector's threshold is, and how many normal test images it flags."""

    error: str  # what the score is
    mean: float  # of the errors of normal validation images
    sd: Annotated[float, Meta(gt=0)]  # their standard deviation
    threshold: float  # an image whose error reaches it is anomalous
    normals: dict[str, Count]  # normal images by split
    flagged: dict[str, float | None]  # share of them that the threshold flags, by split


class Exported(Struct):
    """The metadata of model.onnx: all that predicting needs beside the network."""

    mammolab: dict[str, Any]
    run: str
    model: ExportedFacts
    calibration: CalibrationFacts
    operating_point: Point
    units: dict[str, Point]
    aggregate: Literal["max", "mean"]
    tta: Literal["none", "flips"]
    splits: dict[str, SplitFigures]
    anomaly: AnomalyFigures | None = None
    labels: LabelPair = BENIGN_MALIGNANT


class UnitFigures(Point):
    """What was measured on breasts or patients, at an operating point of their own."""

    splits: dict[str, SplitFigures]


class Stratum(Struct):
    """The AUC on a part of the test images."""

    factor: str
    level: str
    images: Count
    patients: Count
    malignant: Count
    auc: Interval
    small: bool


class Metrics(Struct):
    """metrics.json: what evaluation measured."""

    model: str
    data: str | None
    data_hash: str
    unit: Unit
    calibration: CalibrationFacts
    aggregate: Literal["max", "mean"]
    tta: Literal["none", "flips"]
    replicates: Annotated[int, Meta(ge=0, le=10**7)]
    seed: int
    operating_point: Point
    splits: dict[str, SplitFigures]
    units: dict[str, UnitFigures]
    uncalibrated: dict[str, dict[str, float | None]]
    strata: list[Stratum]
    cost: dict[str, float | str | None]
    notes: list[str]
    anomaly: AnomalyFigures | None = None
    test_images: str = ""
    preprocess: dict[str, Any] | None = None
    labels: LabelPair = BENIGN_MALIGNANT


class Best(Search):
    """best.json of a search."""

    model: str
    data_hash: str
    finished: str


class DomainFacts(Struct):
    """domain.json: what tells a run's training images from others."""

    key: str
    statistics: list[str]
    limits: dict[str, float]
    sides: tuple[int, int] | None


class CacheIndex(Struct):
    """The index of the decoded images of a dataset."""

    code: str
    file: str
    count: Count
    images: dict[str, tuple[Count, Count, int]]
    check: str


Memory = dict[str, dict[str, Any]]  # stage -> option -> last answer
SCHEMAS: dict[str, Any] = {  # by the name of the file, or of the hidden folder that it lies in
    "stage.json": StageRecord,
    "unfinished.json": Begun,
    "answers.json": Answers,
    "model.json": Model,
    "metrics.json": Metrics,
    "model.onnx": Exported,
    "anomaly.json": DetectorsBeside,
    "best.json": Best,
    "domain.json": DomainFacts,
    "explanations.json": Explanations,
    "shortcuts.json": Shortcuts,
    ".baselines": Baselines,
    ".anomaly": KeptScores,
    ".costs": MeasuredCosts,
    ".cache": CacheIndex,
    ".mammolab": Memory,
}
