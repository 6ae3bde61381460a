"""The stage `train`: what is trained on, from which weights, in which run folder."""

import dataclasses
import errno
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.anomaly.autoencoder import HALVED
from models.data.loading import EvalTransform, load_split
from models.distributed import (
    is_rank_zero,
    on_rank_zero,
    raise_on_all_ranks,
    rank_zero_first,
    require_equal,
)
from models.inference import (
    Compute,
    choose_compute,
    place,
    prepare_process,
    save_facts,
    save_weights,
)
from models.networks import build, freeze, normalisation, parameter_counts
from models.registry import AUTOENCODERS, NO_WEIGHTS, ModelRow, meaningless_to, own_values
from models.run_facts import (
    FitResult,
    HyperParameters,
    TrainingData,
    best_table,
    head_of,
    headline,
    hyper_parameter_facts,
    model_facts,
    notes_on,
    starting_weights,
)
from models.training.best_trial import Settings, settings_of
from models.training.checkpoints import CHECKPOINT
from models.training.estimate import forget_peak, peak_memory
from models.training.linear_probe import Plan, fit_linear_probe
from models.training.loop import fit, write_history
from models.training.memory_bank import fill_memory_bank
from models.training.normals import normals_of, refuse_no_normals
from models.weights import load_weights
from pipeline.errors import UserError
from pipeline.folds import Fold, read_rows
from pipeline.holding import release
from pipeline.labels import Labels
from pipeline.manifest import MANIFEST, Row
from pipeline.options import checked, defaults
from pipeline.progress import Progress, Result
from pipeline.provenance import read_fresh, refuse_changed
from pipeline.records import (
    UNFINISHED,
    close_folder,
    digest,
    open_folder,
    read_json,
    write_set_aside,
)
from pipeline.runs import MODEL_FILE, NEW_RUN, Run, create_run, find_unfinished
from pipeline.stages.training import Train

STAGE = "train"
AFRESH = "start a new run without --resume"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


def train(options: Train, progress: Progress) -> Result:
    """Train one model on the train split; the best weights by validation AUC are kept.

    The same options give the same weights on the same machine.

    Returns:
        The run folder with its best validation figures.

    Raises:
        UserError: The data, the weights or the model cannot be used; see the message.
    """
    started, run = time.perf_counter(), None
    with raise_on_all_ranks():
        if options.resume != NEW_RUN:
            run = find_unfinished(options.runs, options.resume)
            options = _options_of(run, options)
        prepare_process(options.workers, options.deterministic)
    try:
        return _train(options, run, progress, started)
    finally:
        release()  # a run that was stopped may be continued by another process


def _options_of(run: Run, given: Train) -> Train:
    """Return the options that an unfinished run was started with.

    Raises:
        UserError: It does not say so, or its dataset has changed since.
    """
    begun = read_json(run.folder / UNFINISHED)["options"]
    options: Train = checked(Train, begun | {"runs": given.runs, "workers": given.workers})
    facts = run.folder / MODEL_FILE
    if facts.is_file():
        refuse_changed(run, read_json(facts), options.data, AFRESH)
    return options


def _refuse_other_content(run: Run, facts: Mapping[str, Any]) -> None:
    """Refuse to continue a run on other images than it was started with.

    Their files are decoded by now; that no record says that one changed does not matter.

    Raises:
        UserError: Pixels, patients or starting weights are not those of before.
    """
    if not (run.folder / MODEL_FILE).is_file():
        return
    known = read_json(run.folder / MODEL_FILE)
    what = {"pixels": "images", "patients": "folds", "weights_hash": "starting weights"}
    for name, words in what.items():
        if known.get(name, facts[name]) != facts[name]:
            raise UserError(f"{run.name}: its {words} have changed since it was started", AFRESH)


