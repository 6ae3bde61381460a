"""The questionnaire's part about the search for hyper-parameters."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.options import Answers, between, named, option, usable_output
from pipeline.records import made_by
from pipeline.stages_data import Common
from pipeline.stages_models import default_data

STORAGES = ("sqlite", "postgresql", "mysql")
NAME = re.compile(r"|\w[\w.-]*", re.ASCII)
_takes_weights = named("models.registry:takes_weights")
_learns = named("models.search_space:learns")


def _storage_address(address: str) -> str | None:
    """Check that an address is one of a database that studies can be kept in."""
    kind, _, rest = address.partition("://")
    if not address or (kind.partition("+")[0] in STORAGES and rest):
        return None
    return f"must begin with {', '.join(f'{name}://' for name in STORAGES)}"


def _study_name(name: str) -> str | None:
    """Check that a name can be that of a folder too."""
    return None if NAME.fullmatch(name) else "may hold letters, digits, dots, dashes, underscores"


def _offered_weights(answers: Answers) -> bool:
    return bool(_takes_weights(answers))


@dataclass(frozen=True, kw_only=True)
class Tune(Common):
    """Search the hyper-parameters of a model on validation."""

    data: Path = option(
        Path("preprocessed"),
        "Folder of the dataset to search on (its test images are not touched)",
        check=made_by("preprocess", "organize"),
        suggest=default_data,
    )
    model: str = option(
        "EfficientNetB3_Optuna", "Model", choices=named("models.search_space:tunable_choices")
    )
    weights: str = option(
        "imagenet",
        "Pretrained weights",
        choices=named("models.registry:weights_choices"),
        other="a weights file (.safetensors, .pth, .pt)",
        suggest=named("models.registry:suggested_weights"),
        when=_offered_weights,
    )
    trials: int = option(
        20, "Trials in all, with those that were done before", check=between(1, 100_000)
    )
    minutes: float = option(
        0.0,
        "Minutes after which no further trial begins (0: no limit)",
        check=between(0, 1e6),
        advanced=True,
        remember=False,
    )
    epochs: int = option(
        20,
        "Epochs at most of each trial",
        check=between(1, 10_000),
        when=_learns,
        advanced=True,
    )
    patience: int = option(
        6,
        "Epochs without a better validation AUC before a trial stops",
        check=between(1, 10_000),
        when=_learns,
        advanced=True,
    )
    pruner: str = option(
        "median",
        "End trials early that fall behind",
        choices={
            "median": "where they are below the median of the trials before",
            "hyperband": "Hyperband: many trials begin, few go on",
            "none": "no",
        },
        when=_learns,
        advanced=True,
    )
    size: int = option(
        0,
        "Side of the network's input in pixels (0: the model's own)",
        check=lambda value: None if value == 0 else between(32, 2048)(value),
        advanced=True,
    )
    device: str = option(
        "auto",
        "Device",
        choices={"auto": "a GPU if there is one", "cpu": "processor", "cuda": "GPU"},
        advanced=True,
    )
    precision: str = option(
        "auto",
        "Number format of the network's arithmetic",
        choices={
            "auto": "bfloat16 where the device is fast at it",
            "fp32": "32-bit float",
            "bf16": "bfloat16 where it is safe, else 32-bit float",
        },
        advanced=True,
    )
    fold: int | Literal["all"] = option(
        0,
        "Fold to validate on (0: the plain train/val split, all: the mean over all folds)",
        check=between(0, 50),
        advanced=True,
        remember=False,
    )
    storage: str = option(
        "",
        "Address of a database that several machines search in, such as "
        "postgresql://user@host/name (empty: a file of its own)",
        check=_storage_address,
        advanced=True,
        remember=False,
    )
    study: str = option(
        "",
        "Name of the study (empty: made of model, dataset and options)",
        check=_study_name,
        advanced=True,
        remember=False,
    )
    runs: Path = option(
        Path("runs"),
        "Folder that holds all runs; studies go to studies/ in it",
        check=usable_output,
        advanced=True,
    )
