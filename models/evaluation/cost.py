"""What a model costs: size, arithmetic, time and memory, measured on the machine at hand."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.devices import device_name, wait_for
from models.failures import is_out_of_memory
from models.inference import WEIGHTS_FILE, Compute, place, scoring_batch
from models.networks import build, logits
from models.registry import Head

if TYPE_CHECKING:
    import torch
    from torch import nn

MANY = 32  # images
SECONDS, MOST = 0.5, 15  # spent on each batch size, with the warm-up; forward passes that are timed
MEGA, GIGA = 1e6, 1e9
TOGETHER = ("parameters", "gflops", "train_minutes", "disk_mb")  # of an ensemble: their sums


@dataclass(frozen=True)
class Speed:
    """What one image costs a network on the machine at hand; None where memory is short."""

    gflops: float  # operations of one image, in 10^9, of which a multiply-add is two
    one: float | None  # images a second, given one at a time
    many: float | None  # images a second, given 32 at a time


def cost_of(
    folder: Path,
    parameters: int,
    speed: Speed,
    compute: Compute,
    train_seconds: float | None,
    peak_memory_bytes: int | None,
) -> dict[str, Any]:
    """Return what a trained network costs.

    Args:
        folder: The run, for the size of its weights file.
        parameters: How many the network has.
        speed: From `known_speed` or `measure_speed`.
        compute: Device and arithmetic, with which images are scored.
        train_seconds: What training took; None where that is not known.
        peak_memory_bytes: The most memory that training held; 0 or None where that is not known.

    Returns:
        "parameters"; "gflops" of one image; "train_minutes"; "images_per_second_1" and
        "images_per_second_32", by how many are given at once, without reading images from the
        disk; "peak_memory_mb" and "disk_mb", in 10^6 bytes; "device" and "precision", by name.
        None for what is not known.
    """
    weights = folder / WEIGHTS_FILE
    return {
        "parameters": parameters,
        "gflops": speed.gflops,
        "train_minutes": None if train_seconds is None else round(train_seconds / 60, 2),
        "images_per_second_1": speed.one,
        "images_per_second_32": speed.many,
        "peak_memory_mb": round(peak_memory_bytes / MEGA, 1) if peak_memory_bytes else None,
        "disk_mb": round(weights.stat().st_size / MEGA, 3) if weights.is_file() else None,
        "device": device_name(compute.device),
        "precision": compute.precision,
    }


@lru_cache(maxsize=32)
def known_speed(
    architecture: str,
    head: Head,
    size: int,
    compute: Compute,
    threads: int,  # noqa: ARG001
    batches: bool = True,
) -> Speed:
    """Return the speed of a kind of network, which is measured once in a process.

    What its weights are does not matter: runs of one architecture are equally fast.

    Args:
        architecture: What `models.networks.build` takes.
        head: The classifier, likewise.
        size: Side of the input in pixels.
        compute: Device and arithmetic.
        threads: With which a processor computes.
        batches: Whether to measure batches too; else `many` is None.
    """
    import torch  # only modules that pyproject.toml names may do so when they load

    with torch.random.fork_rng(devices=[]):
        network = build(architecture, head).eval()
    place(network, compute)
    return measure_speed(network, size, compute, batches)


def measure_speed(network: "nn.Module", size: int, compute: Compute, batches: bool = True) -> Speed:
    """Measure what one image costs a network; it is left as it is found.

    Args:
        network: From `models.networks.build`, on the device of `compute`.
        size: Side of its input in pixels.
        compute: Device and arithmetic.
        batches: Whether to measure batches too; else `many` is None.
    """
    with _eval_mode(network):
        gflops = _gflops(network, size, compute)
        one = _images_per_second(network, size, 1, compute)
        # Large images are scored fewer at a time, however many are given.
        batch = min(MANY, scoring_batch(size))
        many = _images_per_second(network, size, batch, compute) if batches else None
    return Speed(gflops, one, many)


def total_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the members of an ensemble cost together, one after the other on one machine.

    Memory is that of the member that needs most; a figure is None where that of a member is.
    """
    total = dict(costs[0])
    if len(costs) == 1:
        return total
    for name in total:
        figures = [one[name] for one in costs]
        if name in ("device", "precision"):
            total[name] = ", ".join(dict.fromkeys(figures))
        elif None in figures:
            total[name] = None
        elif name in TOGETHER:
            total[name] = round(sum(figures), 4)
        elif name == "peak_memory_mb":
            total[name] = max(figures)
        else:  # images a second: the seconds for an image add up
            total[name] = round(1 / sum(1 / figure for figure in figures), 2)
    return total


@contextmanager
def _eval_mode(network: "nn.Module") -> Iterator[None]:
    """Have every module in eval mode, and afterwards in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _images(batch: int, size: int, compute: Compute) -> "torch.Tensor":
    """Return (B, 1, S, S) float32 images from -2 to 2: black ones would spare a GPU power."""
    import torch  # only modules that pyproject.toml names may do so when they load

    ramp = torch.linspace(-2, 2, batch * size * size, device=compute.device)
    return ramp.reshape(batch, 1, size, size)


def _gflops(network: "nn.Module", size: int, compute: Compute) -> float:
    """Return the operations of one image, those of convolutions and matrix products, in 10^9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits(network, _images(1, size, compute), compute.dtype)
    return round(int(counter.get_total_flops()) / GIGA, 6)


def _images_per_second(
    network: "nn.Module", size: int, batch: int, compute: Compute
) -> float | None:
    """Return the median over a few forward passes after a warm-up; None where memory is short.

    On a processor that takes longer than SECONDS for the first pass, that pass is the figure.
    """
    import torch

    def seconds() -> float:
        wait_for(compute.device)
        started = time.perf_counter()
        logits(network, images, compute.dtype)
        wait_for(compute.device)
        return time.perf_counter() - started

    try:
        with torch.inference_mode():
            images = _images(batch, size, compute)
            started = time.perf_counter()
            taken = [seconds()]
            # What a processor's first pass takes longer is little beside seconds. A GPU's may
            # take as long to choose algorithms.
            if taken[0] < SECONDS or compute.device.type != "cpu":
                taken = [seconds()]
            while len(taken) < MOST and time.perf_counter() - started < SECONDS:
                taken.append(seconds())
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return round(batch / statistics.median(taken), 2)
