"""The one training loop of every model: steps, checkpoints, early stopping."""

import dataclasses
import errno
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.data.loading import Split, batches, to_device
from models.devices import empty_cache
from models.distributed import (
    all_reduce_sum,
    gather_shards,
    is_rank_zero,
    on_rank_zero,
    raise_on_all_ranks,
    require_equal,
)
from models.failures import is_out_of_memory
from models.inference import LAST_FILE, restore_weights, save_weights, scoring_batch
from models.networks import compile_units, logits, recalibration_mode, split_before, train_mode
from models.run_facts import FitResult, HyperParameters, TrainingData
from models.training.checkpoints import load_checkpoint, save_checkpoint
from models.training.estimate import Forecast
from models.training.feeding import choose_feed
from models.training.objectives import Objective, make_objective
from models.training.optimisation import (
    clip_gradients,
    draw_mix,
    make_optimizer,
    make_schedule,
    moving_average,
)
from models.training.tensorboard import Events
from models.without_compiler import convert_sync_batchnorm, without_compiler
from pipeline.errors import UserError
from pipeline.processes import RankFailure, world_here
from pipeline.progress import Cell, Progress
from pipeline.records import write_table

HISTORY = "history.csv"
CHECKPOINT_SECONDS = 600  # between two checkpoints within an epoch
CALIBRATION_IMAGES = 64  # at most, that the statistics of batch norm are taken from


def fit(
    network: nn.Module,
    trained_from: str,
    data: TrainingData,
    hparams: HyperParameters,
    folder: Path,
    progress: Progress,
) -> FitResult:
    """Train a network: its objective, warm-up and cosine decay, early stopping.

    Args:
        network: On its device; ends with its best weights.
        trained_from: The first unit that is trained; empty for all.
        data: Images and their transform.
        hparams: How.
        folder: Gets the history after every epoch and the weights whenever they are better; and
            a checkpoint after every epoch and every ten minutes, from which it continues.
        progress: Gets one row for each epoch.

    Raises:
        UserError: The loss is no longer finite, or there is not enough memory.
    """
    trainer = _Trainer(network, trained_from, data, hparams, folder, progress)
    state = trainer.state
    if state.epochs:
        progress.say(
            f"Continues from the checkpoint after epoch {state.epochs} of {hparams.epochs}."
        )
    with closing(Events(folder if is_rank_zero() else None, state.history)) as events:
        while state.epochs < hparams.epochs and not state.stopped(hparams.patience):
            started, epoch = time.perf_counter(), state.epochs + 1
            train_loss = trainer.epoch(epoch)
            # Before scoring: lagging statistics cost most of the AUC (docs/performance.md).
            trainer.recalibrate_batch_norm()
            scores = trainer.scores(data.val)
            if not (np.isfinite(train_loss) and np.isfinite(scores).all()):
                raise UserError(
                    f"epoch {epoch}: the loss is no longer finite", "give a smaller --learning-rate"
                )
            row: dict[str, Any] = {
                "epoch": epoch,
                "train_loss": train_loss,
                **trainer.objective.figures(data.val, scores),
                "seconds": round(time.perf_counter() - started, 2),
            }
            better = state.add(row, trainer.objective)
            if is_rank_zero():
                if not folder.is_dir():  # it would be made again, without what a run begins with
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
                if better:
                    save_weights(folder, trainer.scored)
                write_history(folder, state.history)
                trainer.checkpoint()
            progress.row(row, best=better)
            events.add(state.history[-1])
    on_rank_zero(lambda: _keep_best(folder, trainer.scored, network))
    return FitResult(state.history, state.best, state.epochs, state.best["epoch"])


def _keep_best(folder: Path, last: nn.Module, network: nn.Module) -> None:
    save_weights(folder, last, LAST_FILE)
    restore_weights(folder, network)


@dataclass
class TrainingState:
    """How far a training has come."""

    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each finished epoch
    best: dict[str, Any] = field(default_factory=dict)  # the row of the best one
    # The last epoch whose leading figure (AUC; without one, the loss) was better than all before.
    risen: int = 0
    batches: int = 0  # of the epoch in work that are done
    loss: float = 0.0  # sum of their losses over images
    parts: int = 1  # that a batch is computed in

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def stopped(self, patience: int) -> bool:
        """Return whether training has gone on long enough without getting better."""
        return self.epochs - self.risen >= patience

    def add(self, row: Mapping[str, Any], objective: Objective) -> bool:
        """Enter a finished epoch; return whether it is the best so far."""
        # Plain numbers: a checkpoint holds nothing that would have to be unpickled.
        row = {
            name: value.item() if hasattr(value, "item") else value for name, value in row.items()
        }
        better = not self.best or objective.rank(row) > objective.rank(self.best)
        if better:
            led = row[objective.leading] != self.best.get(objective.leading)
            self.risen = row["epoch"] if led else self.risen
            self.best = row
        self.history.append(row)
        self.batches, self.loss = 0, 0.0
        return better


