"""Scores of a network over images, and the files that make a run folder enough to predict from."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from models.data.loading import EvalTransform
from models.devices import choose_device, choose_precision
from models.networks import build, keep_depthwise_in_float32, logits
from models.registry import Head
from models.resampling import keep_memory
from pipeline.errors import UserError
from pipeline.records import atomic, read_json, write_json
from pipeline.runs import MODEL_FILE
from pipeline.work import worker_count

WEIGHTS_FILE = "weights.safetensors"
LAST_FILE = "last.safetensors"  # the weights at the end of training, beside the best ones
SCORING_PIXELS = 32 * 224**2  # of a batch that is scored
KEPT_BYTES = 2**30  # of freed memory, for the next batch


@dataclass(frozen=True)
class Compute:
    """Where and how to compute."""

    device: torch.device  # the processor or a GPU
    dtype: torch.dtype | None  # of autocast arithmetic; None for float32 throughout

    @property
    def precision(self) -> str:
        """Its name as in the options."""
        return "bf16" if self.dtype is torch.bfloat16 else "fp32"


def choose_compute(device: str, precision: str) -> Compute:
    """Choose device and arithmetic.

    See `models.devices`.

    Raises:
        UserError: A GPU is asked for and there is none.
    """
    chosen = choose_device(device)
    precision = choose_precision(chosen, precision)
    return Compute(chosen, torch.bfloat16 if precision == "bf16" else None)


def scoring_compute() -> Compute:
    """Return where trained networks are scored: in float32 on every device.

    bfloat16 keeps three digits, which moves probabilities in the second: enough for gradients, but
    a run is to have one score for an image, on every machine and as an exported model.

    Raises:
        UserError: This device cannot be used.
    """
    return choose_compute("auto", "fp32")


def place(network: nn.Module, compute: Compute) -> None:
    """Move a network to its device, in the layout that its convolutions are trained fastest in.

    Its first convolution puts images into the layout of its own weights.
    """
    # On Apple's GPUs channels stored last gain nothing, and some operations do not know them.
    plain = compute.device.type == "mps" or _too_wide(network, compute)
    layout = torch.contiguous_format if plain else torch.channels_last
    network.to(compute.device, memory_format=layout)  # type: ignore[call-overload]
    if compute.dtype is not None and compute.device.type == "cpu":
        keep_depthwise_in_float32(network)


def _too_wide(network: nn.Module, compute: Compute) -> bool:
    """Return whether channels stored last are slow: maps as wide as the image, without AVX-512.

    The gradients of the weights then take up to four times as long as with channels first.
    """
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    on_avx2 = compute.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return on_avx2 and first.stride == (1, 1)


def scoring_batch(size: int) -> int:
    """Return how many images of a size, in pixels, are scored at once.

    Many large ones would take gigabytes, and more time than in turn.
    """
    return min(32, max(1, SCORING_PIXELS // size**2))


def prepare_process(workers: int, deterministic: bool = False) -> None:
    """Set threads, allocator and algorithms of this process; before the first tensor."""
    torch.set_num_threads(worker_count(workers))
    # On a GPU the fastest algorithms may sum in another order each time.
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)  # this loads torch's compiler: seconds
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it
    keep_memory(KEPT_BYTES)


def run_over(
    function: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    transform: EvalTransform,
    advance: Callable[[int], None] = lambda _steps: None,
) -> NDArray[np.float32]:
    """Apply a function of image tensors to many images, without gradients.

    Args:
        function: Takes (B, 1, S, S) float32, gives (B, ...).
        images: (N, S, S) uint8.
        transform: Makes the tensors.
        advance: Called with the number of images done.

    Returns:
        (N, ...) float32.
    """
    parts, batch = [], scoring_batch(images.shape[1])
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            parts.append(function(transform(part)).float().cpu().numpy())
            advance(len(part))
    return np.concatenate(parts)


def image_logits(
    network: nn.Module,
    images: NDArray[np.uint8],
    transform: EvalTransform,
    compute: Compute,
    advance: Callable[[int], None] = lambda _steps: None,
) -> NDArray[np.float32]:
    """Return (N,) float32 logits of malignancy of (N, S, S) uint8 images, in eval mode."""
    network.eval()
    return run_over(lambda batch: logits(network, batch, compute.dtype), images, transform, advance)


@dataclass(frozen=True)
class TrainedModel:
    """What a run folder holds: its network in eval mode with the best weights, and model.json."""

    network: nn.Module
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return int(self.facts["input"]["size"])

    def transform(self, compute: Compute) -> EvalTransform:
        """Return the transform that its images went through in training."""
        expected = self.facts["input"]
        return EvalTransform(float(expected["mean"]), float(expected["std"]), compute.device)


def save_weights(folder: Path, network: nn.Module, name: str = WEIGHTS_FILE) -> None:
    """Write the weights of a run, whole or not at all."""
    # Plain layout: safetensors refuses tensors that are stored channels last. Its own save_file
    # makes files that nobody but the owner may read.
    state = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
    with atomic(folder / name) as temporary:
        temporary.write_bytes(save(state))


def restore_weights(folder: Path, network: nn.Module) -> None:
    """Read the weights of a run into a network, in place.

    Raises:
        UserError: The file is missing, damaged, or of another network.
    """
    path = folder / WEIGHTS_FILE
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read ({reason})", "train again with: python main.py train"
        ) from None


def save_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write model.json: all that prediction needs to know beside the weights."""
    write_json(folder / MODEL_FILE, dict(facts))


def load_run(folder: Path) -> TrainedModel:
    """Rebuild the network of a run, from the run folder alone.

    Raises:
        UserError: A file of it is missing or damaged.
    """
    facts = read_json(folder / MODEL_FILE)
    try:
        network = build(str(facts["architecture"]), Head.recorded(facts))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder / MODEL_FILE}: is not what training writes ({error})") from None
    restore_weights(folder, network)
    return TrainedModel(network.eval(), facts)
