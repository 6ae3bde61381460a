"""Where torch computes: the processor, a GPU of NVIDIA or AMD (cuda), a GPU of Apple (mps)."""

import platform
from pathlib import Path

import torch

from models.distributed import select_gpu
from pipeline.errors import UserError
from pipeline.processes import world_here

NO_GPU = {"cuda": "torch finds no GPU", "mps": "torch finds no Apple GPU"}
MACOS_OF_BF16 = 14  # the first whose Metal knows bfloat16


def choose_device(name: str) -> torch.device:
    """Return a device; under torchrun each process of a machine takes a GPU of its own.

    Args:
        name: "cpu", "cuda", "mps", or "auto" for the first that is there of cuda, mps and cpu.

    Raises:
        UserError: A GPU is asked for and there is none, or several processes would share Apple's.
    """
    world = world_here()
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name in there and not there[name]:
        raise UserError(f"--device {name}: {NO_GPU[name]}", "give --device cpu")
    if name == "mps" and world.distributed:
        # It has no collectives, and a machine has one.
        raise UserError("--device mps: several processes cannot share it", "give --device cpu")
    if name == "auto":
        there["mps"] &= not world.distributed
        name = next((kind for kind, found in there.items() if found), "cpu")
    if name == "cuda":
        select_gpu(world)
    return torch.device(name)


def choose_precision(device: torch.device, precision: str) -> str:
    """Return "bf16" or "fp32".

    "auto" takes bfloat16 on GPUs that have it and on processors with instructions for it. On a GPU
    of Apple it takes float32: which of them are faster in bfloat16 torch does not tell.

    Args:
        device: From `choose_device`.
        precision: "auto", "fp32" or "bf16"; the last gives float32 where bfloat16 is not known.
    """
    if device.type == "mps":
        known = precision == "bf16" and torch.backends.mps.is_macos_or_newer(MACOS_OF_BF16, 0)
        return "bf16" if known else "fp32"
    if precision == "auto":
        if device.type == "cuda":
            # GPUs before Ampere emulate it, which is slower than float32.
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = has_fast_bf16()
        return "bf16" if fast else "fp32"
    return precision


def has_fast_bf16() -> bool:
    """Return whether this processor has instructions for bfloat16."""
    # Older torch has no list of what the processor can, but asks it for some of that.
    ask = getattr(torch.cpu, "get_capabilities", None)
    # Without such instructions oneDNN emulates bfloat16, which is slower than float32.
    found = ask() if ask else {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock tells how long that took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_cache() -> None:
    """Give back the memory of GPUs that torch keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with how many threads compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"GPU of {_processor()}"
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
