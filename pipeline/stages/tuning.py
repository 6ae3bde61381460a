"""The questionnaire's part about the search for hyper-parameters."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.options import Answers, between, named, option
from pipeline.stages.shared import (
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

STORAGES = ("sqlite", "postgresql", "mysql")
NAME = re.compile(r"|\w[\w.-]*", re.ASCII)
_takes_weights = named("models.registry:takes_weights")
_learns = named("models.tuning.search_space:learns")


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

    data: Path = TRAINING_DATA(
        "Folder of the dataset to search on (its test images are not touched)"
    )
    model: str = option(
        "EfficientNetB3_Optuna",
        "Model",
        choices=named("models.tuning.search_space:tunable_choices"),
    )
    weights: str = WEIGHTS(when=_offered_weights)
    trials: int = option(
        20, "Trials in all, with those that were done before", check=between(1, 100_000)
    )
    minutes: float = advanced(
        0.0,
        "Minutes after which no further trial begins",
        words={"none": "no limit"},
        check=between(0, 1e6),
        remember=False,
    )
    epochs: int = advanced(
        20, "Epochs at most of each trial", check=between(1, 10_000), when=_learns
    )
    patience: int = advanced(
        6,
        "Epochs without a better validation AUC before a trial stops",
        check=between(1, 10_000),
        when=_learns,
    )
    pruner: str = advanced(
        "median",
        "End trials early that fall behind",
        choices={
            "median": "where they are below the median of the trials before",
            "hyperband": "Hyperband: many trials begin, few go on",
            "none": "no",
        },
        when=_learns,
    )
    size: int = SIZE()
    device: str = DEVICE()
    precision: str = PRECISION()
    fold: int | Literal["all"] = FOLD(
        "Fold to validate on", words=PLAIN_SPLIT | {"all": "the mean over all folds"}
    )
    storage: str = advanced(
        "",
        "Address of a database that several machines search in, such as "
        "postgresql://user@host/name",
        words={"none": "a file of its own"},
        check=_storage_address,
        remember=False,
    )
    study: str = advanced(
        "",
        "Name of the study",
        words={"auto": "made of model, dataset and options"},
        check=_study_name,
        remember=False,
    )
    runs: Path = WRITTEN_RUNS(text="Folder that holds all runs; studies go to studies/ in it")
