"""How fast this machine computes, measured in a fraction of a second, once for each process."""

import os
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

SECONDS = 0.15  # of a measurement
SIDE = 768  # of the matrices that are multiplied
BLOCK = bytes(range(256)) * 1024  # what is compressed: 0.26 MB
CPU_FACTS = Path("/proc/cpuinfo")
REFERENCE_BLOCKS = 400.0  # blocks a second that one of its cores compresses


@cache
def matrix_speed() -> float:
    """Return the GFLOP/s of float32 matrix products on all cores."""
    import numpy as np  # as slow to load as all of --help

    left = np.full((SIDE, SIDE), 0.5, np.float32)
    return 2e-9 * SIDE**3 * rate(lambda: left @ left)


@cache
def core_speed() -> float:
    """Return how fast one core does what has nothing to do with matrices; 1 on the reference."""
    return rate(compress) / REFERENCE_BLOCKS


def compress() -> bytes:
    """Do what the speed of a core is measured with."""
    return zlib.compress(BLOCK, 6)


def rate(
    work: Callable[[], object],
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return how often a second something can be done, by the median of its times.

    The first time does not count, and a pause in which another program had the processor counts
    little.
    """
    work()
    times: list[float] = []
    started = clock()
    while clock() - started < seconds or not times:
        before = clock()
        work()
        times.append(clock() - before)
    return 1 / max(sorted(times)[len(times) // 2], 1e-9)


def has_bf16() -> bool:
    """Return whether this processor seems to have instructions for bfloat16; torch is not asked."""
    try:
        flags = CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not on every system
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16"))


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
