"""Input and result of a training, and how they are recorded: model.json, headline, notes."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.data.loading import EvalTransform, Split
from models.inference import Compute
from models.registry import IMAGENET, NO_WEIGHTS, Head, ModelRow, takes_weights
from pipeline.folds import Fold
from pipeline.labels import FEW_POSITIVES, Labels, is_normal, is_rare
from pipeline.options import defaults
from pipeline.progress import Cell, Table
from pipeline.provenance import SOURCE, dataset_hash
from pipeline.records import digest, file_digest
from pipeline.stages.training import Train

FEW_PATIENTS = 20


@dataclass(frozen=True, kw_only=True)
class HyperParameters:
    """How a network is trained; see `pipeline.stages.training.Train` for the meanings."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    augment: str
    seed: int
    optimizer: str = "adamw"
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    balance: str = "weights"
    mixup: float = 0.0
    ema: float = 0.0
    parts: int = 1
    clip: float = 1.0
    variants: int = 0
    compile: bool = False
    reconstruction: bool = False  # whether images are restored, not classified


@dataclass(frozen=True)
class FitResult:
    """What training gave."""

    # One row for each epoch, or for each linear probe that was tried.
    history: Sequence[Mapping[str, Cell]]
    best: Mapping[str, Any]  # the row of the weights that were kept
    epochs: int  # epochs that were trained; 0 for a linear probe
    best_epoch: int  # the epoch of the weights that were kept; 0 for a linear probe


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained from: images, and how they become tensors."""

    folder: Path  # the dataset on disk
    train: Split  # its training images
    val: Split  # its validation images
    transform: EvalTransform  # makes tensors of them
    compute: Compute  # device and arithmetic

    @property
    def images(self) -> str:
        """A digest of which images there are."""
        return digest([[row.image_id for row in split.rows] for split in (self.train, self.val)])

    @property
    def positive_weight(self) -> float:
        """Negative for each positive training image: weighs the classes equally in the loss."""
        malignant = float(self.train.targets.sum())  # 0 where normal images alone are learnt from
        return (len(self.train) - malignant) / malignant if malignant else 1.0


def starting_weights(options: Train) -> str:
    """Return what a training starts from; a model that takes no weights starts from none."""
    return options.weights if takes_weights({"model": options.model}) else NO_WEIGHTS


def head_of(options: Train, row: ModelRow) -> Head:
    """Return the head of a training's network: the row's, with the error that is asked for."""
    if options.loss == defaults(Train)["loss"]:
        return row.head
    return dataclasses.replace(row.head, error=options.loss)


def model_facts(
    options: Train,
    row: ModelRow,
    counts: tuple[int, int],
    data: TrainingData,
    data_record: Mapping[str, Any],
    fold: Fold,
) -> dict[str, Any]:
    """Return model.json: all that prediction, evaluation and the report need to know."""
    parameters, trainable = counts
    weights = starting_weights(options)
    file = Path(weights).expanduser()
    named = weights in (NO_WEIGHTS, IMAGENET)
    transform = data.transform
    first = data.train.rows[0]
    return {
        "model": row.name,
        "architecture": row.architecture,
        "strategy": row.strategy,
        "trained_from": row.trained_from,
        "untrained_head": options.untrained_head,
        "head": head_of(options, row).record,
        "input": {
            "size": options.size or row.size,
            "channels": 1,
            "mean": transform.mean,
            "std": transform.std,
        },
        "weights": weights if named else str(file.resolve()),
        "weights_hash": "" if named else file_digest(file),
        "precision": data.compute.precision,
        "parameters": parameters,
        "trainable": trainable,
        "unit": first.unit,
        "depth": organised_depth(data_record),
        "preprocess": data_record["options"] if data_record["stage"] == "preprocess" else None,
        "data": str(options.data.resolve()),
        "data_hash": dataset_hash(options.data),
        **Labels.of([*data.train.rows, *data.val.rows]).record,
        "pixels": {"train": data.train.content, "val": data.val.content},
        **fold.facts,
        "patients": {"train": data.train.patients, "val": data.val.patients},
    }


def organised_depth(record: Mapping[str, Any]) -> int:
    """Return the bits that the films of a dataset were organised with: 8 or 16."""
    made = record.get(SOURCE, {}).get("options") if record["stage"] == "preprocess" else None
    options = record["options"] if record["stage"] == "organize" else made or {}
    return int(options.get("depth", 16))


def hyper_parameter_facts(hparams: HyperParameters, row: ModelRow) -> dict[str, Any]:
    """Return what model.json says of how it was trained: own and found values filled in.

    A linear probe takes no steps, so it has none of them.
    """
    return {"recipe": dataclasses.asdict(hparams) if row.takes_steps else {}}


def headline(options: Train, fitted: FitResult, counts: Mapping[str, Any]) -> str:
    """Return the result of training, in one sentence."""
    area, fold = counts["best_val_auc"], Fold.of(counts)
    known = "unknown (one class only)" if area is None else f"{area:.3f}"
    known += f" on {fold.name}" if fold.number else ""
    if "patches" in fitted.best:
        kept = f"{fitted.best['patches']:,} patches kept"
        return f"{options.model}: {kept}; validation AUC {known}"
    if fitted.epochs and "sensitivity" not in fitted.best:
        where = f"epoch {fitted.best_epoch} of {fitted.epochs}"
        error = (
            f"smallest error of normal validation images {fitted.best['val_loss']:.3g}, in {where}"
        )
        return f"{options.model}: {error}; AUC there {known}"
    if options.untrained_head:
        return f"{options.model}, control with an untrained head: validation AUC {known}"
    if not fitted.epochs:
        return f"{options.model}: validation AUC {known}, linear probe with C = {fitted.best['C']}"
    where = f"epoch {fitted.best_epoch} of {fitted.epochs}"
    return f"{options.model}: best validation AUC {known}, in {where}"


def best_table(fitted: FitResult) -> Table:
    """Return the figures of the weights that were kept."""
    columns = tuple(name for name in fitted.best if name != "seconds")
    titles = {
        "epoch": "Epoch", "C": "C", "patches": "Patches", "train_loss": "Train loss",
        "val_loss": "Val loss", "val_auc": "Val AUC", "sensitivity": "Sensitivity",
        "specificity": "Specificity",
    }  # fmt: skip
    return Table(
        "The weights that were kept",
        tuple(titles[name] for name in columns),
        (tuple(fitted.best[name] for name in columns),),
    )


def notes_on(options: Train, row: ModelRow, data: TrainingData, from_scratch: bool) -> list[str]:
    """Return what a person should know before believing the figures."""
    notes: list[str] = []
    if row.is_detector:
        return [*notes, *_notes_on_normals(row, data, from_scratch)]
    if from_scratch and row.trained_from:
        notes.append(
            "the frozen layers are random (no weights were given), so this is a control, "
            "not transfer learning"
        )
    if options.untrained_head:
        notes.append("the head is random and was not fitted: the scores are chance")
    if not data.val.both_classes:
        notes.append(
            "validation shows one class only, so there is no AUC; the smallest loss was kept"
        )
    if (few := len(data.val.patients)) < FEW_PATIENTS:
        notes.append(f"validation has {few} patients only: its AUC is a rough figure")
    notes += _notes_on_rarity(options, data)
    side = max(max(one.height, one.width) for one in data.train.rows)
    if side and side < data.train.images.shape[1]:
        size = data.train.images.shape[1]
        notes.append(f"images of {side} pixels were enlarged to {size}")
    return notes


def _notes_on_normals(row: ModelRow, data: TrainingData, from_scratch: bool) -> list[str]:
    """Return what to know before believing the figures of an anomaly detector."""
    notes = []
    if from_scratch and not row.takes_steps:
        notes.append("its features are of random layers (no weights were given): a control")
    if not any(one.diagnosis for one in data.train.rows):
        label = Labels.of([*data.train.rows, *data.val.rows]).negative
        notes.append(f"the dataset has no normal images: those called {label} stand for them")
    count = sum(map(is_normal, data.val.rows))
    if count < FEW_PATIENTS:
        notes.append(f"{count} normal validation images set the threshold: a rough figure")
    return notes


def _notes_on_rarity(options: Train, data: TrainingData) -> list[str]:
    """Return what few positive images ask for; nothing where there are many."""
    train, val = (int(split.targets.sum()) for split in (data.train, data.val))
    if not is_rare(train, len(data.train)):
        return []
    positive = Labels.of(data.train.rows).positive
    notes = []
    if options.balance == "none":
        notes.append(
            f"{train / len(data.train):.1%} of the training images are {positive} and the classes "
            "are not balanced, so the model may call none so: give --balance weights or sampler"
        )
    if val < FEW_POSITIVES:
        notes.append(
            f"{val} of {len(data.val)} validation images are {positive}: the AUC that chooses the "
            "epoch, the calibration and the operating point rest on those"
        )
    return notes
