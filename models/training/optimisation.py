"""How the weights move: optimiser, learning rates, and what is asked of the loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.networks import units
from models.run_facts import HyperParameters
from models.without_compiler import without_compiler

WARM_UP_SHARE = 0.1  # of all steps, in which the learning rate rises
FINAL_SHARE = 0.01  # of the peak learning rate, at the end of the cosine
MOMENTUM = 0.9  # of stochastic gradient descent


def make_optimizer(network: nn.Module, hparams: HyperParameters) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019), or gradient descent with Nesterov's momentum.

    Biases and batch norm are not decayed. With a layer decay below 1, the learning rate of each
    unit is that share of the one behind it (Howard & Ruder 2018, section 3.2).

    Args:
        network: What is frozen in it takes no part.
        hparams: Rates, decay, kind.
    """
    groups, rate = list(_groups(network, hparams)), hparams.learning_rate
    with without_compiler():
        optimizer: torch.optim.Optimizer
        if hparams.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
        # Each of these asks for the compiler when it is called first, and keeps what it gets.
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
    return optimizer


def _groups(network: nn.Module, hparams: HyperParameters) -> Iterator[dict[str, Any]]:
    chain = [
        trained
        for unit in units(network).values()
        if (trained := [p for p in unit.parameters() if p.requires_grad])
    ]
    if hparams.layer_decay == 1:
        chain = [[p for trained in chain for p in trained]]
    for depth, trained in enumerate(reversed(chain)):
        rate = hparams.learning_rate * hparams.layer_decay**depth
        # Decay would pull scales of batch norm towards 0, which switches channels off.
        kernels = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        for parameters, decay in ((kernels, hparams.weight_decay), (others, 0.0)):
            if parameters:
                yield {"params": parameters, "weight_decay": decay, "lr": rate}


def make_schedule(
    optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a linear warm-up followed by a cosine decay (Loshchilov & Hutter 2017)."""
    warm_up = max(1, round(steps * WARM_UP_SHARE))

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        return float(FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + np.cos(np.pi * done)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale gradients so that their norm over all parameters is at most `largest`, in place.

    The norm is summed in float64: in float32 it would depend on how gradients lie in memory. The
    GPUs of Apple have none.
    """
    gradients = [one.grad for one in parameters if one.grad is not None]
    exact = torch.float32 if any(one.device.type == "mps" for one in gradients) else torch.float64
    norms = [torch.linalg.vector_norm(one, dtype=exact) for one in gradients]
    total = torch.linalg.vector_norm(torch.stack(norms)).float()
    nn.utils.clip_grads_with_norm_(parameters, largest, total)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights (Polyak & Juditsky 1992)."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average)


class Loss:
    """Binary cross-entropy of logits, with classes weighted and labels smoothed as asked for."""

    def __init__(
        self, hparams: HyperParameters, positive_weight: float, device: torch.device
    ) -> None:
        """Take the hparams, and benign for each malignant training image."""
        self._smoothing = hparams.label_smoothing
        weight = positive_weight if hparams.balance == "weights" else 1.0
        weights = torch.tensor(weight, device=device)
        self._loss = nn.BCEWithLogitsLoss(pos_weight=weights, reduction="sum")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of losses; logits and targets are (B,) float32, targets in [0, 1].

        Smoothing moves targets towards one half (Szegedy et al. 2016, section 7).
        """
        # Binary: the smoothed share goes half to each class.
        smooth = targets * (1 - self._smoothing) + 0.5 * self._smoothing
        result: Tensor = self._loss(logits, smooth)
        return result


@dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed with others of it (mixup, Zhang et al. 2018)."""

    share: float  # of an image itself, in [0, 1]; 1 leaves it as it is
    # The image that each is mixed with, as indices like the batch's own.
    partners: NDArray[np.int64]

    @property
    def none(self) -> bool:
        """Whether images stay as they are."""
        return self.share == 1

    def __call__(self, own: Tensor, partners: Tensor) -> Tensor:
        """Mix two batches of inputs or of targets."""
        return own if self.none else own * self.share + partners * (1 - self.share)


def draw_mix(indices: NDArray[np.int64], hparams: HyperParameters, epoch: int, batch: int) -> Mix:
    """Draw the mix of a batch; it follows from seed, epoch and batch alone."""
    if not hparams.mixup:
        return Mix(1.0, indices)
    random = np.random.default_rng((hparams.seed, epoch, batch))
    # One share for the batch, and at least one half: each image keeps the larger part of itself.
    share = float(random.beta(hparams.mixup, hparams.mixup))
    return Mix(max(share, 1 - share), random.permutation(indices))
