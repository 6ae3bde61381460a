"""What a benchmark ran on: processor, GPU, versions; and what cannot be measured there."""

import json
import os
import platform
import sys
from pathlib import Path

import torch

from models.devices import device_name, has_fast_bf16
from pipeline.resources.machine import cores

CPUINFO = Path("/proc/cpuinfo")
# What decides how quickly networks are computed, as Linux spells it on x86 and on ARM.
FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16",
    "asimd", "sve", "bf16", "svebf16",
)  # fmt: skip
VECTORS = "avx", "amx", "fma", "neon", "sve", "bf16"  # what torch's names of them begin with


def processor():
    """Return the processor's name, cores, instructions and what torch says that it can.

    Returns:
        "name", "cores" of the machine, "usable_cores" of this process, "flags" as the system tells
        them (None where it does not), "torch" (its name for the best instructions that it uses),
        "capabilities" of torch (None where this version has no list), "fast_bf16".
    """
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask else None
    name, _, _ = device_name(torch.device("cpu")).rpartition(", ")
    return {
        "name": name,
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "flags": _flags(),
        "torch": torch.backends.cpu.get_cpu_capability(),
        "capabilities": None if found is None else sorted(k for k, v in found.items() if v is True),
        "fast_bf16": has_fast_bf16(),
    }


def _flags():
    """Return which of FLAGS the system names; None where it does not tell."""
    if not CPUINFO.is_file():
        return None
    for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            known = set(value.split())
            return [flag for flag in FLAGS if flag in known]
    return None


def gpu():
    """Return the GPU's name, memory and versions; None where torch finds none."""
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda", 0)
    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": device_name(device),
        "count": torch.cuda.device_count(),
        "memory_gb": round(total / 1e9, 1),
        "free_gb": round(free / 1e9, 1),
        "multiprocessors": facts.multi_processor_count,
        "capability": f"{facts.major}.{facts.minor}",
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
    }


def facts(with_gpu=True):
    """Return all of it; asking for the GPU takes some of its memory."""
    return {
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "processor": processor(),
        "gpu": gpu() if with_gpu else None,
    }


def text(found):
    """Return `facts` in lines."""
    cpu, card = found["processor"], found["gpu"]
    flags = cpu["flags"]
    told = (
        "instructions unknown" if flags is None else ", ".join(flags) or "none of those looked for"
    )
    lines = [
        f"processor: {cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores; {told}; "
        f"torch uses {cpu['torch']}"
    ]
    if cpu["capabilities"] is not None:
        wide = [name for name in cpu["capabilities"] if name.startswith(VECTORS)]
        lines.append(f"torch finds of vectors and matrices: {', '.join(wide) or 'nothing'}")
    if card:
        lines.append(
            f"GPU: {card['count']} x {card['name']}, {card['memory_gb']} GB ({card['free_gb']} GB "
            f"free), CUDA {card['cuda']}, cuDNN {card['cudnn']}"
        )
    lines.append(f"Python {found['python']}, torch {found['torch']}, {found['system']}")
    return "\n".join(lines)


def unmeasured():
    """Return, a line each, what a benchmark on the processor cannot measure on this machine."""
    lines = []
    if not has_fast_bf16():
        lines.append(
            "bf16 against fp32: this processor has no instructions for bfloat16 (avx512_bf16 or "
            "amx_bf16)"
        )
    if torch.cuda.is_available():
        lines.append("the GPU: this trains on the processor; see tests.benchmarks.bench_gpu")
    else:
        lines.append("GPU: torch finds none; with one: python -m tests.benchmarks.bench_gpu")
    return lines


if __name__ == "__main__":
    print(json.dumps(facts()))


def compiled_in(folder):
    """Return an environment in which Python keeps the modules that it compiles in a folder.

    It keeps them beside the source unless PYTHONDONTWRITEBYTECODE is set, under which each process
    compiles this tool anew.
    """
    own = {name: at for name, at in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {"PYTHONPYCACHEPREFIX": str(folder)}