def _train(options: Train, begun: Run | None, progress: Progress, started: float) -> Result:
    with raise_on_all_ranks():
        data_record = read_fresh(options.data, "preprocess", "organize")
        rows, fold = read_rows(options.data, data_record, int(options.fold))
        settings = _settings(options, begun)
        check_rows(options.data, rows, settings.row)
        # So that the run's answers give the same again, whatever is searched later.
        given = dataclasses.replace(options, hyperparameters=settings.source)
        options, row = settings.options, settings.row
        hparams = hyper_parameters_of(options, row)
        network, origin, from_scratch = make_network(options, row)
    data = rank_zero_first(lambda: _load_for(options, row, rows, network, progress))
    facts = model_facts(options, row, parameter_counts(network), data, data_record, fold)
    facts |= settings.facts | hyper_parameter_facts(hparams, row)
    require_equal((facts["data_hash"], data.images, facts["precision"]), "images")
    with raise_on_all_ranks():
        if begun:
            _refuse_other_content(begun, facts)
    run = on_rank_zero(lambda: _open_run(given, row, begun, facts))
    _tell(facts, origin, fold, settings, progress)
    try:
        fitted = _fit_by_strategy(settings, network, data, hparams, run.folder, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"train: stopped; continue with: {_resuming(run)}") from None
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        problem = f"{error.filename or run.folder}: {error.strerror}"
        raise UserError(problem, f"make room, then continue with: {_resuming(run)}") from None
    set_aside = [*data.train.set_aside, *data.val.set_aside]
    area = float(fitted.best["val_auc"])
    counts = {
        "epochs": fitted.epochs, "best_epoch": fitted.best_epoch,
        "best_val_auc": area if area == area else None,
        "train_images": len(data.train), "val_images": len(data.val),
        "peak_memory": peak_memory(data.compute.device),
        **fold.facts,
    }  # fmt: skip
    seconds = time.perf_counter() - started
    inputs = digest(facts["data_hash"], facts["weights_hash"], facts["patients"])

    def close() -> None:
        write_set_aside(run.folder, set_aside)
        close_folder(run.folder, STAGE, given, counts, inputs, seconds)
        (run.folder / CHECKPOINT).unlink(missing_ok=True)

    on_rank_zero(close)
    return Result(
        folder=run.folder,
        headline=headline(options, fitted, counts),
        facts={"run": str(run.folder), "model": row.name, **counts,
               "parameters": facts["parameters"], "trainable": facts["trainable"],
               **settings.facts, "seconds": round(seconds, 1)},
        tables=(best_table(fitted),),
        notes=tuple(filter(None, [*notes_on(options, row, data, from_scratch), settings.note])),
        set_aside=len(set_aside),
        next_stage="evaluate",
        next_options={"run": run.name, "runs": options.runs},
    )  # fmt: skip


def _tell(
    facts: Mapping[str, Any], origin: str, fold: Fold, settings: Settings, progress: Progress
) -> None:
    """Say what is about to be trained."""
    validated = f"; validated on {fold.name}" if fold.number else ""
    progress.say(
        f"{facts['model']}: {origin}; {facts['precision']}, {facts['trainable']:,} of "
        f"{facts['parameters']:,} parameters are trained{validated}"
    )
    if settings.note:
        progress.say(f"{facts['model']}: {settings.note}")


def _resuming(run: Run) -> str:
    """Return the command that continues a run; outside the usual folder it goes by its path."""
    usual = run.folder.parents[1] == Train.runs
    return f"python main.py train --resume {run.name if usual else run.folder} --batch"


def _open_run(options: Train, row: ModelRow, begun: Run | None, facts: Mapping[str, Any]) -> Run:
    run = begun or create_run(options.runs, row.name, options.seed)
    open_folder(run.folder, STAGE, options)
    save_facts(run.folder, facts)
    return run


def hyper_parameters_of(options: Train, row: ModelRow) -> HyperParameters:
    """Return how a model is trained: what the options say, else what its row records.

    Raises:
        UserError: A batch of one image, or a random head where none is fitted.
    """
    if options.untrained_head and row.strategy != "opw":
        raise UserError("--untrained-head: is for the models that end in _OPW", "leave it out")
    for name, reason in meaningless_to(row).items():
        if _was_given(options, name):
            raise UserError(f"--{name.replace('_', '-')}: {row.name} {reason}", "leave it out")
    if options.batch_size == 1:
        raise UserError("--batch-size 1: batch norm needs at least two images", "give 2 or more")
    own = own_values(row, scratch=starting_weights(options) == NO_WEIGHTS)
    # An option at its default is left to the model.
    given = {name: getattr(options, name) for name in own if _was_given(options, name)}
    return HyperParameters(
        **(own | given),
        seed=options.seed,
        ema=options.ema,
        parts=options.parts,
        clip=options.clip,
        compile=options.compile,
        reconstruction=row.is_detector,
    )


