"""What networks cost, and how that grows with images: measured once on a machine, then kept."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from images.jobs import code_digest
from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.records import digest, read_json, versions, write_json
from pipeline.resources.machine import cores
from pipeline.resources.places import COSTS
from pipeline.work import worker_count

SIDES = (64, 128, 192, 256, 512)  # pixels
COUNTS = (8, 16, 24, 40)  # images of an epoch
ROUNDS = 7  # at most, in which all networks are measured in turn
SECONDS_EACH = 12  # of the rounds, for each network
COMPARED_SIDE = 256  # pixels, at which networks are set beside each other
TAIL = 0.025  # on either side of a 95 % interval
TIMES, MEMORIES = ("step", "forward", "epoch"), ("step_memory", "forward_memory")
WHAT = (*TIMES, *MEMORIES)
Points = dict[str, dict[str, list[float]]]  # by what and size: seconds of each round, or bytes


@dataclass(frozen=True)
class Range:
    """A figure with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Costs:
    """What was measured, by the key of a kind of network."""

    machine: Mapping[str, Any]
    points: Mapping[str, Points]

    def medians(self, key: str, what: str) -> dict[int, float]:
        """Return medians over the rounds by size: seconds, or bytes."""
        found = self.points.get(key, {}).get(what, {})
        return {int(size): statistics.median(values) for size, values in found.items()}

    def slope(self, key: str, what: str) -> Range:
        """Return the power of the size that a cost grows with; see `fit_power`."""
        found = self.medians(key, what)
        return fit_power(list(found), list(found.values()))

    def ratio(self, first: str, second: str, what: str, size: int = COMPARED_SIDE) -> Range:
        """Return how many times the second's cost that of the first is; of rounds in turns.

        Its interval is Student's for the mean logarithm over rounds.
        """
        one, other = (self.points.get(key, {}).get(what, {}).get(str(size), [])
                      for key in (first, second))  # fmt: skip
        logs = [math.log(a / b) for a, b in zip(one, other, strict=False) if a > 0 < b]
        if not logs:
            return Range(math.nan, math.nan, math.nan)
        mean, count = statistics.fmean(logs), len(logs)
        if count < 2:
            return Range(math.exp(mean), math.nan, math.nan)
        away = -float(stdtrit(count - 1, TAIL)) * statistics.stdev(logs) / math.sqrt(count)
        return Range(math.exp(mean), math.exp(mean - away), math.exp(mean + away))


def fit_power(sizes: Sequence[float], values: Sequence[float]) -> Range:
    """Return b of the least-squares line log(value) = a + b log(size), with its interval.

    Args:
        sizes: At least 3, each different; fewer give NaN.
        values: One for each, above 0.
    """
    if len(sizes) < 3 or min(values) <= 0:
        return Range(math.nan, math.nan, math.nan)
    x, y = np.log(sizes), np.log(values)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    freedom = len(x) - 2
    error = math.sqrt(float(np.square(y - slope * x).sum()) / freedom / float(x @ x))
    away = -float(stdtrit(freedom, TAIL)) * error
    return Range(slope, slope - away, slope + away)


def kind_of(facts: Mapping[str, Any], steps: bool) -> dict[str, Any]:
    """Return what the costs of a run's network depend on.

    Args:
        facts: model.json.
        steps: Whether it was trained by gradient steps.
    """
    kind = {
        "architecture": facts["architecture"], "head": facts["head"],
        "trained_from": facts.get("trained_from", ""), "steps": steps,
    }  # fmt: skip
    return {**kind, "key": f"{facts['architecture']}-{digest(kind)[:8]}"}


def measured_costs(
    kinds: Sequence[Mapping[str, Any]], runs: Path, workers: int, anew: bool, progress: Progress
) -> Costs:
    """Measure networks, but for those that were measured on this machine.

    Args:
        kinds: From `kind_of`.
        runs: The folder of runs, which keeps them.
        workers: Threads; 0 for one for each core.
        anew: Whether to measure all of them again.
        progress: Where it reports.

    Raises:
        UserError: The process that measures ended.
    """
    machine = _machine(worker_count(workers))
    path = runs / COSTS / f"{digest(machine)[:16]}.json"
    known: dict[str, Any] = {"machine": machine, "points": {}}
    with contextlib.suppress(UserError):
        known = read_json(path)
    unique = {kind["key"]: kind for kind in kinds}
    # Together, as what is set beside each other has to be measured in turns.
    if anew or not unique.keys() <= known["points"].keys():
        known["points"] |= _measure(list(unique.values()), machine["threads"], known, progress)
        with contextlib.suppress(OSError):
            write_json(path, known)
    return Costs(known["machine"], known["points"])


def _machine(threads: int) -> dict[str, Any]:
    """Return what decides how long a network takes here."""
    import torch  # only modules that pyproject.toml names may do so when they load

    from models.comparison import timing
    from models.devices import choose_device, device_name

    name, _, _ = device_name(choose_device("auto")).rpartition(", ")
    return {
        "device": name or device_name(choose_device("auto")), "threads": threads, "cores": cores(),
        "torch": torch.__version__, "timm": versions().get("timm", ""),
        "code": code_digest(__file__, str(timing.__file__)),
    }  # fmt: skip


def _measure(
    kinds: Sequence[Mapping[str, Any]], threads: int, known: dict[str, Any], progress: Progress
) -> dict[str, Points]:
    asked = {
        "kinds": kinds, "sides": SIDES, "counts": COUNTS, "threads": threads, "rounds": ROUNDS,
        "seconds": SECONDS_EACH * len(kinds),
    }  # fmt: skip
    found: dict[str, Points] = {str(kind["key"]): {} for kind in kinds}
    total = len(kinds) * (2 * len(SIDES) + 3 * (2 * len(SIDES) + len(COUNTS)))
    command = [sys.executable, "-m", "models.comparison.timing"]
    root = Path(__file__).parents[2]
    # As main.py has it: threads that spin while they wait take the cores of others.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", **os.environ}
    with (
        progress.track("Measuring costs", total, "measurements") as advance,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(asked) + "\n")
            child.stdin.close()
            done = 0
            for text in child.stdout:
                line = json.loads(text)
                if "device" in line:
                    known["machine"] |= {"named": line["device"]}
                    continue
                points = found[line["key"]].setdefault(line["what"], {})
                points.setdefault(str(line["size"]), []).append(line["value"])
                done += 1
                if done <= total:
                    advance(1)
        except BaseException:  # Ctrl-C too: it would go on measuring
            child.kill()
            raise
        status = child.wait()
    if status:
        raise UserError(
            f"the process that measures costs ended with status {status}",
            "close other programs and compare again",
        )
    return found
