"""What a training makes small, and which state of a network is the best: with labels or without."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.anomaly.autoencoder import ErrorScore
from models.data.loading import Split
from models.metrics import auc, rank, validation_figures
from models.run_facts import HyperParameters, TrainingData
from models.training.optimisation import Loss
from pipeline.labels import is_normal

WARM_UP_SHARE = 0.3  # of all steps, in which the divergence of a VAE gets its weight


class Objective(Protocol):
    """What the training loop asks of it."""

    leading: str  # the figure whose improvement keeps a training from stopping early

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the losses of a batch: outputs and targets are (B,) float32."""
        ...

    def figures(self, val: Split, scores: NDArray[np.float32]) -> dict[str, float]:
        """Return what is watched of the validation images and their scores (N,)."""
        ...

    def rank(self, figures: Mapping[str, Any]) -> tuple[float, ...]:
        """Return what is larger for a better state of a network."""
        ...


class Classification:
    """Binary cross-entropy; the best state has the highest AUC on validation."""

    leading = "val_auc"

    def __init__(self, data: TrainingData, hparams: HyperParameters) -> None:
        """Take the images, for the weight of the classes, and how they are trained on."""
        self._weight = data.positive_weight
        self.loss = Loss(hparams, data.positive_weight, data.compute.device)

    def figures(self, val: Split, scores: NDArray[np.float32]) -> dict[str, float]:
        """Return loss, AUC, sensitivity and specificity."""
        return validation_figures(val.targets > 0, scores, self._weight)

    def rank(self, figures: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the AUC, then the smaller loss."""
        return rank(figures)


class Reconstruction:
    """The error of restored images; the best state has the smallest on normal validation images.

    The AUC is watched, and decides nothing: who has no image with a lesion trains as well.
    """

    leading = "val_loss"

    def __init__(self, network: nn.Module, steps: int) -> None:
        """Take the network, and how many steps its training has."""
        for module in network.modules():
            if isinstance(module, ErrorScore):
                module.rises_over = max(1, round(steps * WARM_UP_SHARE))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the losses that the network's head gives in train mode."""
        del targets
        return outputs.sum()

    def figures(self, val: Split, scores: NDArray[np.float32]) -> dict[str, float]:
        """Return the mean error of normal images, and the AUC of the error."""
        return errors_in(val, scores)

    def rank(self, figures: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the smaller error."""
        return (-figures["val_loss"],)


def errors_in(val: Split, scores: NDArray[np.float32]) -> dict[str, float]:
    """Return the mean score of normal validation images, and the AUC of the scores (N,)."""
    normal = np.array([is_normal(row) for row in val.rows])
    exact = scores.astype(np.float64)
    return {"val_loss": float(exact[normal].mean()), "val_auc": auc(val.targets > 0, exact)}


def make_objective(
    network: nn.Module, data: TrainingData, hparams: HyperParameters, steps: int
) -> Objective:
    """Return the objective of a training of so many steps."""
    if hparams.reconstruction:
        return Reconstruction(network, steps)
    return Classification(data, hparams)
