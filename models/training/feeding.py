"""What the trained part of a network takes: images, or what its frozen layers made of them."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.data.loading import Split, TrainTransform
from models.networks import split_before
from models.run_facts import HyperParameters, TrainingData
from models.training.frozen_features import Features, FrozenLayers
from pipeline.progress import Progress


class ImageFeed:
    """Feeds a whole network with images."""

    def __init__(self, data: TrainingData, hparams: HyperParameters) -> None:
        """Take the images and how they are augmented."""
        self._data, self._variants = data, hparams.variants
        self._augmented = TrainTransform(data.transform, hparams.augment, hparams.seed)

    def part_of(self, network: nn.Module) -> nn.Module:
        """Return the part of a network that is fed: all of it."""
        return network

    def prepare(self, epoch: int) -> None:
        """Do what one epoch needs before it begins: nothing."""

    def training(self, indices: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the augmented training images at `indices` in one epoch, (B, 1, S, S)."""
        variant = (epoch - 1) % self._variants if self._variants else epoch
        return self._augmented(self._data.train, indices, variant)

    def plain(self, split: Split, indices: NDArray[np.int64]) -> Tensor:
        """Return images as they are scored, (B, 1, S, S)."""
        return self._data.transform(split.images[indices])


class FrozenFeed:
    """Feeds the trained part of a network with what its frozen layers give for each image.

    With few variants of each image, or without augmentation, that is computed once and kept. It
    gives what `ImageFeed` and the frozen layers give: in float32 to the last digits.
    """

    def __init__(
        self,
        network: nn.Module,
        trained_from: str,
        data: TrainingData,
        hparams: HyperParameters,
        progress: Progress,
    ) -> None:
        """Take a network with its starting weights; nothing is computed yet."""
        self._frozen = FrozenLayers(data.folder, network, trained_from, data.compute)
        self._trained_from = trained_from
        self._data, self._hparams, self._progress = (data, hparams, progress)
        self._images = ImageFeed(data, hparams)
        self._augmented: dict[int, Features] = {}  # by variant
        self._plain: dict[int, Features] = {}  # by split

    def part_of(self, network: nn.Module) -> nn.Module:
        """Return the part of a network that is fed: what is trained, sharing its modules."""
        return split_before(network, self._trained_from)[1]

    def prepare(self, epoch: int) -> None:
        """Compute what the training images of one epoch give, where that is kept."""
        hparams, train = self._hparams, self._data.train
        if hparams.augment == "none":
            self._outputs(train)
        elif hparams.variants and self._variant(epoch) not in self._augmented:
            variant = self._variant(epoch)
            self._augmented[variant] = self._frozen.features(
                train,
                lambda some: self._images.training(some, epoch),
                self._data.transform,
                (hparams.augment, hparams.seed, variant),
                f"Frozen layers, variant {variant + 1} of {hparams.variants}",
                self._progress,
            )

    def training(self, indices: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the frozen layers' output for augmented training images, (B, C, H, W)."""
        if self._hparams.augment == "none":
            return self.plain(self._data.train, indices)
        if self._hparams.variants:
            return self._augmented[self._variant(epoch)][indices]
        return self._frozen(self._images.training(indices, epoch))

    def plain(self, split: Split, indices: NDArray[np.int64]) -> Tensor:
        """Return the frozen layers' output for images as they are scored, (B, C, H, W)."""
        return self._outputs(split)[indices]

    def _variant(self, epoch: int) -> int:
        return (epoch - 1) % self._hparams.variants

    def _outputs(self, split: Split) -> Features:
        known = self._plain.get(id(split))
        if known is None:
            known = self._plain[id(split)] = self._frozen.features(
                split,
                lambda some: self._images.plain(split, some),
                self._data.transform,
                None,
                f"Frozen layers, {split.rows[0].split} images",
                self._progress,
            )
        return known


Feed = ImageFeed | FrozenFeed


def choose_feed(
    network: nn.Module,
    trained_from: str,
    data: TrainingData,
    hparams: HyperParameters,
    progress: Progress,
) -> Feed:
    """Return what feeds a network's training: the frozen layers' output, where there are any.

    Mixed images have to pass through the frozen layers themselves.
    """
    if not trained_from or hparams.mixup:
        return ImageFeed(data, hparams)
    return FrozenFeed(network, trained_from, data, hparams, progress)
