"""What `compare` sets side by side: evaluated runs, and the baselines of their test images."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.operating_point import OperatingPoint
from models.evaluation.predictions import read_predicted
from models.evaluation.scored import ScoredSplit
from models.evaluation.units import grouped
from models.resampling import keep_memory, one_blas_thread
from pipeline.errors import UserError
from pipeline.manifest import Row
from pipeline.options import as_text, defaults, items_of, spec_of
from pipeline.progress import Progress
from pipeline.records import read_json
from pipeline.runs import MODEL_FILE, Run
from pipeline.stages.data import Preprocess
from pipeline.stages.evaluation import Compare
from pipeline.work import worker_count

BASELINES = ".baselines"  # below the folder of all runs
ELSEWHERE = "elsewhere"  # the strategy of predictions that were not made here
UNCHANGED = "as organised"
# Options of preprocessing that do not change a test image; the size is said first.
NO_LOOK = {"data", "out", "size", "preview", "augment", "copies", "fold", "cluster", "seed",
           "workers"}  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """The images that something was tested on."""

    images: str  # digest of which images and labels they are, whatever their pixels
    preprocessing: str  # "64 px, clahe-clip 8"; empty where nothing is known
    data: str  # the dataset's folder; empty where it is not known
    data_hash: str  # digest of the dataset's manifest


@dataclass(frozen=True)
class Entry:
    """One line of the table: a run or a baseline."""

    name: str
    kind: str  # "run" or "baseline"
    tested: Tested
    scored: ScoredSplit

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
    scored = ScoredSplit.of(unit, threshold, options.replicates, options.seed)
    dataset = _dataset(run, measured)
    tested = dataset
    if measured.get("strategy") == ELSEWHERE:  # from which pixels is not known
        tested = dataclasses.replace(dataset, preprocessing="")
    return _ReadRun(Entry(run.name, "run", tested, scored), dataset, rows)


def _dataset(run: Run, measured: Mapping[str, Any]) -> Tested:
    data_hash, data = str(measured["data_hash"]), str(measured["data"] or "")
    said = measured
    if "preprocess" not in measured:  # of before: what is known is how it was trained
        facts = read_json(run.folder / MODEL_FILE)
        said = facts if facts.get("data_hash") == data_hash else {}
    given = said.get("preprocess", "")
    known = data and (given is None or isinstance(given, Mapping))
    preprocessing = preprocessing_of(given) if known else ""
    return Tested(str(measured.get("test_images", "")), preprocessing, data, data_hash)


def _identified(read: Sequence[_ReadRun]) -> list[_ReadRun]:
    """Say which test images those are whose metrics.json, of before, does not: by its data_hash."""
    known = {one.dataset.data_hash: one.dataset.images for one in read if one.dataset.images}
    found = []
    for one in read:
        images = one.dataset.images or known.get(one.dataset.data_hash, one.dataset.data_hash)
        tested = dataclasses.replace(one.entry.tested, images=images)
        entry = dataclasses.replace(one.entry, tested=tested)
        found.append(_ReadRun(entry, dataclasses.replace(one.dataset, images=images), one.rows))
    return found


def preprocessing_of(given: Mapping[str, Any] | None) -> str:
    """Return in a few words how test images were preprocessed: "64 px, clahe-clip 8".

    Args:
        given: The options of preprocessing; None where the images were not preprocessed.

    Returns:
        Their size, and what differs from the defaults.
    """
    if given is None:
        return UNCHANGED
    standard = defaults(Preprocess)
    values = standard | dict(given)
    parts = [f"{values['size']} px" if values["size"] else "full size"]
    for item in items_of(Preprocess):
        name, value = item.name.replace("_", "-"), values[item.name]
        if item.name in NO_LOOK or value == standard[item.name] or not spec_of(item).when(values):
            continue
        text = f"{value:g}" if isinstance(value, float) else as_text(value)
        parts.append(f"no {name}" if value is False else f"{name} {text}")
    return ", ".join(parts)


def _beside(read: Sequence[_ReadRun], options: Compare) -> list[Entry]:
    """Return the baselines of each test set and preprocessing."""
    done: set[tuple[str, str]] = set()
    found = []
    for one in read:
        tested = one.dataset
        if (tested.images, tested.preprocessing) in done:
            continue
        for baseline in _kept_baselines(options.runs, tested.data_hash):
            known = [row for row in one.rows if row.image_id in baseline["test"]]
            if known:
                scores = np.array([float(baseline["test"][row.image_id]) for row in known])
                unit, point = grouped(known, scores, options.unit, "max"), OperatingPoint(0.5, "")
                scored = ScoredSplit.of(unit, point, options.replicates, options.seed)
                found.append(Entry(str(baseline["title"]), "baseline", tested, scored))
                done.add((tested.images, tested.preprocessing))
    return found


def _kept_baselines(runs: Path, data_hash: str) -> Sequence[Mapping[str, Any]]:
    """Return the baselines that evaluation left for a dataset; none where it left none.

    Those of its own split come before those of a fold. (`models.evaluation.baselines`, which
    makes them, loads torch.)
    """
    folder = runs / BASELINES
    for path in (folder / f"{data_hash}.json", *sorted(folder.glob(f"{data_hash}-*.json"))):
        with contextlib.suppress(UserError):  # missing or damaged
            kept: Sequence[Mapping[str, Any]] = read_json(path)["baselines"]
            return kept
    return []
