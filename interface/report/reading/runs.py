"""Reads run folders into what the report shows; a run that cannot be read is refused in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.reading.anomaly import CALLS, Anomaly
from interface.report.reading.scores import (
    COST_NAMES,
    Scores,
    Stratum,
    UnitScores,
    number,
    strata_of,
    units_of,
)
from interface.report.reading.words import count
from models.evaluation.tested import Tested, tested_of
from pipeline.errors import UserError
from pipeline.folds import Fold
from pipeline.labels import KEYS, Labels, is_rare
from pipeline.records import read_json
from pipeline.runs import ANOMALY, Run
from pipeline.tables import read_table

STRATEGIES = {  # what the ends of models' names stand for
    "opw": "OPW: only pretrained weights",
    "pft": "PFT: partial fine tuning",
    "cft": "CFT: complete fine tuning",
    "anomaly": "Anomaly detector: learnt from normal images alone, without labels",
}


@dataclass(frozen=True)
class Prediction:
    """One line of predictions_{val,test}.csv."""

    image_id: str  # of the image
    patient_id: str  # whose it is
    laterality: str  # "LEFT", "RIGHT" or empty
    view: str  # "CC", "MLO" or empty
    malignant: bool  # the truth
    # Of malignancy, calibrated, in [0, 1]; of an anomaly detector what orders images as errors do.
    probability: float
    positive: bool  # the call at the operating point
    error: float | None = None  # that an anomaly detector gave; None of a classifier

    @property
    def label(self) -> str:
        """The truth by the names of the usual pair, whatever the dataset's two labels are."""
        return KEYS[self.malignant]

    @property
    def score(self) -> float:
        """What the run said of it: a probability, or the error of an anomaly detector."""
        return self.probability if self.error is None else self.error


