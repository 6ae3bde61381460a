"""The whole questionnaire: the options of every stage, in the order in which they are asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import (
    Answers,
    between,
    existing_folder,
    named,
    odd_between,
    option,
    usable_output,
)
from pipeline.records import RECORD, made_by
from pipeline.runs import LATEST, NEW_RUN, resume_choices, run_choices
from pipeline.stages_data import Common, Organize, Synthesize, film_height

__all__ = [
    "Common", "Demo", "Evaluate", "Organize", "Preprocess", "Probe", "Report", "Synthesize",
    "Train", "demo_plan", "film_height",
]  # fmt: skip
AUGMENTATIONS = {  # the recipes of models.augmentation
    "flip": "flips",
    "flip-rotate": "flips and rotations of up to 15 degrees",
    "wide": "these, and shifts, sizes, contrast, blur and grain",
}
DEMO_PATIENTS = 200  # enough for a test AUC whose interval says something


def _switched_on(name: str) -> Any:
    return lambda answers: answers[name] not in ("none", False)


@dataclass(frozen=True, kw_only=True)
class Preprocess(Common):
    """Crop, remove annotations, blur, enhance contrast."""

    data: Path = option(
        Path("dataset"), "Folder of the organised dataset", check=made_by("organize")
    )
    out: Path = option(
        Path("preprocessed"), "Folder to write the preprocessed dataset to", check=usable_output
    )
    size: int = option(
        512,
        "Side of the square images in pixels (0: full size)",
        check=lambda value: None if value == 0 else between(64, 4096)(value),
    )
    preview: int = option(
        0,
        "Only show the steps on so many images (0: do them all)",
        check=between(0, 48),
        remember=False,
    )
    crop: str = option(
        "auto",
        "Crop the scanner's borders",
        choices={
            "auto": "where they are found in the image",
            "fixed": "by a fixed margin on each side",
            "none": "no",
        },
        advanced=True,
    )
    margin: float = option(
        0.02,
        "Margin to crop on each side, as a share of it",
        check=between(0, 0.2),
        when=lambda answers: answers["crop"] == "fixed",
        advanced=True,
    )
    annotations: bool = option(
        True, "Remove letters, labels and tape outside the breast", advanced=True
    )
    blur: str = option(
        "gaussian",
        "Smooth film grain",
        choices={
            "gaussian": "Gaussian blur",
            "bilateral": "bilateral filter, which keeps edges",
            "median": "median, which keeps edges and takes specks",
            "none": "no",
        },
        advanced=True,
    )
    blur_kernel: int = option(
        3,
        "Side of its kernel in pixels of the written image, odd (median: 3 or 5)",
        check=odd_between(3, 31),
        when=_switched_on("blur"),
        advanced=True,
    )
    clahe: bool = option(True, "Enhance local contrast (CLAHE)", advanced=True)
    clahe_clip: float = option(
        2.0, "CLAHE clip limit", check=between(0.5, 40), when=_switched_on("clahe"), advanced=True
    )
    clahe_tiles: int = option(
        8,
        "CLAHE tiles along each side",
        check=between(1, 64),
        when=_switched_on("clahe"),
        advanced=True,
    )
    side: str = option(
        "as-is",
        "Side of the image that the chest wall is on",
        choices={
            "as-is": "as on the film",
            "left": "left: the other films are mirrored",
            "right": "right: the other films are mirrored",
        },
        advanced=True,
    )
    augment: str = option(
        "none",
        "Write augmented copies of the training images",
        choices={"none": "no: training augments on the fly"} | AUGMENTATIONS,
        advanced=True,
    )
    copies: int = option(
        2,
        "Augmented copies of each training image",
        check=between(1, 20),
        when=_switched_on("augment"),
        advanced=True,
    )
    fold: int = option(
        0,
        "Fold to write as the validation split (0: the plain train/val split, and all folds)",
        check=between(0, 50),
        advanced=True,
    )
    cluster: str = option(
        "",
        "Address of a Dask cluster to work on (empty: this machine)",
        check=named("pipeline.cluster:address_problem"),
        advanced=True,
        remember=False,
    )


def _dataset_folder(path: Path) -> str | None:
    problem = existing_folder(path)
    return f"{problem}; run: python main.py organize" if problem else None


def _default_data(_answers: Answers) -> Path:
    """Offer the folder that exists, so that training without preprocessing needs no typing."""
    preprocessed, plain = Path("preprocessed"), Path("dataset")
    return plain if (plain / RECORD).is_file() and not preprocessed.exists() else preprocessed


@dataclass(frozen=True, kw_only=True)
class Probe(Common):
    """Check that nothing but the breast tells the label."""

    data: Path = option(
        Path("preprocessed"),
        "Folder of the dataset to check",
        check=_dataset_folder,
        suggest=_default_data,
    )


_takes_weights = named("models.registry:takes_weights")


def _is_new_run(answers: Answers) -> bool:
    return bool(answers["resume"] == NEW_RUN)


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train one model and keep its best weights."""

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
        suggest=_default_data,
        when=_is_new_run,
    )
    model: str = option(
        "ResNet18_CFT",
        "Model",
        choices=named("models.registry:model_choices"),
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
    epochs: int = option(
        30,
        "Epochs at most (stops early without a better validation AUC)",
        check=between(1, 10_000),
        when=_is_new_run,
    )
    untrained_head: bool = option(
        False,
        "Control: leave the head random instead of fitting it (scores chance)",
        when=lambda answers: _is_new_run(answers) and answers["model"].endswith("_OPW"),
        advanced=True,
    )
    batch_size: int = option(
        0,
        "Images in a batch (0: the model's own)",
        check=between(0, 4096),
        when=_is_new_run,
        advanced=True,
    )
    learning_rate: float = option(
        0.0,
        "Learning rate (0: the model's own)",
        check=between(0, 10),
        when=_is_new_run,
        advanced=True,
    )
    patience: int = option(
        8,
        "Epochs without a better validation AUC before it stops",
        check=between(1, 10_000),
        when=_is_new_run,
        advanced=True,
    )
    augment: str = option(
        "flip-rotate",
        "Augment training images on the fly",
        choices={"none": "no"} | AUGMENTATIONS,
        when=_is_new_run,
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
            "fp32": "32-bit float",
            "bf16": "bfloat16 where it is safe, else 32-bit float",
        },
        when=_is_new_run,
        advanced=True,
    )
    fold: int = option(
        0,
        "Fold to validate on (0: the plain train/val split)",
        check=between(0, 50),
        when=_is_new_run,
        advanced=True,
        remember=False,
    )
    runs: Path = option(
        Path("runs"), "Folder that holds all runs", check=usable_output, advanced=True
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Score a trained model on held-out images."""

    run: str = option(
        LATEST,
        "Run to evaluate",
        choices=run_choices,
        other="a run folder or a model's name",
        remember=False,
    )
    data: Path | None = option(
        None, "Folder of the dataset (empty: the one that the run was trained on)", advanced=True
    )
    replicates: int = option(
        2000,
        "Bootstrap replicates for the 95 % intervals",
        check=between(100, 100_000),
        advanced=True,
    )
    fold: int = option(
        0,
        "Fold of the run, where latest or a model's name is given (0: any)",
        check=between(0, 50),
        advanced=True,
        remember=False,
    )
    runs: Path = option(Path("runs"), "Folder that holds all runs", advanced=True)


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """Write one HTML page: data, models, metrics."""

    out: Path = option(Path("reports"), "Folder to write the report to", check=usable_output)
    runs: Path = option(Path("runs"), "Folder that holds the runs", advanced=True)


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Run everything on a synthetic collection, without a question."""

    out: Path = option(Path("demo"), "Folder to work in", check=usable_output)
    patients: int = option(DEMO_PATIENTS, "Number of patients", check=between(8, 5000))


def demo_plan(options: Demo) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the demo as what it is: a list of stages and their options."""
    out, common = options.out, {"seed": options.seed, "workers": options.workers}
    return [
        ("synthesize", {"out": out / "raw", "patients": options.patients, **common}),
        ("organize", {"source": out / "raw", "out": out / "dataset", **common}),
        ("preprocess", {"data": out / "dataset", "out": out / "preprocessed", **common}),
        (
            "train",
            {
                "data": out / "preprocessed",
                "runs": out / "runs",
                "model": "ResNet18_CFT",
                "weights": "none",
                "epochs": 10,
                **common,
            },
        ),
        ("evaluate", {"runs": out / "runs", **common}),
        ("report", {"runs": out / "runs", "out": out / "reports", **common}),
    ]
