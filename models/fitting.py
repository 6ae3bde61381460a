"""The one training loop of every model: steps, schedule, checkpoints, early stopping."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.checkpoints import load_checkpoint, save_checkpoint
from models.inference import SCORING_BATCH, image_logits, restore_weights, save_weights
from models.loading import TrainTransform, batches
from models.metrics import rank, validation_figures
from models.networks import logits, settling_mode, train_mode
from models.run_facts import Fitted, Material, Recipe
from pipeline.errors import UserError
from pipeline.progress import Cell, Progress
from pipeline.records import write_table

HISTORY = "history.csv"
WARM_UP_SHARE = 0.1  # of all steps, in which the learning rate rises
FINAL_SHARE = 0.01  # of the peak learning rate, at the end of the cosine
CLIP_NORM = 1.0  # of the gradient over all parameters
CHECKPOINT_SECONDS = 600  # between two checkpoints within an epoch
SETTLING_IMAGES = 256  # that the statistics of batch norm are taken from


def fit(
    network: nn.Module,
    trained_from: str,
    material: Material,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> Fitted:
    """Train a network: binary cross-entropy, AdamW, warm-up and cosine decay, early stopping.

    Args:
        network: On its device; ends with its best weights.
        trained_from: The first unit that is trained; empty for all.
        material: Images and their transform.
        recipe: How.
        folder: Gets the history after every epoch and the weights whenever they are better; and
            a checkpoint after every epoch and every ten minutes, from which it goes on.
        progress: Told one row an epoch.

    Raises:
        UserError: The loss is no longer finite.
    """
    steps = _Steps(network, trained_from, material, recipe, folder)
    course = steps.course
    if course.epochs:
        progress.say(f"Continues after epoch {course.epochs} of {recipe.epochs}.")
    while course.epochs < recipe.epochs and not course.stopped(recipe.patience):
        started, epoch = time.perf_counter(), course.epochs + 1
        train_loss = steps.epoch(epoch, progress)
        steps.settle_batch_norm()
        val = material.val
        scores = image_logits(network, val.images, material.transform, material.compute)
        if not (np.isfinite(train_loss) and np.isfinite(scores).all()):
            raise UserError(
                f"epoch {epoch}: the loss is no longer finite", "give a smaller --learning-rate"
            )
        row: dict[str, Any] = {
            "epoch": epoch,
            "train_loss": train_loss,
            **validation_figures(val.targets > 0, scores, material.positive_weight),
            "seconds": round(time.perf_counter() - started, 2),
        }
        better = course.add(row)
        if better:
            save_weights(folder, network)
        write_history(folder, course.history)
        steps.checkpoint()
        progress.row(row, best=better)
    restore_weights(folder, network)
    return Fitted(course.history, course.best, course.epochs, course.best["epoch"])


@dataclass
class _Course:
    """How far a training has come.

    Attributes:
        history: One row for each finished epoch.
        best: The row of the best one.
        risen: The last epoch in which the AUC (without one: the loss) was better than before.
        batches: Of the epoch in work that are done.
        loss: Sum of their losses over images.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    risen: int = 0
    batches: int = 0
    loss: float = 0.0

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def stopped(self, patience: int) -> bool:
        """Tell whether training has gone on long enough without getting better."""
        return self.epochs - self.risen >= patience

    def add(self, row: Mapping[str, Any]) -> bool:
        """Enter a finished epoch; return whether it is the best so far."""
        # Plain numbers: a checkpoint holds nothing that would have to be unpickled.
        row = {
            name: value.item() if hasattr(value, "item") else value for name, value in row.items()
        }
        better = not self.best or rank(row) > rank(self.best)
        if better:
            self.risen = self.risen if row["val_auc"] == self.best.get("val_auc") else row["epoch"]
            self.best = row
        self.history.append(row)
        self.batches, self.loss = 0, 0.0
        return better


class _Steps:
    """The optimisation steps: what has to be kept from one epoch to the next."""

    def __init__(
        self,
        network: nn.Module,
        trained_from: str,
        material: Material,
        recipe: Recipe,
        folder: Path,
    ) -> None:
        self._network, self._trained_from = network, trained_from
        self._material, self._recipe = material, recipe
        self._transform = TrainTransform(material.transform, recipe.augment, recipe.seed)
        device = material.compute.device
        self._targets = torch.from_numpy(material.train.targets).to(device)
        weight = torch.tensor(material.positive_weight, device=device)
        self._loss = nn.BCEWithLogitsLoss(pos_weight=weight)
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = _optimizer(self._trained, recipe)
        self._settling = np.sort(self._order(0)[:SETTLING_IMAGES])
        steps = len(self._batches(1))  # of one epoch
        self._scheduler = _schedule(self._optimizer, steps * recipe.epochs)
        self._folder = folder
        known = load_checkpoint(folder, network, self._optimizer, self._scheduler)
        self.course = _Course(**known) if known else _Course()
        self._saved = time.monotonic()

    def checkpoint(self) -> None:
        """Save all that going on from here takes."""
        course = dataclasses.asdict(self.course)
        save_checkpoint(self._folder, self._network, self._optimizer, self._scheduler, course)
        self._saved = time.monotonic()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        generator = np.random.default_rng((self._recipe.seed, epoch))
        return generator.permutation(len(self._material.train))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return batches(len(self._material.train), self._recipe.batch_size, self._order(epoch))

    def epoch(self, epoch: int, progress: Progress) -> float:
        """Show every training image once and return the mean loss."""
        train_mode(self._network, self._trained_from)
        course = self.course
        total = torch.tensor(course.loss, device=self._targets.device)
        cuts = self._batches(epoch)
        text = f"Epoch {epoch}/{self._recipe.epochs}"
        with progress.track(text, len(cuts), "batches", course.batches) as advance:
            for indices in cuts[course.batches :]:
                images = self._transform(self._material.train, indices, epoch)
                total += self._step(images, self._targets[torch.from_numpy(indices)]) * len(indices)
                course.batches += 1
                if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                    course.loss = float(total)
                    self.checkpoint()
                advance(1)
        return float(total) / len(self._targets)

    @torch.no_grad()
    def settle_batch_norm(self) -> None:
        """Take the statistics of trained batch norm layers afresh from training images.

        The running statistics of training lag behind the weights and jump from batch to batch;
        with few images that shifts all scores (precise batch norm, Wu & Johnson 2021).
        """
        images = self._material.train.images[self._settling]
        with settling_mode(self._network, self._trained_from):
            for indices in batches(len(images), SCORING_BATCH, np.arange(len(images))):
                batch = self._material.transform(images[indices])
                logits(self._network, batch, self._material.compute.dtype)

    def _step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss: torch.Tensor = self._loss(
            logits(self._network, images, self._material.compute.dtype), targets
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained, CLIP_NORM)
        self._optimizer.step()
        self._scheduler.step()
        return loss.detach()


def _optimizer(trained: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019); biases and batch norm are not decayed."""
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a linear warm-up followed by a cosine decay (Loshchilov & Hutter 2017)."""
    warm_up = max(1, round(steps * WARM_UP_SHARE))

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        return float(FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + np.cos(np.pi * done)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def write_history(folder: Path, history: Sequence[Mapping[str, Cell]]) -> None:
    """Write history.csv: one row for each epoch or each read-out that was tried."""
    write_table(folder / HISTORY, tuple(history[0]), [tuple(row.values()) for row in history])
