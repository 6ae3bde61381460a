"""The questionnaire's third part: the stage that trains on a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.options import Answers, between, named, option, split_several
from pipeline.runs import NEW_RUN, resume_choices, suggested_resume, unfinished_problem
from pipeline.stages.shared import (
    AUGMENTATIONS,
    DEVICE,
    FOLD,
    PLAIN_SPLIT,
    PRECISION,
    SIZE,
    TRAINING_DATA,
    WEIGHTS,
    WRITTEN_RUNS,
    Common,
    advanced,
)

OWN = "own"  # of words; of numbers it is None, or 0 where that would make no sense
# Where a person, a search and the model itself have nothing to say.
STANDARD: Mapping[str, Any] = {
    "epochs": 30, "patience": 8, "augment": "flip-rotate", "mixup": 0.0, "optimizer": "adamw",
    "layer_decay": 1.0, "balance": "weights", "label_smoothing": 0.0,
}  # fmt: skip
SEARCHED, RECORDED = "searched", "recorded"  # where hyper-parameters come from


_takes_weights = named("models.registry:takes_weights")
_takes_steps = named("models.registry:takes_steps")
_sees_labels = named("models.registry:sees_labels")
_restores_images = named("models.registry:restores_images")
_was_searched = named("models.training.best_trial:was_searched")


def _is_new_run(answers: Answers) -> bool:
    return bool(answers["resume"] == NEW_RUN)


def _reads_out(answers: Answers) -> bool:
    """Return whether every chosen model is frozen but for its linear probe."""
    return all(name.endswith("_OPW") for name in split_several(answers["model"]))


def _learns(answers: Answers) -> bool:
    """Return whether layers are trained step by step, which a linear probe is not."""
    return bool(_is_new_run(answers) and _takes_steps(answers))


def _learns_labels(answers: Answers) -> bool:
    return bool(_learns(answers) and _sees_labels(answers))


def _own(name: str) -> dict[str, str]:
    """Return the word for leaving an option to the model, or to a search for it."""
    return {"auto": f"{STANDARD[name]}, or as a search found"}


def _augments(answers: Answers) -> bool:
    return _learns(answers) and answers["augment"] != "none"


_learned = partial(advanced, when=_learns)
_taught = partial(advanced, when=_learns_labels)
MODELS_OWN = {"auto": "the model's own"}


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train one model or several and keep their best weights."""

    resume: str = option(
        NEW_RUN,
        "Run to continue",
        choices=resume_choices,
        other="a run folder",
        find=unfinished_problem,
        suggest=suggested_resume,
        when=lambda answers: answers["resume"] != NEW_RUN or len(resume_choices(answers)) > 1,
        remember=False,
    )
    data: Path = TRAINING_DATA("Folder of the dataset to train on", when=_is_new_run)
    model: str = option(
        "ResNet18_CFT",
        "Model",
        choices=named("models.registry:model_choices"),
        several=True,
        when=_is_new_run,
    )
    weights: str = WEIGHTS(when=lambda answers: _is_new_run(answers) and _takes_weights(answers))
    hyperparameters: str = option(
        SEARCHED,
        "Hyper-parameters (options that are given win)",
        choices={
            SEARCHED: "those of the newest search on this dataset, where there is one",
            RECORDED: "the model's own, whatever a search has found",
        },
        other="the name of a study",
        find=named("models.training.best_trial:study_problem"),
        when=lambda answers: _is_new_run(answers) and _was_searched(answers),
        remember=False,
    )
    epochs: int | None = option(
        None,
        "Epochs at most; it stops early",
        words={"auto": f"{STANDARD['epochs']}, or as a search had"},
        check=between(1, 10_000),
        when=_learns,
    )
    untrained_head: bool = advanced(
        False,
        "Control: leave the head random instead of fitting it (scores chance)",
        when=lambda answers: _is_new_run(answers) and _reads_out(answers),
    )
    batch_size: int = _learned(0, "Images in a batch", words=MODELS_OWN, check=between(1, 4096))
    learning_rate: float = _learned(0.0, "Learning rate", words=MODELS_OWN, check=between(0, 10))
    patience: int | None = _learned(
        None,
        "Epochs without a better validation AUC (or error, without labels) before it stops",
        words={"auto": f"{STANDARD['patience']}, or as a search had"},
        check=between(1, 10_000),
    )
    augment: str = _learned(
        OWN,
        "Augment training images on the fly",
        words=_own("augment"),
        choices={"none": "no"} | AUGMENTATIONS,
    )
    variants: int | None = advanced(
        None,
        "Augmented variants of each image; 0 for a new one each epoch",
        words=MODELS_OWN,
        check=between(0, 1000),
        when=_augments,
    )
    mixup: float | None = _taught(
        None,
        "Mixup of training images, alpha of its beta distribution; 0 for none",
        words={"auto": "none, or as a search found"},
        check=between(0, 10),
    )
    optimizer: str = _learned(
        OWN,
        "Optimiser",
        words=_own("optimizer"),
        choices={"adamw": "AdamW", "sgd": "gradient descent with Nesterov's momentum"},
    )
    weight_decay: float | None = _learned(
        None, "Weight decay", words=MODELS_OWN, check=between(0, 10)
    )
    layer_decay: float | None = _learned(
        None,
        "Learning rate of each stage of layers, as a share of the stage behind it",
        words={"auto": f"{STANDARD['layer_decay']:g}, or as a search found"},
        check=between(0.01, 1),
    )
    balance: str = _taught(
        OWN,
        "Balance the classes",
        words=_own("balance"),
        choices={
            "weights": "by weights in the loss",
            "sampler": "by drawing both equally often",
            "none": "no",
        },
    )
    label_smoothing: float | None = _taught(
        None,
        "Label smoothing, as the share that goes to both classes equally",
        words={"auto": "none, or as a search found"},
        check=between(0, 0.5),
    )
    loss: str = advanced(
        OWN,
        "Error that an autoencoder makes small, and is scored by",
        words={"auto": "mse"},
        choices={
            "mse": "mean squared error",
            "l1": "mean absolute error",
            "ssim": "structural dissimilarity",
            "mix": "structural dissimilarity, and a little of the absolute error",
        },
        when=lambda answers: _is_new_run(answers) and _restores_images(answers),
    )
    ema: float = _learned(
        0.0,
        "Decay of the moving average of weights that is scored and kept",
        words={"none": "the weights themselves"},
        check=between(0, 0.99999),
    )
    clip: float = _learned(
        1.0, "Largest norm of the gradient", words={"none": "no limit"}, check=between(0, 1e6)
    )
    parts: int = _learned(
        1,
        "Parts that a batch is computed in, one after the other, to save memory",
        check=between(1, 1024),
    )
    size: int = SIZE(when=_is_new_run)
    device: str = DEVICE(when=_is_new_run)
    precision: str = PRECISION(when=_is_new_run)
    compile: bool = _learned(
        False, "Have torch compile the network first (minutes; needs a C++ compiler)"
    )
    deterministic: bool = advanced(
        False,
        "Use only algorithms that give the same on a GPU each time (slower there)",
        when=_is_new_run,
    )
    fold: int | Literal["all"] = FOLD(
        "Fold to validate on", words=PLAIN_SPLIT | {"all": "each in turn"}, when=_is_new_run
    )
    seeds: int = advanced(
        1,
        "Trainings of each model, with the seeds seed, seed + 1, ...",
        check=between(1, 100),
        when=_is_new_run,
        remember=False,
    )
    missing: bool = advanced(
        False,
        "Leave out a training that is done, continue one that was stopped (several always do)",
        when=_is_new_run,
        remember=False,
    )
    runs: Path = WRITTEN_RUNS()
