"""The stage `train`, and the one training loop of every model."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.inference import (
    SCORING_BATCH,
    choose_compute,
    image_logits,
    place,
    prepare_process,
    restore_weights,
    save_facts,
    save_weights,
)
from models.loading import EvalTransform, TrainTransform, batches, load_split
from models.metrics import rank, validation_figures
from models.networks import (
    build,
    freeze,
    logits,
    normalisation,
    parameter_counts,
    settling_mode,
    train_mode,
)
from models.readout import fit_readout
from models.registry import NO_WEIGHTS, ModelRow, find_model
from models.run_facts import (
    Fitted,
    Material,
    Recipe,
    best_table,
    headline,
    model_facts,
    notes_on,
    starting_weights,
)
from models.weights import load_weights
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.manifest import LABELS, MANIFEST, Row
from pipeline.progress import Cell, Progress, Result
from pipeline.records import (
    close_folder,
    digest,
    open_folder,
    read_record,
    write_set_aside,
    write_table,
)
from pipeline.runs import create_run
from pipeline.stages import Train

STAGE = "train"
HISTORY = "history.csv"
WARM_UP_SHARE = 0.1  # of all steps, in which the learning rate rises
FINAL_SHARE = 0.01  # of the peak learning rate, at the end of the cosine
CLIP_NORM = 1.0  # of the gradient over all parameters
SETTLING_IMAGES = 256  # that the statistics of batch norm are taken from


def train(options: Train, progress: Progress) -> Result:
    """Train one model on the train split; the best weights by validation AUC are kept.

    The same options give the same weights on the same machine.

    Args:
        options: What to train on, which model, how.
        progress: Where it reports.

    Returns:
        The run folder with its best validation figures.

    Raises:
        UserError: The data, the weights or the model cannot be used; see the message.
    """
    started = time.perf_counter()
    prepare_process(options.workers)
    data_record = read_record(options.data, "preprocess", "organize")
    rows, fold = read_rows(options.data, data_record, options.fold)
    row = find_model(options.model)
    _check_rows(options.data, rows)
    recipe = recipe_of(options, row)
    network, origin, from_scratch = _network(options, row)
    material = _material(options, row, rows, network, progress)
    run = create_run(options.runs, row.name, options.seed)
    open_folder(run.folder, STAGE, options)
    facts = model_facts(options, row, parameter_counts(network), material, data_record, fold)
    save_facts(run.folder, facts)
    validated = f"; validated on {fold.name}" if fold.number else ""
    progress.say(f"{row.name}: {origin}; {material.compute.precision}, {facts['trainable']:,} of "
                 f"{facts['parameters']:,} parameters are trained{validated}")  # fmt: skip
    fitted = _fit_by_strategy(options, row, network, material, recipe, run.folder, progress)
    set_aside = [*material.train.set_aside, *material.val.set_aside]
    write_set_aside(run.folder, set_aside)
    area = float(fitted.best["val_auc"])
    counts = {
        "epochs": fitted.epochs, "best_epoch": fitted.best_epoch,
        "best_val_auc": area if area == area else None,
        "train_images": len(material.train), "val_images": len(material.val),
        **fold.facts,
    }  # fmt: skip
    seconds = time.perf_counter() - started
    inputs = digest(facts["data_hash"], facts["weights_hash"], facts["patients"])
    close_folder(run.folder, STAGE, options, counts, inputs, seconds)
    return Result(
        folder=run.folder,
        headline=headline(options, fitted, counts),
        facts={"run": str(run.folder), "model": row.name, **counts,
               "parameters": facts["parameters"], "trainable": facts["trainable"],
               "seconds": round(seconds, 1)},
        tables=(best_table(fitted),),
        notes=tuple(notes_on(options, row, material, from_scratch)),
        set_aside=len(set_aside),
        next_stage="evaluate",
        next_options={"run": run.name, "runs": options.runs},
    )  # fmt: skip


def recipe_of(options: Train, row: ModelRow) -> Recipe:
    """Return how a model is trained: what the options say, else what its row records.

    Raises:
        UserError: A batch of one image, or a random head where none is fitted.
    """
    if options.untrained_head and row.strategy != "opw":
        raise UserError("--untrained-head: is for the models that end in _OPW", "leave it out")
    if options.batch_size == 1:
        raise UserError("--batch-size 1: batch norm needs at least two images", "give 2 or more")
    scratch = starting_weights(options) == NO_WEIGHTS
    own_rate = row.scratch_learning_rate if scratch else row.learning_rate
    own_batch = row.scratch_batch_size if scratch else row.batch_size
    return Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size or own_batch,
        learning_rate=options.learning_rate or own_rate,
        weight_decay=row.weight_decay,
        patience=options.patience,
        augment=options.augment,
        seed=options.seed,
    )


def _network(options: Train, row: ModelRow) -> tuple[nn.Module, str, bool]:
    torch.manual_seed(options.seed)
    network = build(row.architecture, row.head)
    weights = starting_weights(options)
    origin = load_weights(network, row.architecture, weights)
    freeze(network, row.trained_from)
    return network, origin, weights == NO_WEIGHTS


def _check_rows(data: Path, rows: Sequence[Row]) -> None:
    """Refuse, before anything is decoded, what cannot be trained on."""
    if not any(row.split == "val" for row in rows):
        raise UserError(f"{data / MANIFEST}: holds no validation images", "organise more patients")
    labels = {row.label for row in rows if row.split == "train"}
    if missing := [label for label in LABELS if label not in labels]:
        raise UserError(
            f"{data / MANIFEST}: training needs benign and malignant images, and its train split "
            f"holds no {' and no '.join(missing)} one",
            "organise more patients",
        )


def _material(
    options: Train, row: ModelRow, rows: Sequence[Row], network: nn.Module, progress: Progress
) -> Material:
    compute = choose_compute(options.device, options.precision, network)
    place(network, compute)
    size = options.size or row.size
    train, val = (
        load_split(options.data, rows, split, size, options.workers, progress)
        for split in ("train", "val")
    )
    if not train.both_classes or not len(val):
        problem = "too many images cannot be read"
        example = (train.set_aside + val.set_aside)[0][1]
        raise UserError(f"{options.data}: {problem} ({example})", "preprocess again")
    mean, std = normalisation(row.architecture)
    return Material(train, val, EvalTransform(mean, std, compute.device), compute)


def _fit_by_strategy(
    options: Train,
    row: ModelRow,
    network: nn.Module,
    material: Material,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> Fitted:
    if row.strategy != "opw":
        return fit(network, row.trained_from, material, recipe, folder, progress)
    readout = fit_readout(
        network, material.train, material.val, material.transform, material.compute,
        material.positive_weight, options.untrained_head, progress,
    )  # fmt: skip
    _write_history(folder, readout.history)
    save_weights(folder, network)
    return Fitted(readout.history, readout.best, 0, 0)


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
        folder: Gets the history after every epoch and the weights whenever they are better.
        progress: Told one row an epoch.

    Raises:
        UserError: The loss is no longer finite.
    """
    steps = _Steps(network, trained_from, material, recipe)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    risen = 0  # the last epoch in which the AUC (without one: the loss) was better than before
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
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
        better = not best or rank(row) > rank(best)
        if better:
            risen = risen if row["val_auc"] == best.get("val_auc") else epoch
            best = row
            save_weights(folder, network)
        history.append(row)
        _write_history(folder, history)
        progress.row(row, best=better)
        if epoch - risen >= recipe.patience:
            break
    restore_weights(folder, network)
    return Fitted(history, best, len(history), best["epoch"])


class _Steps:
    """The optimisation steps: what has to be kept from one epoch to the next."""

    def __init__(
        self, network: nn.Module, trained_from: str, material: Material, recipe: Recipe
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

    def _order(self, epoch: int) -> NDArray[np.int64]:
        generator = np.random.default_rng((self._recipe.seed, epoch))
        return generator.permutation(len(self._material.train))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return batches(len(self._material.train), self._recipe.batch_size, self._order(epoch))

    def epoch(self, epoch: int, progress: Progress) -> float:
        """Show every training image once and return the mean loss."""
        train_mode(self._network, self._trained_from)
        total = torch.zeros((), device=self._targets.device)
        cuts = self._batches(epoch)
        text = f"Epoch {epoch}/{self._recipe.epochs}"
        with progress.track(text, len(cuts), "batches") as advance:
            for indices in cuts:
                images = self._transform(self._material.train, indices, epoch)
                total += self._step(images, self._targets[torch.from_numpy(indices)]) * len(indices)
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


def _write_history(folder: Path, history: Sequence[Mapping[str, Cell]]) -> None:
    write_table(folder / HISTORY, tuple(history[0]), [tuple(row.values()) for row in history])
