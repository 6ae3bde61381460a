"""How much a model's test AUC moves with the seed of its training."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import fdtri

from models.comparison.subjects import Subject
from pipeline.errors import UserError
from pipeline.paths import from_here

FREE = {"fold", "seed", "seeds", "resume", "runs", "workers", "device", "model", "missing"}
ASKED = 5  # seeds that the command trains
TAIL = 0.025  # on either side of a 95 % interval


@dataclass(frozen=True)
class Stability:
    """Runs of one model with the same settings and different seeds, on the same test images."""

    model: str
    kind: str
    areas: tuple[float, ...]  # the test AUC of each seed
    command: str  # what trains more of them

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.areas)

    @property
    def deviation(self) -> float:
        """Their standard deviation; NaN of one."""
        return statistics.stdev(self.areas) if len(self.areas) > 1 else math.nan

    @property
    def spread(self) -> float:
        """The largest less the smallest; NaN of one."""
        return max(self.areas) - min(self.areas) if len(self.areas) > 1 else math.nan


def stabilities(subjects: Sequence[Subject]) -> list[Stability]:
    """Put runs together that differ by seed alone; of each model the settings with most seeds."""
    groups: dict[tuple[str, str], list[Subject]] = {}
    for one in subjects:
        if one.run is None or one.is_ensemble:
            continue
        try:
            given = one.run.record()["options"]
        except UserError:  # predictions made elsewhere
            continue
        settings = {name: value for name, value in given.items() if name not in FREE}
        key = json.dumps([one.run.fold.number, settings], sort_keys=True, default=str)
        groups.setdefault((one.run.model, key), []).append(one)
    best: dict[str, Stability] = {}
    for (model, _), group in groups.items():
        found = _stability(model, group)
        if model not in best or len(found.areas) > len(best[model].areas):
            best[model] = found
    return list(best.values())


def _stability(model: str, group: Sequence[Subject]) -> Stability:
    by_seed = {}
    for one in group:  # a seed that was trained twice counts once
        assert one.run is not None
        by_seed[one.run.record()["options"].get("seed")] = one.area.value
    run = group[-1].run
    assert run is not None
    answers = from_here(run.folder) / "answers.json"
    command = f"python main.py train --answers {answers} --seeds {ASKED} --missing"
    return Stability(model, group[0].kind, tuple(by_seed.values()), command)


def ratio_of_spreads(one: Stability, other: Stability) -> tuple[float, float, float]:
    """Return how many times the other's standard deviation that of one is, with its interval.

    The interval is that of the F distribution (Snedecor & Cochran 1989, section 6.12), which takes
    AUCs of seeds for normally distributed. NaN where either has one seed, or no spread.
    """
    if len(one.areas) < 2 or len(other.areas) < 2 or not other.deviation or not one.deviation:
        return math.nan, math.nan, math.nan
    ratio = one.deviation / other.deviation
    free, others = len(one.areas) - 1, len(other.areas) - 1
    low, high = (float(fdtri(free, others, share)) for share in (TAIL, 1 - TAIL))
    return ratio, ratio / math.sqrt(high), ratio / math.sqrt(low)
