"""What `compare` sets side by side: evaluated runs, and the baselines of their test images."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.evaluation.operating_point import OperatingPoint
from models.evaluation.predictions import read_predicted
from models.evaluation.scored import ScoredSplit
from models.evaluation.tested import Tested, identified, kept_baselines, tested_of
from models.evaluation.units import grouped
from models.resampling import keep_memory, one_blas_thread
from pipeline.errors import UserError
from pipeline.folds import Fold
from pipeline.manifest import Row
from pipeline.progress import Progress
from pipeline.runs import ELSEWHERE, Run
from pipeline.stages.evaluation import Compare
from pipeline.work import worker_count


@dataclass(frozen=True)
class Entry:
    """One line of the table: a run or a baseline."""

    name: str
    kind: str  # "run" or "baseline"
    tested: Tested
    scored: ScoredSplit
    fold: Fold = dataclasses.field(default_factory=Fold)  # what its training validated on

    @property
    def tested_on(self) -> tuple[Any, ...]:
        """What has to be equal for two entries to stand in one comparison."""
        unit = self.scored.unit
        return self.tested.images, *unit.keys, *unit.patients, *unit.targets.tolist()


@dataclass(frozen=True)
class _ReadRun:
    """An evaluated run with what its baselines are measured on."""

    entry: Entry
    dataset: Tested  # the dataset it was evaluated on, where predictions were made elsewhere too
    rows: Sequence[Row]


def read_entries(
    runs: Sequence[Run], options: Compare, progress: Progress
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Measure runs and, beside them, the baselines of their test images.

    Baselines come once for each test set and preprocessing.

    Args:
        runs: Evaluated ones.
        options: Of what is counted, and of the bootstrap.
        progress: Where it reports.

    Returns:
        Runs and then baselines; and each run that cannot be read, with the reason.
    """
    read: list[_ReadRun] = []
    refused: list[tuple[str, str]] = []
    keep_memory()
    threads = ThreadPoolExecutor(worker_count(options.workers))
    with one_blas_thread(), threads, progress.track("Measuring runs", len(runs), "runs") as advance:
        for found in threads.map(partial(_read, options=options), runs):
            if isinstance(found, _ReadRun):
                read.append(found)
            else:
                refused.append(found)
            advance(1)
    read = _identified(read)
    return [*(one.entry for one in read), *_beside(read, options)], refused


def _read(run: Run, options: Compare) -> _ReadRun | tuple[str, str]:
    try:
        return _of_run(run, options)
    except UserError as error:  # says what to do
        return run.name, str(error)
    except (KeyError, ValueError) as error:
        again = f"evaluate again with: python main.py evaluate --run {run.name} --batch"
        return run.name, f"{error}; {again}"


def _of_run(run: Run, options: Compare) -> _ReadRun:
    measured = run.metrics()
    point = measured["operating_point"] if options.unit == "image" else (
        measured["units"][options.unit])  # fmt: skip
    rows, scores = read_predicted(run.folder / "predictions_test.csv")
    threshold = OperatingPoint(float(point["threshold"]), str(point["rule"]))
    unit = grouped(rows, np.array(scores, np.float64), options.unit, str(measured["aggregate"]))
    probabilities = measured["calibration"]["method"] != "normals"  # a detector's are errors
    scored = ScoredSplit.of(unit, threshold, options.replicates, options.seed, probabilities)
    dataset = tested_of(run.folder, measured)
    tested = dataset
    if measured.get("strategy") == ELSEWHERE:  # from which pixels is not known
        tested = dataclasses.replace(dataset, preprocessing="")
    return _ReadRun(Entry(run.name, "run", tested, scored, run.fold), dataset, rows)


def _identified(read: Sequence[_ReadRun]) -> list[_ReadRun]:
    """Name the test images of runs whose metrics.json, of before, does not."""
    found = []
    for one, dataset in zip(read, identified([one.dataset for one in read]), strict=True):
        tested = dataclasses.replace(one.entry.tested, images=dataset.images)
        found.append(_ReadRun(dataclasses.replace(one.entry, tested=tested), dataset, one.rows))
    return found


def _beside(read: Sequence[_ReadRun], options: Compare) -> list[Entry]:
    """Return the baselines of each test set and preprocessing."""
    done: set[tuple[str, str]] = set()
    found = []
    for one in read:
        tested = one.dataset
        if (tested.images, tested.preprocessing) in done:
            continue
        for baseline in kept_baselines(options.runs, tested.data_hash):
            known = [row for row in one.rows if row.image_id in baseline["test"]]
            if known:
                scores = np.array([float(baseline["test"][row.image_id]) for row in known])
                unit, point = grouped(known, scores, options.unit, "max"), OperatingPoint(0.5, "")
                scored = ScoredSplit.of(unit, point, options.replicates, options.seed)
                found.append(Entry(str(baseline["title"]), "baseline", tested, scored))
                done.add((tested.images, tested.preprocessing))
    return found
