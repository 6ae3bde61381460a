"""The whole questionnaire: the options of every stage, in the order in which they are asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import (
    between,
    existing_folder,
    named,
    odd_between,
    option,
    usable_output,
)
from pipeline.records import made_by
from pipeline.stages_data import Common, Organize, Synthesize, film_height
from pipeline.stages_models import AUGMENTATIONS, Train, default_data
from pipeline.stages_scores import Compare, Ensemble, Evaluate, Report
from pipeline.stages_tune import Tune

__all__ = [
    "Common", "Compare", "Demo", "Ensemble", "Evaluate", "Organize", "Preprocess", "Probe",
    "Report", "Synthesize", "Train", "Tune", "demo_plan", "film_height",
]  # fmt: skip
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


@dataclass(frozen=True, kw_only=True)
class Probe(Common):
    """Check that nothing but the breast tells the label."""

    data: Path = option(
        Path("preprocessed"),
        "Folder of the dataset to check",
        check=_dataset_folder,
        suggest=default_data,
    )


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Run everything on a synthetic collection, without a question."""

    out: Path = option(Path("demo"), "Folder to work in", check=usable_output)
    patients: int = option(DEMO_PATIENTS, "Number of patients", check=between(8, 5000))
    epochs: int = option(8, "Epochs at most", check=between(1, 1000))


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
                "epochs": options.epochs,
                **common,
            },
        ),
        ("evaluate", {"runs": out / "runs", **common}),
        ("report", {"runs": out / "runs", "out": out / "reports", **common}),
    ]
