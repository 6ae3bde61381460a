"""What a model costs: size, arithmetic, time and memory, measured on the machine at hand."""

import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.inference import WEIGHTS_FILE, Compute
from models.networks import logits, parameter_counts
from models.training.estimate import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCHES = (1, 32)
SECONDS, MOST = 0.5, 15  # spent on each batch size, with the warm-up; forward passes that are timed
MEGA, GIGA = 1e6, 1e9
TOGETHER = ("parameters", "gflops", "train_minutes", "disk_mb")  # of an ensemble: their sums


def measure_cost(
    network: "nn.Module",
    size: int,
    compute: Compute,
    folder: Path,
    train_seconds: float | None,
    peak_memory_bytes: int | None,
) -> dict[str, Any]:
    """Measure what a trained network costs; it is left as it is found.

    Args:
        network: From `models.networks.build`, on the device of `compute`.
        size: Side of its input in pixels.
        compute: Device and arithmetic, with which images are scored.
        folder: The run, for the size of its weights file.
        train_seconds: What training took; None where that is not known.
        peak_memory_bytes: The most memory that training held; 0 or None where that is not known.

    Returns:
        "parameters"; "gflops" of one image, in 10^9 operations of which a multiply-add is two;
        "train_minutes"; "images_per_second_1" and "images_per_second_32", by batch size, without
        reading images from the disk; "peak_memory_mb" and "disk_mb", in 10^6 bytes; "device" and
        "precision", by name. None for what is not known.
    """
    weights = folder / WEIGHTS_FILE
    cost: dict[str, Any] = {
        "parameters": parameter_counts(network)[0],
        "gflops": None,
        "train_minutes": None if train_seconds is None else round(train_seconds / 60, 2),
    }
    with _eval_mode(network):
        cost["gflops"] = _gflops(network, size, compute)
        for batch in BATCHES:
            cost[f"images_per_second_{batch}"] = _images_per_second(network, size, batch, compute)
    return cost | {
        "peak_memory_mb": round(peak_memory_bytes / MEGA, 1) if peak_memory_bytes else None,
        "disk_mb": round(weights.stat().st_size / MEGA, 3) if weights.is_file() else None,
        "device": _device_name(compute),
        "precision": compute.precision,
    }


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
        _wait_for(compute)
        started = time.perf_counter()
        logits(network, images, compute.dtype)
        _wait_for(compute)
        return time.perf_counter() - started

    try:
        with torch.inference_mode():
            images = _images(batch, size, compute)
            started = time.perf_counter()
            taken = [seconds()]
            # What a processor's first pass takes longer is little beside seconds. A GPU's may
            # take as long to choose algorithms.
            if taken[0] < SECONDS or compute.device.type == "cuda":
                taken = [seconds()]
            while len(taken) < MOST and time.perf_counter() - started < SECONDS:
                taken.append(seconds())
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return round(batch / statistics.median(taken), 2)


def _wait_for(compute: Compute) -> None:
    import torch

    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def _device_name(compute: Compute) -> str:
    """Return the name of the GPU, or of the processor with how many threads compute."""
    import torch

    if compute.device.type == "cuda":
        return torch.cuda.get_device_name(compute.device)
    count = torch.get_num_threads()
    return f"{_processor()}, {count} thread{'s' * (count > 1)}"


def _processor() -> str:
    """Return the processor's name; on Linux platform.processor() is empty or the architecture."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "processor"
