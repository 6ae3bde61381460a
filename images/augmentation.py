"""Augmentation recipes as named data, applied the same way on the fly and written to disk."""

import functools
import importlib
import os
import random
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records import digest

Step = tuple[str, Mapping[str, Any]]  # a transform of albumentations and its arguments

MAX_ANGLE = 15  # degrees
MIRROR: tuple[Step, ...] = (("HorizontalFlip", {"p": 0.5}), ("VerticalFlip", {"p": 0.5}))
RECIPES: Mapping[str, tuple[Step, ...]] = {
    "none": (),
    "flip": MIRROR,
    "flip-rotate": (*MIRROR, ("Rotate", {"limit": (-MAX_ANGLE, MAX_ANGLE), "fill": 0, "p": 1.0})),
    # What differs between scanners and positionings, within what a reader would not mind.
    "wide": (
        *MIRROR,
        (
            "Affine",
            {
                "rotate": (-MAX_ANGLE, MAX_ANGLE),
                "scale": (0.9, 1.1),
                "translate_percent": (-0.05, 0.05),
                "fill": 0,
                "p": 1.0,
            },
        ),
        ("RandomBrightnessContrast", {"brightness_limit": 0.1, "contrast_limit": 0.15, "p": 0.7}),
        ("RandomGamma", {"gamma_limit": (85, 118), "p": 0.5}),
        ("GaussianBlur", {"blur_limit": (3, 3), "p": 0.2}),
        ("GaussNoise", {"std_range": (0.005, 0.02), "p": 0.3}),
    ),
}


class Augmenter:
    """Applies one recipe; the result depends on the image and the seed alone.

    One object may be pickled to a worker process, but not shared between threads.
    """

    def __init__(self, recipe: str) -> None:
        """Take a recipe, a key of RECIPES.

        Raises:
            ValueError: There is no such recipe.
        """
        if recipe not in RECIPES:
            raise ValueError(f"{recipe}: not one of {', '.join(RECIPES)}")
        self._steps = RECIPES[recipe]

    @functools.cached_property
    def _compose(self) -> Any:
        """The transforms, made with the first image: what they come from takes time to load."""
        albumentations = _albumentations()
        made = [getattr(albumentations, name)(**args) for name, args in self._steps]
        return albumentations.Compose(made)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Return an augmented image, (H, W) uint8 in [0, 255] as the input; new corners are black.

        The seed is such as `seed_for` returns.
        """
        if not self._steps:
            return image
        # One stream for all transforms: set_random_seed would give each of them the same one, and
        # flips would then always come with the same angles.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result: NDArray[np.uint8] = self._compose(image=image)["image"]
        return result


def _albumentations() -> ModuleType:
    """Import albumentations without torch, which is not needed here and takes seconds to load."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network when imported
    optional = "albumentations.pytorch"
    absent = optional not in sys.modules
    if absent:
        sys.modules[optional] = None  # type: ignore[assignment]  # Python's word for "not there"
    try:
        return importlib.import_module("albumentations")
    finally:
        if absent:
            del sys.modules[optional]


def seed_for(seed: int, image_id: str, turn: int) -> int:
    """Return the seed of one augmentation, in [0, 2**64).

    Args:
        seed: Of the stage.
        image_id: So that images differ, whatever their order and whichever process has them.
        turn: The epoch, or the number of the copy.
    """
    return int(digest(seed, image_id, turn), 16)
