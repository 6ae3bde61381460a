"""What is explained: a run, the images that it was evaluated on, and the lesions in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.loading import Split, load_split
from models.evaluation.scoring import members_of, refuse_unfit
from models.explanation.chosen import Case, read_cases
from models.explanation.lesions import Lesions, read_lesions
from models.inference import WEIGHTS_FILE, Compute, TrainedModel, choose_compute, load_run, place
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.labels import KEYS, Labels
from pipeline.manifest import Row
from pipeline.paths import from_here
from pipeline.progress import Progress
from pipeline.provenance import dataset_hash, read_fresh
from pipeline.records import digest, file_digest
from pipeline.runs import Run, find_run, is_detector
from pipeline.stages.explanation import CALLED, Explain

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Subject:
    """A run with all that its heat-maps need."""

    run: Run
    model: TrainedModel  # on the device of `compute`
    compute: Compute
    data: Path  # the dataset
    splits: Mapping[str, Split]  # validation and test images
    lesions: Lesions  # in them
    cases: Sequence[Case]  # the test images with what the run said of them
    calls: Mapping[str, str]  # by image_id, of validation too: "benign" or "malignant" of KEYS
    labels: Labels  # of the dataset

    @property
    def detector(self) -> bool:
        """Whether it is an anomaly detector, whose maps are of errors."""
        return is_detector(self.model.facts)

    def images(self, split: str, names: Sequence[str]) -> NDArray[np.uint8]:
        """Return some images of a split, (N, S, S) uint8."""
        places = np.array([self._places[name] for name in names])
        return np.asarray(self.splits[split].images[places])

    def evidence(self, wanted: str, names: Sequence[str]) -> list[str]:
        """Return the evidence to show of images: what is wanted, or what the run calls each."""
        if wanted != CALLED:
            return [wanted] * len(names)
        return [self.calls.get(name, KEYS[1]) for name in names]

    def row(self, image_id: str) -> Row:
        """Return the manifest's row of an image."""
        return self._rows[image_id]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {
            row.image_id: place
            for split in self.splits.values()
            for place, row in enumerate(split.rows)
        }

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.image_id: row for split in self.splits.values() for row in split.rows}

    @property
    def set_aside(self) -> list[tuple[str, str]]:
        """Images that cannot be read, and masks that cannot be used, with the reason."""
        unread = [one for split in self.splits.values() for one in split.set_aside]
        return [*unread, *self.lesions.set_aside]

    @property
    def digest(self) -> str:
        """A digest of what its heat-maps depend on, beside the method."""
        weights = file_digest(self.run.folder / WEIGHTS_FILE)
        return digest(weights, self.model.size, dataset_hash(self.data))


def read_subject(options: Explain, progress: Progress) -> Subject:
    """Read what is to be explained.

    Raises:
        UserError: There is no such run, it is not evaluated or is an ensemble, its data is gone or
            has changed, or is not that of `options.data`.
    """
    run = find_run(options.runs, options.run)
    members = members_of(run)
    if [member.folder for member in members] != [run.folder]:
        raise UserError(
            f"{run.name}: is an ensemble, whose {len(members)} networks have a heat-map each",
            f"explain one of them: --run {from_here(members[0].folder)}",
        )
    measured = run.metrics()
    model = load_run(run.folder)
    data = options.data or from_here(Path(str(measured["data"])))
    if options.data is None and not data.is_dir():
        raise UserError(
            f"{data}: is gone, and {run.name} was evaluated on it",
            "where it was moved, say so with --data; else make it again",
        )
    record = read_fresh(data, "preprocess", "organize")
    if dataset_hash(data) != measured["data_hash"]:
        raise _not_evaluated(run, data, options.data is not None)
    rows, _ = read_rows(data, record, run.fold.number)
    refuse_unfit(run, model.facts, data, rows)
    compute = choose_compute(options.device, "fp32")
    place(model.network, compute)
    splits = {
        name: load_split(data, rows, name, model.size, options.workers, progress) for name in SPLITS
    }
    shown = [row for split in splits.values() for row in split.rows]
    cases = _cases(run, measured, "test", splits["test"])
    scored = [*cases, *_cases(run, measured, "val", splits["val"])]
    calls = {case.image_id: case.called for case in scored}
    lesions = read_lesions(data, record, shown, model.size, progress)
    return Subject(run, model, compute, data, splits, lesions, cases, calls, Labels.of(rows))


def _not_evaluated(run: Run, data: Path, given: bool) -> UserError:
    """Return what to say of a dataset whose probabilities and calls are not those of the run."""
    command = f"python main.py evaluate --run {from_here(run.folder)}"
    if given:
        return UserError(
            f"--data: {data}: {run.name} was not evaluated on it",
            f"do so first: {command} --data {data}",
        )
    return UserError(
        f"{data}: has changed since {run.name} was evaluated", f"evaluate again with: {command}"
    )


def _cases(run: Run, measured: Mapping[str, Any], name: str, split: Split) -> list[Case]:
    """Return what the run said of the images of a split.

    Raises:
        UserError: It said nothing of them.
    """
    anomaly = measured.get("anomaly")
    threshold = float((anomaly or measured["operating_point"])["threshold"])
    known = {row.image_id for row in split.rows}
    said = read_cases(run.folder / f"predictions_{name}.csv", threshold, anomaly is not None)
    if cases := [case for case in said if case.image_id in known]:
        return cases
    raise UserError(
        f"{run.name}: was not evaluated on any of these {name} images",
        "evaluate it on them with --data first",
    )
