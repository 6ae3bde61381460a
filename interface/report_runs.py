"""Reads run folders into what the report shows; a run that cannot be read is refused in words."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.folds import Fold
from pipeline.records import read_json
from pipeline.runs import Run

METRIC_NAMES = {
    "auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "sensitivity": "Sensitivity (recall)",
    "specificity": "Specificity",
    "precision": "Precision",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "f1": "F1",
    "mcc": "Matthews correlation (MCC)",
    "brier": "Brier score (lower is better)",
}
NONE = "\u2013"  # an en dash, where a figure does not exist


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where it does not exist."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def value_text(self) -> str:
        """The figure to three decimals."""
        return NONE if self.value is None else f"{self.value:.3f}"

    @property
    def range_text(self) -> str:
        """Its interval, such as "0.812-0.934"."""
        if self.low is None or self.high is None:
            return NONE
        between = " to " if self.low < 0 else NONE
        return f"{self.low:.3f}{between}{self.high:.3f}"


UNKNOWN = Interval(None, None, None)


@dataclass(frozen=True)
class Scores:
    """What evaluation measured on one split.

    Attributes:
        images: How many were scored.
        patients: How many patients they show.
        benign: Images whose truth is benign.
        malignant: Images whose truth is malignant.
        metrics: By the names of metrics.json.
        confusion: tn, fp, fn, tp at the operating point, in images.
    """

    images: int
    patients: int
    benign: int
    malignant: int
    metrics: Mapping[str, Interval]
    confusion: Mapping[str, int]

    @property
    def base_rate(self) -> float | None:
        """The share of malignant images: what guessing reaches as PR AUC."""
        return self.malignant / self.images if self.images else None

    def of(self, metric: str) -> Interval:
        """Return a metric; without figures where it was not measured."""
        return self.metrics.get(metric, UNKNOWN)

    def text(self, metric: str) -> str:
        """Return a metric and its interval in one line."""
        found = self.of(metric)
        return f"{found.value_text} [{found.range_text}]"


@dataclass(frozen=True)
class Prediction:
    """One line of predictions_{val,test}.csv; `positive` is the call at the operating point."""

    image_id: str
    patient_id: str
    laterality: str
    view: str
    malignant: bool
    probability: float
    positive: bool


@dataclass(frozen=True)
class RunView:
    """An evaluated run, read.

    Attributes:
        name: "<model>/<time>-<seed>".
        anchor: Its name as an HTML id.
        folder: Where it lies.
        model: The registry name of its model.
        fold: What it was validated on.
        trained_patients: Whose images it learnt from.
        architecture: The network's name.
        strategy: What of it was trained.
        weights: What it started from.
        parameters: Of the network.
        trainable: Of these, how many were trained.
        size: Side of the network's input in pixels.
        channels: Of the network's input.
        preprocessing: Options of preprocessing; None where there was none.
        trained_on: The dataset of its training.
        record: stage.json of its training.
        replicates: Of the bootstrap behind the intervals.
        seed: Of the bootstrap.
        notes: What evaluation warned of.
        data: The dataset that it was evaluated on.
        data_hash: Digest of that dataset's manifest.
        threshold: The operating point, a probability in [0, 1].
        rule: How the operating point was chosen on validation.
        scores: By split, "val" and "test".
        predictions: By split; empty where the file is missing.
        history: One mapping of finite figures for each epoch.
    """

    name: str
    anchor: str
    folder: Path
    model: str
    fold: Fold
    trained_patients: frozenset[str]
    architecture: str
    strategy: str
    weights: str
    parameters: int
    trainable: int
    size: int
    channels: int
    preprocessing: Mapping[str, Any] | None
    trained_on: Path
    record: Mapping[str, Any]
    replicates: int
    seed: int
    notes: Sequence[str]
    data: Path
    data_hash: str
    threshold: float
    rule: str
    scores: Mapping[str, Scores]
    predictions: Mapping[str, list[Prediction]]
    history: list[dict[str, float]]

    @property
    def title(self) -> str:
        """Its model, and its fold where it has one: "ResNet18_CFT, fold 2 of 5"."""
        return f"{self.model}, {self.fold.name}" if self.fold.number else self.model

    @property
    def epochs(self) -> int:
        """How many epochs were trained; 0 for a read-out, which is fitted."""
        return sum("epoch" in row for row in self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept; 0 for a read-out."""
        return int(self.record["counts"].get("best_epoch", 0))

    @property
    def test_set(self) -> tuple[str, int, int]:
        """What has to be equal for two runs to stand in one table."""
        test = self.scores["test"]
        return self.data_hash, test.images, test.malignant


def read_run(run: Run) -> RunView:
    """Read an evaluated run.

    Raises:
        UserError: A file of it is missing or does not hold what evaluate writes.
    """
    record, measured = run.record(), run.metrics()
    info = read_json(run.folder / "model.json")
    try:
        return RunView(
            name=run.name,
            anchor="run-" + "".join(c if c.isalnum() else "-" for c in run.name),
            folder=run.folder,
            model=str(measured["model"]),
            fold=Fold.of(info),
            trained_patients=frozenset(info["patients"]["train"]),
            architecture=str(info["architecture"]),
            strategy=str(info["strategy"]),
            weights=str(info["weights"]),
            parameters=int(info["parameters"]),
            trainable=int(info["trainable"]),
            size=int(info["input"]["size"]),
            channels=int(info["input"]["channels"]),
            preprocessing=info["preprocess"],
            trained_on=Path(info["data"]),
            record=record,
            replicates=int(measured["replicates"]),
            seed=int(measured["seed"]),
            notes=[str(note) for note in measured["notes"]],
            data=Path(measured["data"]),
            data_hash=str(measured["data_hash"]),
            threshold=float(measured["operating_point"]["threshold"]),
            rule=str(measured["operating_point"]["rule"]),
            scores={split: _scores(measured["splits"][split]) for split in ("val", "test")},
            predictions={split: _predictions(run.folder, split) for split in ("val", "test")},
            history=_history(run.folder / "history.csv"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run.folder}: does not hold what train and evaluate write ({error!r})",
            f"evaluate again with: python main.py evaluate --run {run.folder} --batch",
        ) from None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _scores(data: Mapping[str, Any]) -> Scores:
    return Scores(
        images=int(data["images"]),
        patients=int(data["patients"]),
        benign=int(data["benign"]),
        malignant=int(data["malignant"]),
        metrics={
            name: Interval(*(_number(item.get(part)) for part in ("value", "low", "high")))
            for name, item in data["metrics"].items()
        },
        confusion={cell: int(data["confusion"][cell]) for cell in ("tn", "fp", "fn", "tp")},
    )


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _predictions(folder: Path, split: str) -> list[Prediction]:
    return [
        Prediction(
            image_id=row["image_id"],
            patient_id=row["patient_id"],
            laterality=row["laterality"],
            view=row["view"],
            malignant=bool(int(row["target"])),
            probability=float(row["probability"]),
            positive=row["predicted"] in ("1", "malignant"),
        )
        for row in _table(folder / f"predictions_{split}.csv")
    ]


def _history(path: Path) -> list[dict[str, float]]:
    """Read the figures of each epoch, leaving out what is empty, not finite or no figure."""
    rows = []
    for line in _table(path):
        row = {}
        for name, text in line.items():
            try:
                value = float(text)
            except ValueError:
                continue
            if math.isfinite(value):
                row[name] = value
        rows.append(row)
    return rows
