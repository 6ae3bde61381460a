"""The one training loop of every model: steps, checkpoints, early stopping."""

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

from models.data.loading import Split, batches
from models.distributed import add_up, by_first, check_same, gather, together
from models.inference import LAST_FILE, restore_weights, save_weights, scoring_batch
from models.metrics import rank, validation_figures
from models.networks import compile_units, logits, settling_mode, split_before, train_mode
from models.run_facts import Fitted, Material, Recipe
from models.training.checkpoints import load_checkpoint, save_checkpoint
from models.training.estimate import Forecast, is_out_of_memory
from models.training.feeding import choose_feed
from models.training.optimisation import (
    Loss,
    clip_gradients,
    draw_mix,
    make_optimizer,
    make_schedule,
    moving_average,
)
from models.training.shared_layers import in_step, part_of_step, share_layers
from models.training.tensorboard import Events
from pipeline.errors import UserError
from pipeline.processes import OutOfStep, World
from pipeline.progress import Cell, Progress
from pipeline.records import write_table

HISTORY = "history.csv"
CHECKPOINT_SECONDS = 600  # between two checkpoints within an epoch
SETTLING_IMAGES = 64  # that the statistics of batch norm are taken from, at most


def fit(
    network: nn.Module,
    trained_from: str,
    material: Material,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> Fitted:
    """Train a network: binary cross-entropy, warm-up and cosine decay, early stopping.

    Args:
        network: On its device; ends with its best weights.
        trained_from: The first unit that is trained; empty for all.
        material: Images and their transform.
        recipe: How.
        folder: Gets the history after every epoch and the weights whenever they are better; and
            a checkpoint after every epoch and every ten minutes, from which it goes on.
        progress: Told one row an epoch.

    Raises:
        UserError: The loss is no longer finite, or there is not enough memory.
    """
    steps = _Steps(network, trained_from, material, recipe, folder, progress)
    course, first = steps.course, material.compute.world.first
    if course.epochs:
        progress.say(
            f"Continues from the checkpoint after epoch {course.epochs} of {recipe.epochs}."
        )
    with Events(folder if first else None, course.history) as events:
        while course.epochs < recipe.epochs and not course.stopped(recipe.patience):
            started, epoch = time.perf_counter(), course.epochs + 1
            train_loss = steps.epoch(epoch)
            steps.settle_batch_norm()
            scores = steps.scores(material.val)
            if not (np.isfinite(train_loss) and np.isfinite(scores).all()):
                raise UserError(
                    f"epoch {epoch}: the loss is no longer finite", "give a smaller --learning-rate"
                )
            row: dict[str, Any] = {
                "epoch": epoch,
                "train_loss": train_loss,
                **validation_figures(material.val.targets > 0, scores, material.positive_weight),
                "seconds": round(time.perf_counter() - started, 2),
            }
            better = course.add(row)
            if first:
                if better:
                    save_weights(folder, steps.scored)
                write_history(folder, course.history)
                steps.checkpoint()
            progress.row(row, best=better)
            events.add(course.history[-1])
    by_first(material.compute.world, lambda: _keep_best(folder, steps.scored, network))
    return Fitted(course.history, course.best, course.epochs, course.best["epoch"])


def _keep_best(folder: Path, last: nn.Module, network: nn.Module) -> None:
    save_weights(folder, last, LAST_FILE)
    restore_weights(folder, network)


@dataclass
class _Course:
    """How far a training has come.

    Attributes:
        history: One row for each finished epoch.
        best: The row of the best one.
        risen: The last epoch in which the AUC (without one: the loss) was better than before.
        batches: Of the epoch in work that are done.
        loss: Sum of their losses over images.
        parts: That a batch is computed in.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    risen: int = 0
    batches: int = 0
    loss: float = 0.0
    parts: int = 1

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
        progress: Progress,
    ) -> None:
        self._network, self._trained_from = network, trained_from
        self._material, self._recipe = material, recipe
        self._folder, self._progress = folder, progress
        self._world = material.compute.world
        self._targets = torch.from_numpy(material.train.targets).to(material.compute.device)
        self._loss = Loss(recipe, material.positive_weight, material.compute.device)
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(network, recipe)
        self._settling = material.train.some(settling_images(len(material.train), recipe))
        self._scheduler = make_schedule(self._optimizer, len(self._cuts(1)) * recipe.epochs)
        self._feed = choose_feed(network, trained_from, material, recipe, progress)
        fed, dtype = self._feed.part_of(network), material.compute.dtype
        # Before the moving average is made, so that its layers are shared as well.
        exact = material.compute.exact and not recipe.compile  # torch's compiler has own layers
        batch = share_layers(network, self._world, exact)
        self._averaged = moving_average(network, recipe.ema) if recipe.ema else None
        self._learner = split_before(network, trained_from)[1]
        self.course = self._begin(folder)
        if recipe.compile:
            compile_units(fed)
        self._forward = in_step(fed, lambda part, inputs: logits(part, inputs, dtype), batch)
        self._saved = time.monotonic()

    def _begin(self, folder: Path) -> _Course:
        """Return how far the run has come, with its last checkpoint in place."""
        with together(self._world):
            known = load_checkpoint(
                folder, self._learner, self._optimizer, self._scheduler, self._averaged
            )
        course = _Course(**known) if known else _Course(parts=self._recipe.parts)
        check_same(self._world, (course.epochs, course.batches), "checkpoint")
        return course

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept: the moving average where there is one."""
        return self._network if self._averaged is None else self._averaged.module

    def checkpoint(self) -> None:
        """Save all that going on from here takes."""
        course = dataclasses.asdict(self.course)
        save_checkpoint(
            self._folder, self._learner, self._optimizer, self._scheduler, self._averaged, course
        )
        self._saved = time.monotonic()

    def _cuts(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch; they follow from seed and epoch."""
        random, count = np.random.default_rng((self._recipe.seed, epoch)), len(self._material.train)
        order = random.permutation(count)
        if self._recipe.balance == "sampler":
            malignant = self._material.train.targets > 0
            chance = np.where(malignant, 0.5 / malignant.sum(), 0.5 / (~malignant).sum())
            order = random.choice(count, count, p=chance)
        return batches(count, self._recipe.batch_size, order)

    def epoch(self, epoch: int) -> float:
        """Show every training image once and return the mean loss."""
        self._feed.prepare(epoch)
        train_mode(self._network, self._trained_from)
        course, recipe = self.course, self._recipe
        total = torch.tensor(course.loss, device=self._targets.device)
        cuts = self._cuts(epoch)
        text = f"Epoch {epoch}/{recipe.epochs}"
        forecast = Forecast(self._material, recipe, len(cuts), course.epochs)
        with self._progress.track(text, len(cuts), "batches", course.batches) as advance:
            for number in range(course.batches, len(cuts)):
                indices = cuts[number]
                total += self._step(indices, epoch, number) * len(indices)
                course.batches += 1
                if self._world.first and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                    course.loss = float(total)
                    self.checkpoint()
                advance(1)
                forecast.step(self._progress)
        return float(total) / len(self._targets)

    def _step(self, indices: NDArray[np.int64], epoch: int, batch: int) -> torch.Tensor:
        """Learn from a batch and return its mean loss.

        A batch that does not fit into memory is computed in twice as many parts, one after the
        other, from then on; batch norm sees a part at a time.
        """
        while True:
            try:
                loss = self._gradients(indices, epoch, batch)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self._world.several:  # the others wait for this one's share
                    raise OutOfStep(
                        "there is not enough memory for a share of a batch",
                        f"start anew with --parts {2 * self.course.parts}, or a smaller batch",
                    ) from None
            # Out here nothing holds on to the tensors of the attempt.
            self._halve(len(indices))
        if self._recipe.clip:
            clip_gradients(self._trained, self._recipe.clip)
        self._optimizer.step()
        self._scheduler.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._network)
        return loss

    def _gradients(self, indices: NDArray[np.int64], epoch: int, batch: int) -> torch.Tensor:
        self._optimizer.zero_grad()
        mix = draw_mix(indices, self._recipe, epoch, batch)
        total = torch.zeros((), device=self._targets.device)
        # A part of one image would have no variance for batch norm.
        parts = max(1, min(self.course.parts, len(indices) // 2))
        cuts = np.array_split(np.arange(len(indices)), parts)
        for number, cut in enumerate(cuts, start=1):
            places = self._world.share(cut)
            own, partners = indices[places], mix.partners[places]
            inputs = self._feed.training(own, epoch)
            targets = self._targets[torch.from_numpy(own)]
            if not mix.none:
                inputs = mix(inputs, self._feed.training(partners, epoch))
                targets = mix(targets, self._targets[torch.from_numpy(partners)])
            # Gradients are those of the mean over the batch: DDP takes the average over processes.
            counts = self._world.size / len(indices)
            with part_of_step(self._forward, last=number == parts):
                loss = self._loss(self._forward(inputs, len(cut)), targets) * counts
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / self._world.size
        return add_up(self._world, total)

    def _halve(self, count: int) -> None:
        self._optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.course.parts * 2 > count // 2:
            raise UserError(
                "there is not enough memory for two images at a time",
                "give a smaller --size, or a device with more memory",
            )
        self.course.parts *= 2
        self._progress.say(f"Out of memory: batches are now computed in {self.course.parts} parts.")

    @torch.no_grad()
    def settle_batch_norm(self) -> None:
        """Take the statistics of trained batch norm layers afresh from training images.

        The running statistics of training lag behind the weights and jump from batch to batch;
        with few images that shifts all scores (precise batch norm, Wu & Johnson 2021).
        """
        count = len(self._settling)
        at_once = max(2, self._recipe.batch_size // self.course.parts)
        cuts = batches(count, at_once, np.arange(count))
        with settling_mode(self.scored, self._trained_from):
            self._score(self._settling, [self._world.share(cut) for cut in cuts])

    def scores(self, split: Split) -> NDArray[np.float32]:
        """Return (N,) float32 logits of malignancy of a split, in eval mode."""
        self.scored.eval()
        # One process scores in the batches that two would have, so that it scores alike.
        worlds = [self._world] if self._world.several else [World(0, 2), World(1, 2)]
        shares = [world.share(np.arange(len(split))) for world in worlds]
        batch = scoring_batch(split.images.shape[1])
        cuts = [cut for own in shares for cut in batches(len(own), batch, own) if len(cut)]
        return gather(self._world, self._score(split, cuts))

    def _score(self, split: Split, cuts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        fed, dtype, found = self._feed.part_of(self.scored), self._material.compute.dtype, []
        with torch.no_grad():
            for indices in cuts:
                batch = self._feed.plain(split, indices)
                found.append(logits(fed, batch, dtype).cpu().numpy())
        return np.concatenate(found)


def settling_images(count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Return which of the training images settle batch norm, in order.

    An eighth of them, which takes little of an epoch's time, up to SETTLING_IMAGES; but as many as
    normalise each other in training.
    """
    order = np.random.default_rng((recipe.seed, 0)).permutation(count)
    return np.sort(order[: max(recipe.batch_size, min(SETTLING_IMAGES, count // 8))])


def write_history(folder: Path, history: Sequence[Mapping[str, Cell]]) -> None:
    """Write history.csv: one row for each epoch or each read-out that was tried."""
    write_table(folder / HISTORY, tuple(history[0]), [tuple(row.values()) for row in history])
