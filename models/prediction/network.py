"""Scores and features of a run's network, computed by torch."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.evaluation.scoring import members_of
from models.inference import (
    Compute,
    TrainedModel,
    load_run,
    place,
    prepare_process,
    run_over,
    scoring_compute,
)
from models.mirrors import MIRRORS
from models.networks import head_name, pooled, split_before

__all__ = ["NetworkScorer", "members_of"]


class NetworkScorer:
    """The network of a run folder; loaded when it is first needed."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of a run that is no ensemble."""
        self.folder = folder

    def prepare(self, workers: int) -> None:
        """Set threads and allocator of this process."""
        prepare_process(workers)

    @cached_property
    def compute(self) -> Compute:
        """Device and arithmetic, those of evaluation."""
        return scoring_compute()

    @cached_property
    def model(self) -> TrainedModel:
        """The network with the facts of its run."""
        return load_run(self.folder)

    def load(self) -> None:
        """Load the network now, not at the first image."""
        self.placed  # noqa: B018

    @cached_property
    def placed(self) -> TrainedModel:
        """The network on its device."""
        place(self.model.network, self.compute)
        return self.model

    def score(
        self, images: NDArray[np.uint8], tta: str
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return scores (N,) and features (N, F) of (N, S, S) uint8 images; see `Scorer`."""
        network = self.placed.network
        body, head = split_before(network, head_name(network))

        def both(batch: Tensor) -> Tensor:
            features = body(batch)
            return torch.cat([head(features), pooled(features)], dim=1)  # (B, 1 + F)

        transform = self.placed.transform(self.compute)
        found = [run_over(both, np.flip(images, axes), transform) for axes in MIRRORS[tta]]
        scores: NDArray[np.float64] = np.mean([one[:, 0] for one in found], axis=0, dtype=float)
        return scores, found[0][:, 1:]
