"""The manifest -> decoded images -> tensors: one decoding, one transform for each purpose."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from images import files as image_files
from images import png, square
from images.augmentation import RECIPES, Augmenter, seed_for
from images.files import read_image
from images.jobs import code_digest
from images.square import fit_square
from models.data.image_cache import ImageCache
from pipeline.manifest import Row
from pipeline.progress import Progress


@dataclass(frozen=True)
class Split:
    """The images of one split, decoded; they lie in a file that is mapped into memory."""

    rows: tuple[Row, ...]  # one for each image
    images: NDArray[np.uint8]  # (N, S, S) uint8 in [0, 255]; an index into them gives a copy
    targets: NDArray[np.float32]  # (N,) float32, 1 for the positive label (malignant)
    set_aside: tuple[tuple[str, str], ...]  # what could not be read, with the reason

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, indices: NDArray[np.int64]) -> "Split":
        """Return some of the images, in memory."""
        rows = tuple(self.rows[index] for index in indices)
        return Split(rows, self.images[indices], self.targets[indices], ())

    @property
    def patients(self) -> list[str]:
        """The patients, each once, in order."""
        return sorted({row.patient_id for row in self.rows})

    @property
    def content(self) -> str:
        """A digest of the images' ids and pixels, in their order."""
        found = hashlib.sha256(" ".join(row.image_id for row in self.rows).encode())
        for image in self.images:
            found.update(np.ascontiguousarray(image).data)
        return found.hexdigest()[:16]

    @property
    def both_classes(self) -> bool:
        """Whether there are benign and malignant images."""
        return len(set(self.targets.tolist())) == 2


def load_split(
    folder: Path, rows: Sequence[Row], split: str, size: int, workers: int, progress: Progress
) -> Split:
    """Return the images of a split at the network's input size.

    They are decoded once for all runs, with those of the other splits (`models.data.image_cache`).

    Args:
        folder: The dataset.
        rows: Its manifest.
        split: "train", "val" or "test".
        size: Side of the network's input in pixels.
        workers: Threads; 0 for one for each core.
        progress: Where it reports.
    """
    wanted = [row for row in rows if row.split == split]
    others = [row.path for row in rows if row.split != split]
    kept_images = ImageCache(folder, size, lambda path: fit_square(read_image(path), size), _code())
    images, good, set_aside = kept_images.load(
        [row.path for row in wanted], others, workers, progress
    )
    kept = tuple(wanted[index] for index in good)
    targets = np.array([row.is_positive for row in kept], np.float32)
    # To whoever takes images from it, the view is an array.
    return Split(kept, cast("NDArray[np.uint8]", images), targets, tuple(set_aside))


@cache
def _code() -> str:
    return code_digest(__file__, image_files.__file__, png.__file__, square.__file__)


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    To a GPU of NVIDIA it goes from pinned memory, beside the arithmetic; from other memory the copy
    would wait until the GPU has done all that it was given before.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class EvalTransform:
    """Turns decoded images into what a network takes; the only place where that is done."""

    mean: float  # of the grey values in [0, 1] that the network expects
    std: float  # their standard deviation
    device: torch.device  # where the tensors go

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Return (B, 1, S, S) float32 normalised tensors of (B, S, S) uint8 images."""
        tensor = to_device(images, self.device).to(torch.float32)
        tensor = tensor.div_(255).sub_(self.mean).div_(self.std)
        return tensor.unsqueeze(1)  # (B, 1, S, S)


class TrainTransform:
    """Augments decoded images, each by its own seed, then does what the eval transform does."""

    def __init__(self, transform: EvalTransform, recipe: str, seed: int) -> None:
        """Take the eval transform, a recipe of `images.augmentation` and the run's seed."""
        self._transform = transform
        self._augment = Augmenter(recipe)
        self._changes = bool(RECIPES[recipe])
        self._seed = seed

    def __call__(self, split: Split, indices: NDArray[np.int64], variant: int) -> Tensor:
        """Return (B, 1, S, S) float32 tensors of one variant of the images at `indices`."""
        if not self._changes:
            return self._transform(split.images[indices])
        images = np.empty((len(indices), *split.images.shape[1:]), np.uint8)
        for place, index in enumerate(indices):
            # By image and epoch, not by position: batch size and workers change no augmentation.
            seed = seed_for(self._seed, split.rows[index].image_id, variant)
            images[place] = self._augment(split.images[index], seed)
        return self._transform(images)


def batches(count: int, batch_size: int, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut an order of images into batches.

    One image left over joins the batch before: batch norm cannot be trained on a single image.
    """
    cuts = list(range(batch_size, count, batch_size))
    if cuts and count - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
