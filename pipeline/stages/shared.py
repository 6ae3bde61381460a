"""What several stages ask: each of these options is declared here once.

A stage calls one of them for its field, and may change what differs there: `DEVICE(when=...)`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.options import Answers, between, named, option, usable_output
from pipeline.records import RECORD, made_by

AUGMENTATIONS = {  # the recipes of images.augmentation
    "flip": "flips",
    "flip-rotate": "flips and rotations of up to 15 degrees",
    "wide": "these, and shifts, sizes, contrast, blur and grain",
}


def default_data(_answers: Answers) -> Path:
    """Offer the folder that exists, so that training without preprocessing needs no typing."""
    preprocessed, plain = Path("preprocessed"), Path("dataset")
    return plain if (plain / RECORD).is_file() and not preprocessed.exists() else preprocessed


advanced = partial(option, advanced=True)
DATA = partial(option, Path("preprocessed"), suggest=default_data)
TRAINING_DATA = partial(DATA, check=made_by("preprocess", "organize"))
RUNS = partial(advanced, default=Path("runs"), text="Folder that holds all runs")
WRITTEN_RUNS = partial(RUNS, check=usable_output)
WEIGHTS = partial(
    option,
    "imagenet",
    "Pretrained weights",
    check=named("models.pretrained:weights_problem"),
    choices=named("models.pretrained:weights_choices"),
    other="a weights file (.safetensors, .pth, .pt)",
    suggest=named("models.pretrained:suggested_weights"),
)
SIZE = partial(
    advanced,
    0,
    "Side of the network's input in pixels",
    words={"auto": "the model's own"},
    check=between(32, 2048),
)
DEVICE = partial(
    advanced,
    "auto",
    "Device",
    choices={
        "auto": "a GPU if there is one",
        "cpu": "processor",
        "cuda": "GPU of NVIDIA or AMD",
        "mps": "GPU of Apple",
    },
)
PRECISION = partial(
    advanced,
    "auto",
    "Number format of the network's arithmetic",
    choices={
        "auto": "bfloat16 where the device is fast at it",
        "fp32": "32-bit float",
        "bf16": "bfloat16 where it is safe, else 32-bit float",
    },
)
PLAIN_SPLIT = {"none": "the plain train/val split"}
FOLD = partial(advanced, 0, check=between(1, 50), remember=False)
REPLICATES = partial(advanced, 2000, check=between(100, 100_000))


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every stage takes that computes something."""

    seed: int = advanced(42, "Seed of everything random", check=between(0, 2**31 - 1))
    workers: int = advanced(
        0, "Worker processes", words={"auto": "one for each core"}, check=between(1, 256)
    )