@dataclass(frozen=True)
class RunView:
    """An evaluated run, read."""

    name: str  # "<model>/<time>-<seed>"
    anchor: str  # its name as an HTML id
    folder: Path  # where it lies
    model: str  # the registry name of its model
    fold: Fold  # what it was validated on
    trained_patients: frozenset[str]  # whose images it learnt from
    architecture: str  # the network's name
    strategy: str  # what of it was trained
    weights: str  # what it started from
    parameters: int  # of the network
    trainable: int  # of these, how many were trained
    size: int  # side of the network's input in pixels
    channels: int  # of the network's input
    precision: str  # of the arithmetic of its training, "fp32" or "bf16"; empty where not known
    preprocessing: Mapping[str, Any] | None  # options of preprocessing; None where there was none
    trained_on: Path  # the dataset of its training
    record: Mapping[str, Any]  # stage.json of what made the folder: its training, mostly
    # Options of training as they were in the end, where they are not those of `record`.
    recipe: Mapping[str, Any]
    # The search that they come from; None where they come from none.
    tuning: Mapping[str, Any] | None
    replicates: int  # of the bootstrap behind the intervals
    seed: int  # of the bootstrap
    notes: Sequence[str]  # what evaluation warned of
    # The dataset that it was evaluated on; None for predictions made elsewhere without one.
    data: Path | None
    tested: Tested  # which images of it, and how they were preprocessed
    unit: str  # what one image is: "mammogram", "crop" or "patch"
    calibration: Mapping[str, Any]  # method and temperature
    aggregate: str  # how the scores of images became one of a breast or a patient: "max" or "mean"
    tta: str  # test-time augmentation: "none" or "flips"
    units: Mapping[str, UnitScores]  # figures of images, breasts and patients
    # By split, Brier score and calibration error before calibration.
    uncalibrated: Mapping[str, Mapping[str, float | None]]
    strata: Sequence[Stratum]  # of the test images
    cost: Mapping[str, Any]  # by the names of COST_NAMES; None where it was not measured
    predictions: Mapping[str, list[Prediction]]  # by split; empty where the file is missing
    history: list[dict[str, float]]  # one mapping of finite figures for each epoch
    labels: Labels  # of the images that it was evaluated on
    anomaly: Anomaly | None  # of an anomaly detector; None of a classifier
    way: Mapping[str, Any]  # options of evaluation; empty where an earlier version did not say

    @property
    def scores(self) -> Mapping[str, Scores]:
        """Figures of single images by split: "test", and "val" where there is one."""
        return self.units["image"].splits

    @property
    def test(self) -> Scores:
        """Figures of the test images."""
        return self.scores["test"]

    @property
    def rare(self) -> bool:
        """Whether few test images are positive: then PR AUC leads."""
        return is_rare(self.test.malignant, self.test.images)

    @property
    def threshold(self) -> float:
        """The operating point of single images, a probability in [0, 1]."""
        return self.units["image"].threshold

    @property
    def rule(self) -> str:
        """How it was chosen on validation."""
        return self.units["image"].rule

    def threshold_text(self, unit: str = "image") -> str:
        """Return the operating point as people read it: "0.512", of a detector "+2.0 SD"."""
        threshold = self.units[unit].threshold
        if self.anomaly is None:
            return f"{threshold:.3f}"
        away = math.log(threshold) - math.log1p(-threshold) if 0 < threshold < 1 else math.inf
        return f"{away:+.1f} SD".replace("-", "\N{MINUS SIGN}")

    def score_text(self, score: float) -> str:
        """Return a probability, or an error, as people read it: "0.83", "+2.7 SD"."""
        return f"{score:.2f}" if self.anomaly is None else self.anomaly.short(score)

    def score_words(self, score: float) -> str:
        """Return that in words: "probability 0.83"."""
        if self.anomaly is None:
            return f"probability {score:.2f}"
        return f"error {self.anomaly.words(score)}"

    @property
    def calls(self) -> tuple[str, str]:
        """What images are called below the threshold, and from it on."""
        return self.labels.names if self.anomaly is None else CALLS

    def outcome(self, malignant: bool, positive: bool) -> str:
        """Return truth and call in words: "Malignant, called benign"."""
        return f"{self.labels.name(malignant).capitalize()}, called {self.calls[positive]}"

    @property
    def val_auc(self) -> float:
        """The validation AUC; below all others where there is none."""
        return self.scores["val"].of("auc").value or 0.0 if "val" in self.scores else 0.0

    @property
    def options(self) -> dict[str, Any]:
        """The options of its training, with what the model or a search filled in."""
        return {**self.record.get("options", {}), **self.recipe}

    @property
    def tuned_values(self) -> str:
        """What its search found, in words: "learning rate 0.00123, balance weights"."""
        params = self.tuning["params"] if self.tuning else {}
        return ", ".join(
            f"{name.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
            for name, value in params.items()
        )

    @property
    def title(self) -> str:
        """Its model, and its fold where it has one: "ResNet18_CFT, fold 2 of 5"."""
        return f"{self.model}, {self.fold.name}" if self.fold.number else self.model

    @property
    def linear_probe(self) -> bool:
        """Whether its layers stayed frozen, and a linear probe was fitted on them."""
        return self.strategy.lower() == "opw"

    @property
    def untrained_head(self) -> bool:
        """Whether it is the control whose head was left random: nothing was fitted."""
        return bool(self.options.get("untrained_head"))

    @property
    def elsewhere(self) -> bool:
        """Whether its predictions were made elsewhere, from images that went through who knows."""
        return str(self.record["stage"]) == "evaluate"

    @property
    def start(self) -> str:
        """What its network started from, in words."""
        named = {"none": "random weights", "imagenet": "ImageNet weights"}
        return named.get(self.weights, f"the weights of {self.weights}")

    @property
    def input_text(self) -> str:
        """Its network's input, to follow the network's name in a sentence."""
        channels = count(self.channels, "channel")
        return f", with an input of {self.size} x {self.size} pixels and {channels},"

    @property
    def training_text(self) -> str:
        """What its network started from and what of it was trained, to end a sentence."""
        whole = "" if self.trainable == self.parameters else f" of {self.parameters:,}"
        parts = f"{self.trainable:,}{whole} parameters"
        if self.linear_probe:
            missing = (
                ", as no pretrained weights were given: a control, not transfer learning"
                if self.weights == "none"
                else ""
            )
            if self.untrained_head:
                return f"was frozen at {self.start}, its head left random: a control ({parts})"
            return f"was frozen at {self.start}{missing}; a linear probe was fitted ({parts})"
        if self.strategy == ANOMALY:
            if self.keeps_patches:
                bank = "its memory bank was filled with patches of normal training images"
                return f"was frozen at {self.start}; {bank}"
            return f"started from {self.start} and learnt to restore normal images ({parts})"
        layers = {"pft": "its last stages and its head", "cft": "all its layers"}
        what = layers.get(self.strategy.lower(), self.strategy)
        return f"started from {self.start}; {what} were trained ({parts})"

    @property
    def keeps_patches(self) -> bool:
        """Whether it is a PatchCore, which is not trained: it keeps patches of normal images."""
        return self.anomaly is not None and self.anomaly.error == "patches"

    @property
    def stepped(self) -> bool:
        """Whether it was trained here, by gradient steps."""
        trained = self.record["stage"] == "train"
        return trained and not self.linear_probe and not self.keeps_patches

    @property
    def epochs(self) -> int:
        """How many epochs were trained; 0 for a linear probe, which is fitted."""
        return sum("epoch" in row for row in self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept; 0 for a linear probe."""
        return int(self.record["counts"].get("best_epoch", 0))

    @property
    def slug(self) -> str:
        """Its name as a folder's: "ResNet18_CFT-20260102-030405-42"."""
        return self.name.replace("/", "-")

    @property
    def data_hash(self) -> str:
        """Digest of which images its dataset holds."""
        return self.tested.data_hash

    @property
    def test_set(self) -> tuple[str, int, int]:
        """What has to be equal for two runs to stand in one table."""
        return self.tested.images, self.test.images, self.test.malignant


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
            record=record,
            history=_history(run.folder / "history.csv"),
            predictions={split: _predictions(run.folder, split) for split in ("val", "test")},
            **_model(info),
            **_measured(measured),
            tested=tested_of(run.folder, measured),
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{run.folder}: does not hold what train and evaluate write ({error!r})",
            f"evaluate again with: python main.py evaluate --run {run.folder} --batch",
        ) from None


