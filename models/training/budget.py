"""What trainings will take: seconds and bytes, said before they begin; torch need not be loaded.

The first steps of a long training tell it better: `models.training.estimate`.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from models.registry import (
    LOOKED_AT,
    MODELS,
    NO_WEIGHTS,
    STRENGTHS,
    ModelRow,
    named_models,
    own_values,
    takes_weights,
)
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.labels import is_normal
from pipeline.processes import world_here
from pipeline.progress import Progress
from pipeline.provenance import read_fresh
from pipeline.resources.estimates import TORCH_SECONDS, Estimate, has_gpu, total
from pipeline.resources.machine import core_speed, cores, has_bf16, matrix_speed, rate
from pipeline.resources.places import CACHE
from pipeline.resources.sizes import bytes_text, time_text
from pipeline.stages.training import Train

CONVOLUTION_SECONDS = 0.25  # of the measurement
CONVOLUTION_SHARE = 0.63  # of the speed of matrix products, on the machine of the table
BF16_GAIN = 1.7  # of it in bfloat16, with AVX-512's instructions for that
BATCH, SIDE = 16, 224  # of the table
SHARED = 0.5  # power of the cores that what a batch costs is divided by: part of it uses one alone
CALIBRATED = 64  # images that recalibrate batch norm at most, after an epoch
RUN_SECONDS = 1.5  # of a training beside its epochs: network, weights, records
SOLVE_SECONDS, SOLVE_VALUE_SECONDS = 0.05, 1e-7  # of a logistic regression, and for each value
PATCH_SIDE = 8  # pixels from one patch of PatchCore to the next; a test holds it to the network
PATCH_SECONDS = 5e-4  # of choosing the bank of PatchCore, for each patch that is looked at
IMPORT_SECONDS = 2.5  # of scikit-learn, once, for linear probes
DECODED_IMAGE_SECONDS, DECODED_MEGAPIXEL_SECONDS = 0.002, 0.02  # core seconds
WRITTEN_BYTES_A_SECOND = 2e8  # of weights and checkpoints
FLOAT = 4  # bytes
NAMED = 3  # models in a sentence
Pair = tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """What a model costs: for each batch core seconds, for each image GFLOP of the reference.

    Measured by `python -m tests.benchmarks.estimates` at 64 and 224 pixels, 16 images a batch.
    """

    frozen: Pair  # forward through the frozen layers
    step: Pair  # forward, backward and optimiser of the trained layers
    scored: Pair  # forward through the trained layers
    parameters: int
    trained: int  # of the parameters
    features: int  # values of an image that the frozen layers give, at 224 pixels


NONE = (0.0, 0.0)
AUGMENTED: Pair = (0.012, 0.0009)  # core seconds of a batch, and of an image at 224 pixels
COSTS = {
    "ResNet18_OPW": Cost((0.05, 2.4), NONE, NONE, 11_170_753, 513, 512),
    "ResNet18_PFT": Cost((0.02, 1.95), (0.45, 2.5), (0.04, 0.73), 11_170_753, 8_394_241, 50_176),
    "ResNet18_CFT": Cost(NONE, (0.39, 10.2), (0.09, 2.7), 11_170_753, 11_170_753, 0),
    "DenseNet121_OPW": Cost((0.12, 6.1), NONE, NONE, 6_948_609, 1_025, 1_024),
    "DenseNet121_PFT": Cost((0.11, 5.8), (0.15, 0.6), (0.04, 0.2), 6_948_609, 2_161_153, 25_088),
    "DenseNet121_CFT": Cost(NONE, (0.28, 26.0), (0.09, 6.8), 6_948_609, 6_948_609, 0),
    "EfficientNetB3_OPW": Cost((0.05, 4.1), NONE, NONE, 10_697_049, 1_537, 1_536),
    "EfficientNetB3_PFT": Cost((0.08, 3.0), (0.5, 2.9), (0.1, 0.8), 10_697_049, 8_507_615, 26_656),
    "EfficientNetB3_CFT": Cost(NONE, (1.2, 14.9), (0.24, 4.0), 10_697_049, 10_697_049, 0),
    "EfficientNetB3_Optuna": Cost(
        (0.08, 3.0), (0.6, 2.9), (0.1, 0.8), 11_089_241, 8_899_807, 26_656
    ),
    "CAE": Cost(NONE, (0.02, 8.0), (0.01, 2.9), 117_217, 117_217, 0),
    "CAE_Wide": Cost(NONE, (0.05, 48.0), (0.05, 15.5), 1_047_457, 1_047_457, 0),
    "VAE": Cost(NONE, (0.02, 8.8), (0.01, 2.9), 114_209, 114_209, 0),
    "VAE_Wide": Cost(NONE, (0.05, 49.0), (0.05, 16.0), 1_020_001, 1_020_001, 0),
    "PatchCore": Cost((0.01, 3.5), NONE, NONE, 2_776_512, 0, 0),
    "MammoCNN": Cost(NONE, (0.12, 14.9), (0.05, 4.6), 3_336_097, 3_336_097, 0),
}


@dataclass(frozen=True)
class Planned:
    """A training that is to be estimated."""

    model: str  # its name in the registry
    train: int  # training images that it learns from: a detector from the normal ones
    val: int  # validation images
    others: int = 0  # images that are decoded with these: of test, and those not learnt from
    size: int = 0  # side of the input in pixels; 0 for the model's own
    epochs: int = 30  # at most
    batch_size: int = 0  # 0 for the model's own from pretrained weights
    pixels: float = 512.0**2  # of an image of the dataset, on average
    decoded: bool = False  # whether the images are in the cache already
    device: str = "auto"
    precision: str = "fp32"

    @property
    def row(self) -> ModelRow:
        """The model."""
        return MODELS[self.model]

    @property
    def side(self) -> int:
        """Side of the input in pixels."""
        return self.size or self.row.size

    @property
    def area(self) -> float:
        """Pixels of the input, as a share of those of the table."""
        return (self.side / SIDE) ** 2


@cache
def convolution_speed(
    precision: str = "fp32", clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the GFLOP/s of the reference convolution on the processor, forward and backward."""
    import torch

    batch, channels, side = 4, 64, 56
    # Constants: nothing is drawn from the random numbers that trainings depend on.
    inputs = torch.full((batch, channels, side, side), 0.5)
    weights = torch.full((channels, channels, 3, 3), 0.01)
    inputs, weights = (
        one.to(memory_format=torch.channels_last).requires_grad_() for one in (inputs, weights)
    )

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            result = torch.nn.functional.conv2d(inputs, weights, padding=1).float().sum()
        torch.autograd.backward(result)

    operations = 3 * 2 * batch * side**2 * channels**2 * 9
    return 1e-9 * operations * rate(work, CONVOLUTION_SECONDS, clock)


