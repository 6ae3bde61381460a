"""A command as a process of its own, watched from outside: its time and the memory of all of it."""

import json
import os
import subprocess
import time
from dataclasses import dataclass

import psutil

from tests.benchmarks.comparison import MAIN

EVERY = 0.25  # seconds between looks at the memory


@dataclass(frozen=True)
class Watched:
    """What a command said and took."""

    said: str  # on standard output
    seconds: float
    processor: float  # seconds of the processor, with those of its worker processes
    peak: float  # MB that it and its worker processes held at once


def watch(command, folder, kept):
    """Run a command in a folder to its end.

    Args:
        command: Its words.
        folder: Where it runs.
        kept: Path, without suffix, of the files that its output goes to.
    """
    said, complained = kept.with_suffix(".json"), kept.with_suffix(".txt")
    with said.open("w") as out, complained.open("w") as errors:
        started, peak, ended = time.perf_counter(), 0, 0
        child = subprocess.Popen([*map(str, command)], cwd=folder, stdout=out, stderr=errors)
        process = psutil.Process(child.pid)
        while not ended:
            peak = max(peak, memory_of(process))
            time.sleep(EVERY)
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)  # so that it is not waited for again
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{complained.read_text()}")
    peak = max(peak / 1e6, usage.ru_maxrss / 1e3)  # that of the largest process is known exactly
    return Watched(said.read_text(), seconds, usage.ru_utime + usage.ru_stime, peak)


def memory_of(process):
    """Return the bytes that a process and its children hold, what they share counted once.

    Where the system does not tell what is shared, each counts in full.
    """
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            held = one.memory_full_info()
            total += getattr(held, "pss", held.rss)
    except psutil.Error:  # one of them has just ended
        pass
    return total


def run_stage(folder, name, *words):
    """Run a stage as a person does; return its result and how it was watched."""
    found = watch([*MAIN, name, *words, "--batch", "--json"], folder, folder / name)
    return json.loads(found.said), found