def _was_given(options: Train, name: str) -> bool:
    return bool(getattr(options, name) != defaults(Train)[name])


def _settings(options: Train, begun: Run | None) -> Settings:
    facts = begun.folder / MODEL_FILE if begun else None
    known = read_json(facts) if facts and facts.is_file() else None
    return settings_of(options, known)


def make_network(options: Train, row: ModelRow) -> tuple[nn.Module, str, bool]:
    """Build the network of a model with its starting weights and freeze what is not trained.

    Torch's random numbers begin anew: a training that follows depends on the seed alone.

    Returns:
        The network, where its weights come from in one line, and whether they are random.

    Raises:
        UserError: The weights cannot be had.
    """
    torch.manual_seed(options.seed)
    network = build(row.architecture, head_of(options, row))
    weights = starting_weights(options)
    origin = load_weights(network, row.architecture, weights)
    freeze(network, row.trained_from)
    return network, origin, weights == NO_WEIGHTS


def check_rows(data: Path, rows: Sequence[Row], model: ModelRow) -> None:
    """Refuse, before anything is decoded, what a model cannot be trained on."""
    if not any(row.split == "val" for row in rows):
        raise UserError(f"{data / MANIFEST}: holds no validation images", "organise more patients")
    if model.is_detector:
        refuse_no_normals(data / MANIFEST, rows)
        return
    both, labels = Labels.of(rows), {row.label for row in rows if row.split == "train"}
    there = both.negative in labels, both.positive in labels
    if missing := [name for name, known in zip(both.names, there, strict=True) if not known]:
        raise UserError(
            f"{data / MANIFEST}: training needs {' and '.join(both.names)} images, and its train "
            f"split holds no {' and no '.join(missing)} one",
            "organise more patients",
        )


def _load_for(
    options: Train, row: ModelRow, rows: Sequence[Row], network: nn.Module, progress: Progress
) -> TrainingData:
    compute = choose_compute(options.device, options.precision)
    place(network, compute)
    forget_peak(compute.device)  # it is that of this training, not of one before it in a queue
    return load_training_data(options, row, rows, compute, progress)


def load_training_data(
    options: Train, row: ModelRow, rows: Sequence[Row], compute: Compute, progress: Progress
) -> TrainingData:
    """Return the training and validation images of a dataset, decoded.

    Raises:
        UserError: Too many of them cannot be read.
    """
    size = options.size or row.size
    if row.architecture in AUTOENCODERS and size % HALVED:
        near = max(HALVED, round(size / HALVED) * HALVED)
        raise UserError(f"--size {size}: {row.name} takes multiples of {HALVED}", f"give {near}")
    train, val = (
        load_split(options.data, rows, split, size, options.workers, progress)
        for split in ("train", "val")
    )
    if row.is_detector:
        train = normals_of(train)
    if not (train.both_classes or (row.is_detector and len(train))) or not len(val):
        problem = "too many images cannot be read"
        example = (train.set_aside + val.set_aside)[0][1]
        raise UserError(f"{options.data}: {problem} ({example})", "preprocess again")
    mean, std = normalisation(row.architecture)
    return TrainingData(options.data, train, val, EvalTransform(mean, std, compute.device), compute)


def _fit_by_strategy(
    settings: Settings,
    network: nn.Module,
    data: TrainingData,
    hparams: HyperParameters,
    folder: Path,
    progress: Progress,
) -> FitResult:
    options, row, tuned = settings.options, settings.row, settings.tuned
    if row.takes_steps:
        return fit(network, row.trained_from, data, hparams, folder, progress)
    if row.is_detector:
        filled = fill_memory_bank(network, data, options.seed, progress)
        if is_rank_zero():
            write_history(folder, filled.history)
            save_weights(folder, network)
        return filled
    plan = Plan.of(tuned.params) if tuned else None
    probe = fit_linear_probe(network, data, options.untrained_head, progress, plan, options.seed)
    if is_rank_zero():
        write_history(folder, probe.history)
        save_weights(folder, network)
    return FitResult(probe.history, probe.best, 0, 0)