def speed(precision: str = "fp32") -> float:
    """Return the GFLOP/s of the reference convolution; a guess where torch is not loaded."""
    if "torch" in sys.modules:
        return convolution_speed(precision)
    return CONVOLUTION_SHARE * matrix_speed() * (BF16_GAIN if precision == "bf16" else 1.0)


def training_estimate(planned: Planned) -> Estimate:
    """Return what a training takes at most: it may stop early.

    Returns:
        Seconds on the processor, None where a GPU would be used; bytes with a checkpoint, which
        goes in the end, and with what is kept beside the dataset.
    """
    cost = COSTS[planned.model]
    if _uses_gpu(planned.device):
        return Estimate(None, _bytes(planned, cost))
    seconds = RUN_SECONDS / core_speed() + (0.0 if planned.decoded else _decoding(planned))
    if not planned.row.takes_steps:
        seconds += _pass(cost.frozen, planned, planned.train + planned.val)
        return Estimate(seconds + _fitting(planned, cost), _bytes(planned, cost))
    if planned.row.trained_from:
        passed = _variants(planned) * planned.train + planned.val
        seconds += _pass(cost.frozen, planned, passed)
    return Estimate(seconds + planned.epochs * _epoch(planned, cost), _bytes(planned, cost))


def _fitting(planned: Planned, cost: Cost) -> float:
    """Return the seconds that a fit to frozen features takes, beside computing these."""
    if planned.row.is_detector:
        patches = min(LOOKED_AT, planned.train * (planned.side // PATCH_SIDE) ** 2)
        return PATCH_SECONDS * patches / core_speed() / math.pow(cores(), SHARED)
    each = SOLVE_SECONDS + SOLVE_VALUE_SECONDS * planned.train * cost.features
    return len(STRENGTHS) * each / core_speed()


def scoring_seconds(planned: Planned, images: int) -> float:
    """Return how long a trained model scores images on this processor, in float32: evaluation."""
    cost, planned = COSTS[planned.model], replace(planned, precision="fp32")
    return _pass(cost.frozen, planned, images) + _pass(cost.scored, planned, images)


def _epoch(planned: Planned, cost: Cost) -> float:
    batch = planned.batch_size or own_values(planned.row, scratch=False)["batch_size"]
    checked = min(CALIBRATED, max(batch, planned.train // 8)) + planned.val
    seconds = _pass(cost.step, planned, planned.train, batch) + _pass(cost.scored, planned, checked)
    if not planned.row.trained_from:  # else few variants are made, once
        each = AUGMENTED[0] / BATCH + AUGMENTED[1] * planned.area
        seconds += planned.train * each / core_speed()
    return seconds + _checkpoint(cost) / WRITTEN_BYTES_A_SECOND


def _pass(cost: Pair, planned: Planned, images: int, batch: int = BATCH) -> float:
    """Return the seconds that images take in batches."""
    fixed = math.ceil(images / batch) * cost[0] / core_speed() / math.pow(cores(), SHARED)
    return fixed + images * cost[1] * planned.area / speed(planned.precision)


def _variants(planned: Planned) -> int:
    return min(planned.row.variants or planned.epochs, planned.epochs)


def _decoding(planned: Planned) -> float:
    images = planned.train + planned.val + planned.others
    each = DECODED_IMAGE_SECONDS + DECODED_MEGAPIXEL_SECONDS * planned.pixels / 1e6
    return images * each / cores() / core_speed()


def _checkpoint(cost: Cost) -> float:
    """Return the bytes of a checkpoint: what is trained, twice more in the optimiser."""
    return 3.0 * FLOAT * cost.trained


def _bytes(planned: Planned, cost: Cost) -> float:
    size = 0.0 if planned.decoded else planned.side**2 * float(
        planned.train + planned.val + planned.others)  # fmt: skip
    weights = FLOAT * cost.parameters
    if not planned.row.takes_steps:
        return size + weights + FLOAT * cost.features * (planned.train + planned.val)
    if planned.row.trained_from:
        passed = _variants(planned) * planned.train + planned.val
        size += FLOAT * cost.features * planned.area * passed
    return size + 2 * weights + _checkpoint(cost)


def _uses_gpu(device: str) -> bool:
    if device != "auto":
        return device != "cpu"
    torch = sys.modules.get("torch")
    return bool(torch.cuda.is_available()) if torch else has_gpu()


def tell(trainings: Sequence[Train], progress: Progress) -> None:
    """Say what trainings will take, one after the other; nothing where it cannot be known.

    What is wrong with the data is for the trainings to say.
    """
    if world_here().distributed or not trainings:
        return
    try:
        planned = plan(trainings)
    except (UserError, OSError):
        return
    # Torch is loaded in a moment anyway, and measured better than what stands in for it.
    with progress.waiting("Loading PyTorch ..."):
        from models.inference import choose_compute, prepare_process

    first = trainings[0]
    try:
        prepare_process(first.workers, first.deterministic)
        compute = choose_compute(first.device, first.precision)
    except UserError:
        return
    device, precision = compute.device.type, compute.precision
    progress.say(sentence([replace(one, device=device, precision=precision) for one in planned]))


def plan(trainings: Iterable[Train]) -> list[Planned]:
    """Return trainings as they can be estimated, from the manifest of their datasets.

    Raises:
        UserError: A dataset cannot be used.
    """
    found: list[Planned] = []
    known: dict[tuple[Path, int | str], tuple[dict[str, int], int, float]] = {}
    decoded: set[tuple[Path, int]] = set()
    for options in trainings:
        split = options.data, options.fold
        if split not in known:
            record = read_fresh(options.data, "preprocess", "organize")
            rows, _ = read_rows(options.data, record, int(options.fold))
            counts = {s: sum(row.split == s for row in rows) for s in ("train", "val", "test")}
            normals = sum(row.split == "train" and is_normal(row) for row in rows)
            pixels = sum(row.height * row.width for row in rows) / max(len(rows), 1)
            known[split] = counts, normals, pixels
        size = _side(options)
        kept = (options.data / CACHE / f"{size}.json").is_file() or (options.data, size) in decoded
        decoded.add((options.data, size))
        found.append(_planned(options, *known[split], kept))
    return found


def _side(options: Train) -> int:
    return options.size or MODELS[options.model].size


def _planned(
    options: Train, images: Mapping[str, int], normals: int, pixels: float, decoded: bool
) -> Planned:
    row = MODELS[options.model]
    scratch = options.weights == NO_WEIGHTS or not takes_weights({"model": row.name})
    batch = options.batch_size or own_values(row, scratch)["batch_size"]
    train = normals if row.is_detector else images["train"]
    others = images["test"] + images["train"] - train
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp32"
    return Planned(
        row.name, train, images["val"], others, _side(options), options.epochs or Planned.epochs,
        batch, pixels, decoded, options.device, precision,
    )  # fmt: skip


def estimates_of(
    options: Train, images: Mapping[str, int], normals: int, pixels: float
) -> tuple[Estimate, float, int]:
    """Return what trainings will take on a dataset that is not there yet.

    Args:
        options: Of the training: models, seeds, epochs.
        images: How many each split will have.
        normals: How many normal ones its train split will have.
        pixels: Of one of them.

    Returns:
        What the trainings take, the seconds that their networks score images for, and how many
        they are.
    """
    planned: list[Planned] = []
    for model in named_models(options.model):
        one = replace(options, model=model)
        for _ in range(options.seeds):
            decoded = any(before.size == _side(one) for before in planned)
            planned.append(_planned(one, images, normals, pixels, decoded))
    scored = images["val"] + images["test"]
    scoring = 0.0  # of a GPU nothing is known, and it is soon done
    if not _uses_gpu(options.device):
        scoring = sum(scoring_seconds(one, scored) for one in planned)
    return queue_estimate(planned), scoring, len(planned)


def queue_estimate(planned: Sequence[Planned]) -> Estimate:
    """Return what trainings take one after the other, in one process that begins with them.

    A checkpoint goes at the end of its training, so the largest one counts alone.
    """
    trainings = total(map(training_estimate, planned))
    learning = [one for one in planned if one.row.takes_steps]
    checkpoints = [_checkpoint(COSTS[one.model]) for one in learning]
    start = TORCH_SECONDS + (IMPORT_SECONDS if len(learning) < len(planned) else 0.0)
    size = trainings.size - sum(checkpoints) + max(checkpoints, default=0.0)
    seconds = trainings.seconds
    return Estimate(None if seconds is None else seconds + start / core_speed(), size)


def sentence(planned: Sequence[Planned]) -> str:
    """Return what trainings will take in one sentence, with the models that take longest."""
    estimate = queue_estimate(planned)
    disk = f"{bytes_text(estimate.size)} of disk"
    if estimate.seconds is None:
        return f"About {disk}; how long it takes, the first steps will show."
    by_model: dict[str, float] = {}
    for one in planned:
        by_model[one.model] = by_model.get(one.model, 0.0) + (training_estimate(one).seconds or 0.0)
    longest = sorted(by_model, key=lambda name: -by_model[name])
    parts = [f"{name} {time_text(by_model[name])}" for name in longest[:NAMED]]
    parts += ["..."] if len(longest) > NAMED else []
    each = f" ({', '.join(parts)})" if len(longest) > 1 else ""
    steps = any(one.row.takes_steps for one in planned)
    early = "; stopping early ends it sooner" if steps else ""
    return f"About {time_text(estimate.seconds)} on this processor{each} and {disk}{early}."
