"""The questionnaire's third part: the stage that trains on a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.options import Answers, between, named, option, split_several, usable_output
from pipeline.records import RECORD, made_by
from pipeline.runs import NEW_RUN, resume_choices
from pipeline.stages_data import Common

AUGMENTATIONS = {  # the recipes of models.augmentation
    "flip": "flips",
    "flip-rotate": "flips and rotations of up to 15 degrees",
    "wide": "these, and shifts, sizes, contrast, blur and grain",
}


OWN = "own"  # of words; of numbers it is None, or 0 where that would make no sense
# Where a person, a search and the model itself have nothing to say.
STANDARD: Mapping[str, Any] = {
    "epochs": 30, "patience": 8, "augment": "flip-rotate", "mixup": 0.0, "optimizer": "adamw",
    "layer_decay": 1.0, "balance": "weights", "label_smoothing": 0.0,
}  # fmt: skip
SEARCHED, RECORDED = "searched", "recorded"  # where hyper-parameters come from


def default_data(_answers: Answers) -> Path:
    """Offer the folder that exists, so that training without preprocessing needs no typing."""
    preprocessed, plain = Path("preprocessed"), Path("dataset")
    return plain if (plain / RECORD).is_file() and not preprocessed.exists() else preprocessed


_takes_weights = named("models.registry:takes_weights")
_was_searched = named("models.tuned:was_searched")


def _is_new_run(answers: Answers) -> bool:
    return bool(answers["resume"] == NEW_RUN)


def _reads_out(answers: Answers) -> bool:
    """Tell whether every chosen model is frozen but for its read-out."""
    return all(name.endswith("_OPW") for name in split_several(answers["model"]))


def _learns(answers: Answers) -> bool:
    """Tell whether layers are trained step by step, which a read-out is not."""
    return _is_new_run(answers) and not _reads_out(answers)


def _own(name: str) -> dict[str, str]:
    """Return the choice of leaving an option to the model, or to a search for it."""
    return {OWN: f"{STANDARD[name]}, or as a search found"}


def _augments(answers: Answers) -> bool:
    return _learns(answers) and answers["augment"] != "none"


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train one model or several and keep their best weights."""

    resume: str = option(
        NEW_RUN,
        "Run to continue",
        choices=resume_choices,
        other="a run folder",
        when=lambda answers: answers["resume"] != NEW_RUN or len(resume_choices(answers)) > 1,
        remember=False,
    )
    data: Path = option(
        Path("preprocessed"),
        "Folder of the dataset to train on",
        check=made_by("preprocess", "organize"),
        suggest=default_data,
        when=_is_new_run,
    )
    model: str = option(
        "ResNet18_CFT",
        "Model",
        choices=named("models.registry:model_choices"),
        several=True,
        when=_is_new_run,
    )
    weights: str = option(
        "imagenet",
        "Pretrained weights",
        choices=named("models.registry:weights_choices"),
        other="a weights file (.safetensors, .pth, .pt)",
        suggest=named("models.registry:suggested_weights"),
        when=lambda answers: _is_new_run(answers) and _takes_weights(answers),
    )
    hyperparameters: str = option(
        SEARCHED,
        "Hyper-parameters (options that are given win)",
        choices={
            SEARCHED: "those of the newest search on this dataset, where there is one",
            RECORDED: "the model's own, whatever a search has found",
        },
        other="the name of a study",
        when=lambda answers: _is_new_run(answers) and _was_searched(answers),
        remember=False,
    )
    epochs: int | None = option(
        None,
        f"Epochs at most; it stops early (empty: {STANDARD['epochs']}, or as a search had)",
        check=between(1, 10_000),
        when=_learns,
    )
    untrained_head: bool = option(
        False,
        "Control: leave the head random instead of fitting it (scores chance)",
        when=lambda answers: _is_new_run(answers) and _reads_out(answers),
        advanced=True,
    )
    batch_size: int = option(
        0,
        "Images in a batch (0: the model's own)",
        check=between(0, 4096),
        when=_learns,
        advanced=True,
    )
    learning_rate: float = option(
        0.0,
        "Learning rate (0: the model's own)",
        check=between(0, 10),
        when=_learns,
        advanced=True,
    )
    patience: int | None = option(
        None,
        "Epochs without a better validation AUC before it stops (empty: "
        f"{STANDARD['patience']}, or as a search had)",
        check=between(1, 10_000),
        when=_learns,
        advanced=True,
    )
    augment: str = option(
        OWN,
        "Augment training images on the fly",
        choices=_own("augment") | {"none": "no"} | AUGMENTATIONS,
        when=_learns,
        advanced=True,
    )
    variants: int | None = option(
        None,
        "Augmented variants of each image (0: a new one each epoch; empty: the model's own)",
        check=between(0, 1000),
        when=_augments,
        advanced=True,
    )
    mixup: float | None = option(
        None,
        "Mixup of training images, alpha of its beta distribution (0: none; empty: none, or as a "
        "search found)",
        check=between(0, 10),
        when=_learns,
        advanced=True,
    )
    optimizer: str = option(
        OWN,
        "Optimiser",
        choices=_own("optimizer")
        | {"adamw": "AdamW", "sgd": "gradient descent with Nesterov's momentum"},
        when=_learns,
        advanced=True,
    )
    weight_decay: float | None = option(
        None,
        "Weight decay (empty: the model's own)",
        check=between(0, 10),
        when=_learns,
        advanced=True,
    )
    layer_decay: float | None = option(
        None,
        "Learning rate of each stage of layers, as a share of the stage behind it (empty: "
        f"{STANDARD['layer_decay']:g}, or as a search found)",
        check=between(0.01, 1),
        when=_learns,
        advanced=True,
    )
    balance: str = option(
        OWN,
        "Balance the classes",
        choices=_own("balance")
        | {
            "weights": "by weights in the loss",
            "sampler": "by drawing both alike often",
            "none": "no",
        },
        when=_learns,
        advanced=True,
    )
    label_smoothing: float | None = option(
        None,
        "Label smoothing, as the share that goes to both classes alike (empty: none, or as a "
        "search found)",
        check=between(0, 0.5),
        when=_learns,
        advanced=True,
    )
    ema: float = option(
        0.0,
        "Decay of the moving average of weights that is scored and kept (0: none)",
        check=between(0, 0.99999),
        when=_learns,
        advanced=True,
    )
    clip: float = option(
        1.0,
        "Largest norm of the gradient (0: no limit)",
        check=between(0, 1e6),
        when=_learns,
        advanced=True,
    )
    parts: int = option(
        1,
        "Parts that a batch is computed in, one after the other, to save memory",
        check=between(1, 1024),
        when=_learns,
        advanced=True,
    )
    size: int = option(
        0,
        "Side of the network's input in pixels (0: the model's own)",
        check=lambda value: None if value == 0 else between(32, 2048)(value),
        when=_is_new_run,
        advanced=True,
    )
    device: str = option(
        "auto",
        "Device",
        choices={"auto": "a GPU if there is one", "cpu": "processor", "cuda": "GPU"},
        when=_is_new_run,
        advanced=True,
    )
    precision: str = option(
        "auto",
        "Number format of the network's arithmetic",
        choices={
            "auto": "bfloat16 where the device is fast at it",
            "fp32": "32-bit float, on a processor alike for any number of processes (slower)",
            "bf16": "bfloat16 where it is safe, else 32-bit float",
        },
        when=_is_new_run,
        advanced=True,
    )
    compile: bool = option(
        False,
        "Have torch compile the network first (minutes; needs a C++ compiler)",
        when=_learns,
        advanced=True,
    )
    deterministic: bool = option(
        False,
        "Use only algorithms that give the same on a GPU each time (slower there)",
        when=_is_new_run,
        advanced=True,
    )
    fold: int | Literal["all"] = option(
        0,
        "Fold to validate on (0: the plain train/val split, all: each in turn)",
        check=between(0, 50),
        when=_is_new_run,
        advanced=True,
        remember=False,
    )
    seeds: int = option(
        1,
        "Trainings of each model, with the seeds seed, seed + 1, ...",
        check=between(1, 100),
        when=_is_new_run,
        advanced=True,
        remember=False,
    )
    runs: Path = option(
        Path("runs"), "Folder that holds all runs", check=usable_output, advanced=True
    )
