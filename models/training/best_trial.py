"""What a search found, as training uses it: the file that it leaves, and the point that applies."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.registry import (
    ALL,
    IMAGENET,
    LINEAR_PROBE,
    NO_WEIGHTS,
    Head,
    ModelRow,
    find_model,
    takes_weights,
)
from pipeline.errors import UserError
from pipeline.options import Answers, defaults, split_several
from pipeline.provenance import dataset_hash
from pipeline.records import file_digest, read_json
from pipeline.runs import STUDIES
from pipeline.stages.training import RECORDED, SEARCHED, Train

BEST = "best.json"  # in a study's folder: what it found
TUNED = "_Optuna"  # ends the names of models that are meant to be tuned
COMMON = ("epochs", "patience")  # of all trials of a study; training takes them over


@dataclass(frozen=True)
class Tuned:
    """The best trial of a study."""

    study: str  # the name of the study
    trial: int  # the number of the trial
    val_auc: float  # its validation AUC
    params: Mapping[str, Any]  # the hyper-parameters, and what all trials had in common

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Tuned":
        """Return what `facts` wrote into a file."""
        return cls(facts["study"], facts["trial"], facts["val_auc"], facts["params"])

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "study": self.study, "trial": self.trial, "val_auc": self.val_auc,
            "params": dict(self.params),
        }  # fmt: skip


def weights_facts(weights: str) -> dict[str, str]:
    """Return what identifies starting weights: their name, or of a file its digest too."""
    if weights in (NO_WEIGHTS, IMAGENET):
        return {"weights": weights, "weights_hash": ""}
    file = Path(weights).expanduser()
    return {"weights": "file", "weights_hash": file_digest(file) if file.is_file() else ""}


def tuned_for(options: Train, data_hash: str) -> Tuned | None:
    """Return what a search found for a model on a dataset; None where its own values are wanted.

    Args:
        options: Of one training: model, weights, the folder of the runs, and whether it is the
            newest search's values that are wanted, those of a study, or none.
        data_hash: Of the dataset's manifest.

    Raises:
        UserError: The study that is named is none, or none for such a training.
    """
    source = options.hyperparameters
    if source == RECORDED or options.untrained_head:
        return None
    weights = options.weights if takes_weights({"model": options.model}) else NO_WEIGHTS
    wanted = {"model": options.model, "data_hash": data_hash} | weights_facts(weights)
    searches = list(_searches(options.runs))
    fitting = [
        best for best in searches if all(best.get(name) == value for name, value in wanted.items())
    ]
    if source == SEARCHED:
        return Tuned.of(max(fitting, key=lambda best: str(best["finished"]))) if fitting else None
    named = [best for best in fitting if best["study"] == source]
    if not named:
        known = any(best["study"] == source for best in searches)
        reason = "is for another model, dataset or weights" if known else "no such study"
        others = ", ".join([SEARCHED, RECORDED, *(str(best["study"]) for best in fitting)])
        raise UserError(f"--hyperparameters {source}: {reason}", f"give one of {others}")
    return Tuned.of(named[0])


def was_searched(answers: Answers) -> bool:
    """Return whether there is a search for any of the models that were named, on their dataset."""
    try:
        data_hash = dataset_hash(Path(answers["data"]))
    except UserError:
        return False
    names = split_several(str(answers["model"]))
    return any(
        best.get("data_hash") == data_hash and (best.get("model") in names or ALL in names)
        for best in _searches(Path(answers["runs"]))
    )


def study_problem(name: str, answers: Answers) -> str | None:
    """Say why a study that was named cannot be used: there is none of that name."""
    known = [str(best["study"]) for best in _searches(Path(answers["runs"]))]
    return None if name in known else f"{name}: no such study; there are: {', '.join(known)}"


def _searches(runs: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((runs / STUDIES).glob(f"*/{BEST}")):
        try:
            best = read_json(path)
            Tuned.of(best), best["finished"]
        except (UserError, KeyError, TypeError):
            continue  # one that is damaged is like none
        yield best


@dataclass(frozen=True)
class Settings:
    """How a training is done."""

    options: Train  # with the values of the search in place
    row: ModelRow  # the model, likewise
    tuned: Tuned | None  # where they come from; None for the recorded defaults

    @property
    def facts(self) -> dict[str, Any]:
        """What model.json says of it."""
        return {"tuning": self.tuned.facts if self.tuned else None}

    @property
    def source(self) -> str:
        """The answer that gives the same again: the name of the study, or that there is none."""
        return self.tuned.study if self.tuned else RECORDED

    @property
    def note(self) -> str:
        """What a person should know of it, in one line; empty for nothing."""
        if self.tuned:
            found = f"validation AUC {self.tuned.val_auc:.3f} there"
            return f"hyper-parameters of trial {self.tuned.trial} of {self.tuned.study} ({found})"
        if self.row.name.endswith(TUNED):
            if self.options.hyperparameters == RECORDED:
                return "recorded hyper-parameters, as was asked"
            return (
                "not tuned on this dataset: recorded defaults; to search: "
                f"python main.py tune --model {self.row.name}"
            )
        return ""


def settings_of(options: Train, begun: Mapping[str, Any] | None) -> Settings:
    """Return how a model is trained: what was given, else what a search found, else its row.

    Args:
        options: What was given; an option at its default counts as not given.
        begun: model.json of a run that continues, which stays with what it was started with.
    """
    row = find_model(options.model)
    if begun is not None:
        known = begun.get("tuning")
        tuned = Tuned.of(known) if known else None
    else:
        tuned = tuned_for(options, dataset_hash(options.data))
    if tuned is None or row.strategy == LINEAR_PROBE:  # which has no options of a training's steps
        return Settings(options, row, tuned)
    return Settings(*apply_point(tuned.params, options, row), tuned)


def apply_point(params: Mapping[str, Any], options: Train, row: ModelRow) -> tuple[Train, ModelRow]:
    """Return options and model with the hyper-parameters of a point in place.

    Args:
        params: By name, and beside those of the model's space what every trial of it had in
            common, such as the epochs.
        options: What is given there, and so is not at its default, stays as it is.
        row: The model.
    """
    params = {k.removeprefix("sgd_"): value for k, value in params.items()}
    standard = defaults(Train)
    changed = {
        name: value
        for name, value in params.items()
        if name in standard and getattr(options, name) == standard[name]
    }
    head = row.head
    if "head_depth" in params:
        depth = int(params["head_depth"])
        widths = tuple(int(params["head_width"]) >> layer for layer in range(depth))
        head = Head(widths, float(params["dropout"]))
    row = dataclasses.replace(
        row, head=head, trained_from=params.get("trained_from", row.trained_from)
    )
    return dataclasses.replace(options, **changed), row
