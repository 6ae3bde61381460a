"""The linear probe: a logistic regression on frozen features, folded into the network's head."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.loading import EvalTransform, Split
from models.metrics import rank, validation_figures, weighted_loss
from models.networks import head_name, split_before
from models.prefix import FrozenLayers
from models.run_facts import Material
from models.search_space import STRENGTHS
from pipeline.progress import Cell, Progress

ITERATIONS = 10_000


@dataclass(frozen=True)
class Readout:
    """A fitted read-out.

    Attributes:
        history: One row for each C that was tried.
        best: The row of the one that was kept.
    """

    history: tuple[dict[str, Cell], ...]
    best: dict[str, Cell]


def features_of(
    frozen: FrozenLayers, split: Split, transform: EvalTransform, text: str, progress: Progress
) -> NDArray[np.float32]:
    """Return (N, F) float32: what the head gets for each image, in eval mode."""
    found = frozen.features(
        split, lambda some: transform(split.images[some]), transform, None, text, progress
    )
    features: NDArray[np.float32] = found[np.arange(len(split))].float().cpu().numpy()
    return features


def fit_readout(
    network: nn.Module, material: Material, untrained: bool, progress: Progress
) -> Readout:
    """Fit the head of a network whose other layers stay as they are (Alain & Bengio 2016).

    Features are standardised on the training images; C is the one with the best AUC on the
    validation images, whose patients training does not have. Standardisation and coefficients
    are folded into the linear head, so that what is saved is one ordinary network.

    Args:
        network: Its head must be one linear layer; changed in place.
        material: Training images to fit on, validation images to choose C on.
        untrained: Leave the head random: the control, which is chance.
        progress: Told one row for each C.
    """
    train, val, transform = material.train, material.val, material.transform
    frozen = FrozenLayers(material.data, network, head_name(network), material.compute)
    known = features_of(frozen, train, transform, "Frozen layers, train images", progress)
    fresh = features_of(frozen, val, transform, "Frozen layers, val images", progress)
    weighs = material.positive_weight
    head = split_before(network, head_name(network))[1][0]
    history: list[dict[str, Cell]] = []
    best: dict[str, Cell] = {}
    kept = _linear(head)
    for strength in (None,) if untrained else STRENGTHS:
        started = time.perf_counter()
        weight, bias = kept if strength is None else _solve(known, train.targets > 0, strength)
        row: dict[str, Any] = {
            "C": "" if strength is None else f"{strength:g}",
            "train_loss": weighted_loss(train.targets > 0, known @ weight + bias, weighs),
            **validation_figures(val.targets > 0, fresh @ weight + bias, weighs),
            "seconds": round(time.perf_counter() - started, 2),
        }
        better = not best or rank(row) > rank(best)
        if better:
            best, kept = row, (weight, bias)
        history.append(row)
        progress.row(row, best=better)
    _put(head, *kept)
    return Readout(tuple(history), best)


def _solve(
    features: NDArray[np.float32], targets: NDArray[np.bool_], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Return weights (F,) and bias of a logistic regression, for features as they come."""
    from sklearn.linear_model import LogisticRegression  # a second or two that others need not wait
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=ITERATIONS)
    model.fit(scaler.transform(features).astype(np.float64), targets)
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)


def _linear(head: Any) -> tuple[NDArray[np.float64], float]:
    return head.weight.detach().double().cpu().numpy()[0], float(head.bias.detach()[0])


def _put(head: Any, weight: NDArray[np.float64], bias: float) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight)[None])  # (1, F)
        head.bias.fill_(bias)