def _model(info: Mapping[str, Any]) -> dict[str, Any]:
    """Read model.json."""
    return {
        "fold": Fold.of(info),
        "trained_patients": frozenset(info["patients"]["train"]),
        "architecture": str(info["architecture"]),
        "strategy": str(info["strategy"]),
        "weights": str(info["weights"]),
        "parameters": int(info["parameters"]),
        "trainable": int(info["trainable"]),
        "size": int(info["input"]["size"]),
        "channels": int(info["input"]["channels"]),
        "precision": str(info.get("precision", "")),
        "preprocessing": info["preprocess"],
        "trained_on": Path(info["data"]),
        "recipe": info.get("recipe", {}),  # runs of earlier versions do not say
        "tuning": info.get("tuning"),
    }


def _measured(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Read metrics.json."""
    return {
        "model": str(measured["model"]),
        "labels": Labels.recorded(measured),
        "replicates": int(measured["replicates"]),
        "seed": int(measured["seed"]),
        "notes": [str(note) for note in measured["notes"]],
        "data": Path(measured["data"]) if measured["data"] else None,
        "unit": str(measured["unit"]),
        "calibration": {"temperature": None} | measured["calibration"],
        "aggregate": str(measured["aggregate"]),
        "tta": str(measured["tta"]),
        "units": units_of(measured),
        "uncalibrated": {
            split: {name: number(found[name]) for name in ("brier", "ece")}
            for split, found in measured["uncalibrated"].items()
        },
        "strata": strata_of(measured),
        "cost": {name: measured["cost"].get(name) for name in COST_NAMES},
        "anomaly": Anomaly.recorded(measured.get("anomaly")),
        "way": measured.get("options", {}),
    }


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    return [dict(line.cells) for line in read_table(path).lines]


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
            error=float(row["error"]) if "error" in row else None,
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