class _ForwardPass(nn.Module):
    """Logits as a module, which DistributedDataParallel can wrap."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self._dtype = network, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        return logits(self.network, inputs, self._dtype)


class _Trainer:
    """The optimisation steps, and what is kept from one epoch to the next.

    Under torchrun every rank draws the same batches and computes its shard of each. Gradients are
    averaged by DistributedDataParallel, statistics of batch norm by SyncBatchNorm on GPUs; on a
    processor each rank normalises its own shard.
    """

    def __init__(
        self,
        network: nn.Module,
        trained_from: str,
        data: TrainingData,
        hparams: HyperParameters,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._network, self._trained_from = network, trained_from
        self._data, self._hparams = data, hparams
        self._folder, self._progress = folder, progress
        self._world = world_here()
        if self._world.distributed and data.compute.device.type == "cuda":
            network = convert_sync_batchnorm(network)  # in place; parameters stay the same objects
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(network, hparams)
        self._calibration = data.train.some(calibration_images(len(data.train), hparams))
        steps = len(self._batches(1)) * hparams.epochs
        self.objective = make_objective(network, data, hparams, steps)
        self._scheduler = make_schedule(self._optimizer, steps)
        self._feed = choose_feed(network, trained_from, data, hparams, progress)
        self._averaged = moving_average(network, hparams.ema) if hparams.ema else None
        self._learner = split_before(network, trained_from)[1]
        self.state = self._load(folder)
        fed = self._feed.part_of(network)
        if hparams.compile:
            compile_units(fed)
        self._forward: nn.Module = _ForwardPass(fed, data.compute.dtype)
        if self._world.distributed:
            self._forward = DistributedDataParallel(self._forward)
        self._saved = time.monotonic()

    def _load(self, folder: Path) -> TrainingState:
        """Return how far the run has come, with its last checkpoint in place."""
        with raise_on_all_ranks():
            known = load_checkpoint(
                folder, self._learner, self._optimizer, self._scheduler, self._averaged
            )
        state = TrainingState(**known) if known else TrainingState(parts=self._hparams.parts)
        require_equal((state.epochs, state.batches), "checkpoint")
        return state

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept: the moving average where there is one."""
        return self._network if self._averaged is None else self._averaged.module

    def checkpoint(self) -> None:
        """Save all that continuing from here needs."""
        save_checkpoint(
            self._folder,
            self._learner,
            self._optimizer,
            self._scheduler,
            self._averaged,
            dataclasses.asdict(self.state),
        )
        self._saved = time.monotonic()

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch; they follow from seed and epoch."""
        random, count = (np.random.default_rng((self._hparams.seed, epoch)), len(self._data.train))
        order = random.permutation(count)
        if self._hparams.balance == "sampler":
            malignant = self._data.train.targets > 0
            chance = np.where(malignant, 0.5 / malignant.sum(), 0.5 / (~malignant).sum())
            order = random.choice(count, count, p=chance)
        cuts = batches(count, self._hparams.batch_size, order)
        if not self._world.distributed:
            return cuts
        # Batch norm has no variance of one image: a batch with fewer than two for each rank is
        # filled up from its start.
        least = 2 * self._world.size
        return [np.resize(cut, max(len(cut), least)) for cut in cuts]

    def epoch(self, epoch: int) -> float:
        """Show every training image once and return the mean loss."""
        self._feed.prepare(epoch)
        train_mode(self._network, self._trained_from)
        state, hparams = self.state, self._hparams
        if self._world.distributed:
            # Else every rank would drop the same units, as all start from one checkpoint.
            seed = np.random.SeedSequence((hparams.seed, epoch, self._world.rank))
            torch.manual_seed(int(seed.generate_state(1)[0]))
        total = torch.tensor(state.loss, device=self._data.compute.device)
        epoch_batches = self._batches(epoch)
        text = f"Epoch {epoch}/{hparams.epochs}"
        forecast = Forecast(self._data, hparams, len(epoch_batches), state.epochs)
        with self._progress.track(text, len(epoch_batches), "batches", state.batches) as advance:
            for number in range(state.batches, len(epoch_batches)):
                indices = epoch_batches[number]
                total += self._step(indices, epoch, number) * len(indices)
                state.batches += 1
                if is_rank_zero() and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                    state.loss = float(total)
                    self.checkpoint()
                advance(1)
                forecast.step(self._progress)
        return float(total) / sum(map(len, epoch_batches))

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
                if self._world.distributed:  # the others wait for this one's gradients
                    raise RankFailure(
                        "there is not enough memory for a shard of a batch",
                        f"start anew with --parts {2 * self.state.parts}, or a smaller batch",
                    ) from None
            # Out here nothing holds on to the tensors of the attempt.
            self._halve(len(indices))
        if self._hparams.clip:
            clip_gradients(self._trained, self._hparams.clip)
        with without_compiler():
            self._optimizer.step()
        self._scheduler.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._network)
        return loss

    def _gradients(self, indices: NDArray[np.int64], epoch: int, batch: int) -> torch.Tensor:
        # Gradients of all parts add up, so they are cleared once for the whole batch.
        self._optimizer.zero_grad()
        mix = draw_mix(indices, self._hparams, epoch, batch)
        total = torch.zeros((), device=self._data.compute.device)
        # A part of one image on a rank would have no variance for batch norm.
        parts = max(1, min(self.state.parts, len(indices) // (2 * self._world.size)))
        for part, cut in enumerate(np.array_split(np.arange(len(indices)), parts), start=1):
            places = self._world.shard(cut)
            own, partners = indices[places], mix.partners[places]
            inputs = self._feed.training(own, epoch)
            targets = self._targets(own)
            if not mix.none:
                inputs = mix(inputs, self._feed.training(partners, epoch))
                targets = mix(targets, self._targets(partners))
            with self._gradient_exchange(part == parts):
                # The gradient of the mean over the whole batch: DDP divides sums by the ranks.
                loss = self.objective.loss(self._forward(inputs), targets)
                loss = loss * self._world.size / len(indices)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / self._world.size
        return all_reduce_sum(total)

    def _targets(self, indices: NDArray[np.int64]) -> Tensor:
        return to_device(self._data.train.targets[indices], self._data.compute.device)

    def _gradient_exchange(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of one part of a step: ranks exchange gradients with the last."""
        if last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        local: AbstractContextManager[None] = self._forward.no_sync()
        return local

    def _halve(self, count: int) -> None:
        self._optimizer.zero_grad()
        empty_cache()
        if self.state.parts * 2 > count // 2:
            raise UserError(
                "there is not enough memory for two images at a time",
                "give a smaller --size, or a device with more memory",
            )
        self.state.parts *= 2
        self._progress.say(f"Out of memory: batches are now computed in {self.state.parts} parts.")

    def recalibrate_batch_norm(self) -> None:
        """Recompute the statistics of trained batch norm layers from training images.

        The running statistics of training lag behind the weights and jump from batch to batch;
        with few images that shifts all scores (precise batch norm, Wu & Johnson 2021).
        """
        size = max(2, self._hparams.batch_size // self.state.parts)
        # Every rank takes all of these images, so all have the same statistics without a message.
        cuts = batches(len(self._calibration), size, np.arange(len(self._calibration)))
        with recalibration_mode(self.scored, self._trained_from):
            self._score(self._calibration, cuts)

    def scores(self, split: Split) -> NDArray[np.float32]:
        """Return (N,) float32 logits of malignancy of a split, in eval mode, on every rank."""
        self.scored.eval()
        # Contiguous shards without padding: gathered in order, each image is scored once.
        shard = self._world.shard(np.arange(len(split)))
        size = scoring_batch(split.images.shape[1])
        return gather_shards(self._score(split, batches(len(shard), size, shard)))

    @torch.no_grad()
    def _score(self, split: Split, cuts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        fed, dtype = self._feed.part_of(self.scored), self._data.compute.dtype
        found = [
            logits(fed, self._feed.plain(split, indices), dtype).cpu().numpy()
            for indices in cuts
            if len(indices)
        ]
        # A rank may have no image of a small split.
        return np.concatenate(found) if found else np.empty(0, np.float32)


def calibration_images(count: int, hparams: HyperParameters) -> NDArray[np.int64]:
    """Return the training images that recalibrate batch norm, in order.

    An eighth of them, which takes little of an epoch's time, up to CALIBRATION_IMAGES; but as many
    as normalise each other in training.
    """
    order = np.random.default_rng((hparams.seed, 0)).permutation(count)
    return np.sort(order[: max(hparams.batch_size, min(CALIBRATION_IMAGES, count // 8))])


def write_history(folder: Path, history: Sequence[Mapping[str, Cell]]) -> None:
    """Write history.csv: one row for each epoch, or for each C of a linear probe."""
    write_table(folder / HISTORY, tuple(history[0]), [tuple(row.values()) for row in history])
