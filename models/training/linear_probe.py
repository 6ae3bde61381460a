"""The linear probe: a logistic regression on frozen features, folded into the network's head."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.data.loading import EvalTransform, Split, TrainTransform
from models.metrics import rank, validation_figures, weighted_loss
from models.networks import head_name, split_before
from models.registry import STRENGTHS
from models.run_facts import TrainingData
from models.training.frozen_features import FrozenLayers
from pipeline.progress import Cell, Progress

ITERATIONS = 10_000
Coefficients = tuple[NDArray[np.float64], float]  # weights (F,) and bias


@dataclass(frozen=True)
class Plan:
    """How a linear probe is fitted."""

    strengths: tuple[float, ...] = STRENGTHS  # each C that is tried
    balance: str = "weights"  # "weights" to weigh the classes equally, or "none"
    augment: str = "none"  # A recipe of `images.augmentation`
    variants: int = 0  # augmented variants of each training image, beside the image itself

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Plan":
        """Return the linear probe that a point of a search stands for."""
        return cls(
            strengths=(float(params["C"]),),
            balance=str(params["balance"]),
            augment=str(params["augment"]),
            variants=int(params.get("variants", 0)),
        )


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear probe."""

    history: tuple[dict[str, Cell], ...]  # one row for each C that was tried
    best: dict[str, Cell]  # the row of the one that was kept


def features_of(
    frozen: FrozenLayers, split: Split, transform: EvalTransform, text: str, progress: Progress
) -> NDArray[np.float32]:
    """Return (N, F) float32: what the head gets for each image, in eval mode."""
    found = frozen.features(
        split, lambda some: transform(split.images[some]), transform, None, text, progress
    )
    features: NDArray[np.float32] = found[np.arange(len(split))].float().cpu().numpy()
    return features


class Probe:
    """Fits linear probes on frozen features, which are computed when first needed."""

    def __init__(
        self, network: nn.Module, data: TrainingData, seed: int, progress: Progress
    ) -> None:
        """Take a network whose head is one linear layer, and the images.

        Args:
            network: On its device; only its head is ever changed.
            data: Training images to fit on, validation images to score.
            seed: Of the augmentation.
            progress: Where it reports.
        """
        self._frozen = FrozenLayers(data.folder, network, head_name(network), data.compute)
        self._data, self._seed, self._progress = data, seed, progress
        self._variants: dict[tuple[str, int], NDArray[np.float32]] = {}
        train, val, transform = data.train, data.val, data.transform
        self._plain = features_of(
            self._frozen, train, transform, "Frozen layers, train images", progress
        )
        self._fresh = features_of(
            self._frozen, val, transform, "Frozen layers, val images", progress
        )
        self.head: Any = split_before(network, head_name(network))[1][0]

    def _variant(self, recipe: str, number: int) -> NDArray[np.float32]:
        """Return (N, F) features of one augmented variant of each training image."""
        if (recipe, number) not in self._variants:
            train, transform = self._data.train, self._data.transform
            augmented = TrainTransform(transform, recipe, self._seed)
            found = self._frozen.features(
                train,
                lambda some: augmented(train, some, number),
                transform,
                (recipe, self._seed, number),
                f"Frozen layers, {recipe}, variant {number + 1}",
                self._progress,
            )
            self._variants[recipe, number] = found[np.arange(len(train))].float().cpu().numpy()
        return self._variants[recipe, number]

    def rows(
        self, plan: Plan, untrained: bool = False
    ) -> Iterator[tuple[dict[str, Any], Coefficients]]:
        """Fit a linear probe for each C of a plan; yield its figures and its coefficients."""
        train, val = self._data.train, self._data.val
        weighs, targets = self._data.positive_weight, train.targets > 0
        count = plan.variants if plan.augment != "none" else 0
        known = np.concatenate(
            [self._plain, *(self._variant(plan.augment, number) for number in range(count))]
        )
        balance = "balanced" if plan.balance == "weights" else None
        for strength in (None,) if untrained else plan.strengths:
            started = time.perf_counter()
            weight, bias = (
                _linear(self.head)
                if strength is None
                else _solve(known, np.tile(targets, count + 1), strength, balance)
            )
            row: dict[str, Any] = {
                "C": "" if strength is None else f"{strength:g}",
                "train_loss": weighted_loss(targets, self._plain @ weight + bias, weighs),
                **validation_figures(val.targets > 0, self._fresh @ weight + bias, weighs),
                "seconds": round(time.perf_counter() - started, 2),
            }
            yield row, (weight, bias)


def fit_linear_probe(
    network: nn.Module,
    data: TrainingData,
    untrained: bool,
    progress: Progress,
    plan: Plan | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Fit the head of a network whose other layers stay as they are (Alain & Bengio 2016).

    Features are standardised on the training images; C is the one with the best AUC on the
    validation images, whose patients training does not have. Standardisation and coefficients
    are folded into the linear head, so that what is saved is one ordinary network.

    Args:
        network: Its head must be one linear layer; changed in place.
        data: Training images to fit on, validation images to choose C on.
        untrained: Leave the head random: the control, which is chance.
        progress: Gets one row for each C.
        plan: How it is fitted, where a search has found that.
        seed: Of the augmentation, where the plan has one.
    """
    probe = Probe(network, data, seed, progress)
    history: list[dict[str, Cell]] = []
    best: dict[str, Cell] = {}
    kept = _linear(probe.head)
    for row, coefficients in probe.rows(plan or Plan(), untrained):
        better = not best or rank(row) > rank(best)
        if better:
            best, kept = row, coefficients
        history.append(row)
        progress.row(row, best=better)
    _put(probe.head, *kept)
    return LinearProbe(tuple(history), best)


def _solve(
    features: NDArray[np.float32], targets: NDArray[np.bool_], strength: float, balance: str | None
) -> Coefficients:
    """Return weights (F,) and bias of a logistic regression, for features as they come."""
    from sklearn.linear_model import LogisticRegression  # a second or two that others need not wait
    from sklearn.preprocessing import StandardScaler

    # On the training images alone; in float64, or the solver stops early on ill-scaled features.
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, class_weight=balance, max_iter=ITERATIONS)
    model.fit(scaler.transform(features).astype(np.float64), targets)
    # Folding the scaler into the layer makes the probe an ordinary head, saved as one network.
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)


def _linear(head: Any) -> Coefficients:
    return head.weight.detach().cpu().double().numpy()[0], float(head.bias.detach()[0])


def _put(head: Any, weight: NDArray[np.float64], bias: float) -> None:
    with torch.no_grad():
        # Rounded here: a GPU of Apple takes no float64.
        head.weight.copy_(torch.from_numpy(weight)[None].to(head.weight.dtype))  # (1, F)
        head.bias.fill_(bias)
