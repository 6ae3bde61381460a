"""What a run says of images: logits of validation and test, from its network or its members'."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.loading import load_split
from models.inference import (
    Compute,
    TrainedModel,
    image_logits,
    load_run,
    place,
    scoring_batch,
    scoring_compute,
)
from models.mirrors import MIRRORS, mean_over_mirrors
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.labels import Labels, is_normal, note_on_labels
from pipeline.manifest import MANIFEST, Row
from pipeline.paths import from_here
from pipeline.progress import Advance, Progress
from pipeline.provenance import dataset_hash, read_fresh, refuse_changed
from pipeline.records import read_json
from pipeline.runs import ELSEWHERE, MODEL_FILE, Run

Floats = NDArray[np.float64]
SPLITS = ("val", "test")
AGAIN = "train again, or name with --data what to evaluate on"


@dataclass(frozen=True)
class Logits:
    """Images of one split with what was said of them, before calibration."""

    rows: tuple[Row, ...]  # one for each image
    values: Floats  # (N,) float64 logits of malignancy
    set_aside: tuple[tuple[str, str], ...] = ()  # (image, reason) of those that could not be read

    @property
    def targets(self) -> NDArray[np.bool_]:
        """(N,), true for malignant."""
        return np.array([row.is_positive for row in self.rows], bool)

    @property
    def normal(self) -> NDArray[np.bool_]:
        """(N,), true for normal images."""
        return np.array([is_normal(row) for row in self.rows], bool)


@dataclass(frozen=True)
class ScoredRun:
    """What is evaluated."""

    run: Run  # whose folder gets the figures
    facts: Mapping[str, Any]  # model.json
    data: Path | None  # the dataset; None for predictions made elsewhere without one
    data_hash: str  # Digest of which images it holds
    record: Mapping[str, Any]  # stage.json of the dataset; empty without one
    rows: Sequence[Row]  # of the dataset, in the splits of the run's fold
    # Logits of validation and test; predictions made elsewhere may have test alone.
    splits: Mapping[str, Logits]
    # Images a second in whole batches on a processor, by the folder of the run that scored them.
    paces: Mapping[Path, float] = field(default_factory=dict)

    @property
    def labels(self) -> Labels:
        """The two labels of the images."""
        return Labels.of(self.rows or [row for one in self.splits.values() for row in one.rows])


class _Pace:
    """Notes how fast batches are scored that are at least half full."""

    def __init__(self, batch: int) -> None:
        self._batch, self._since = batch, 0.0
        self._rates: list[float] = []  # images a second

    def watch(self, advance: Advance) -> Advance:
        """Return what to call instead after each batch; the clock starts now."""
        self._since = time.perf_counter()

        def step(images: int) -> None:
            now = time.perf_counter()
            if 2 * images >= self._batch:
                self._rates.append(images / (now - self._since))
            self._since = now
            advance(images)

        return step

    @property
    def images_per_second(self) -> float | None:
        """The median over batches after the first, which warms up; None without any."""
        counted = self._rates[1:]
        return round(statistics.median(counted), 2) if counted else None


def members_of(run: Run) -> list[Run]:
    """Return the runs that an ensemble takes the mean of; of any other run itself.

    Raises:
        UserError: A member is gone.
    """
    facts = read_json(run.folder / MODEL_FILE)
    if facts.get("strategy") == ELSEWHERE:
        raise UserError(
            f"{run.name}: was not made here, so there is no network",
            "evaluate its file with: python main.py evaluate --predictions FILE",
        )
    if "members" not in facts:
        return [run]
    members = [Run((run.folder / place).resolve()) for place in facts["members"]]
    for member in members:
        if not (member.folder / MODEL_FILE).is_file():
            raise UserError(
                f"{member.folder}: is a member of {run.name} and is gone", "make a new ensemble"
            )
    return members


def score_run(run: Run, data: Path | None, workers: int, tta: str, progress: Progress) -> ScoredRun:
    """Score a run, or an ensemble, on the validation and test images of a dataset.

    An ensemble's logit is the mean over its members. Validation images are scored only by members
    that were not trained on their patient, which are all of them but for an ensemble of folds.

    Args:
        run: Of which its folder alone is used.
        data: The dataset; None for the one that it was trained on.
        workers: Processes that decode images.
        tta: A key of MIRRORS: test-time augmentation, as the mean logit over mirror images.
        progress: Where it reports.

    Raises:
        UserError: Its data is gone, or a patient of the test images was trained on.
    """
    members = members_of(run)
    scored = [_score_member(one, data, workers, tta, progress) for one in members]
    first = scored[0]
    if first.run.folder == run.folder:
        return first
    if len({one.data_hash for one in scored}) > 1:
        raise UserError(
            f"{run.name}: its members were trained on different datasets", "give --data"
        )
    mean = {name: _mean([one.splits[name] for one in scored]) for name in SPLITS}
    return dataclasses.replace(
        first,
        run=run,
        facts=read_json(run.folder / MODEL_FILE),
        rows=_as_scored(first.rows, mean),
        splits=mean,
        paces={folder: pace for one in scored for folder, pace in one.paces.items()},
    )


def _score_member(
    run: Run, given: Path | None, workers: int, tta: str, progress: Progress
) -> ScoredRun:
    model = load_run(run.folder)
    data = given or from_here(Path(str(model.facts["data"])))
    if given is None:
        refuse_changed(run, model.facts, data, AGAIN)
    record = read_fresh(data, "preprocess", "organize")
    # In the split of the run's own fold: the images of any other fold were trained on.
    rows, _ = read_rows(data, record, run.fold.number)  # any other fold was trained on
    refuse_unfit(run, model.facts, data, rows)
    compute = scoring_compute()
    place(model.network, compute)
    pace = _Pace(scoring_batch(model.size))
    splits = {
        name: _score(run, model, compute, pace, data, given, rows, name, workers, tta, progress)
        for name in SPLITS
    }
    found = dataset_hash(data)
    # A GPU waits for images here: what it could do is measured without them.
    known = pace.images_per_second if compute.device.type == "cpu" else None
    paces = {run.folder: known} if known else {}
    return ScoredRun(run, model.facts, data, found, record, rows, splits, paces)


def refuse_unfit(run: Run, facts: Mapping[str, Any], data: Path, rows: Sequence[Row]) -> None:
    """Refuse images of patients that were trained on, or with other labels, or without a split.

    Raises:
        UserError: It is so.
    """
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise UserError(f"{data / MANIFEST}: holds no {split} images", "give another --data")
    note_on_labels(run.name, Labels.recorded(facts), Labels.of(rows))
    trained = set(facts["patients"]["train"])
    for split in ("test", "val"):
        known = sorted({row.patient_id for row in rows if row.split == split} & trained)
        if known:
            raise UserError(
                f"{data}: {len(known)} {split} patients ({known[0]}, ...) were trained on in "
                f"{run.name}, so its scores would be too good (a leak)",
                "evaluate on the data it was trained on, or train again on this data",
            )


def _score(
    run: Run,
    model: TrainedModel,
    compute: Compute,
    pace: _Pace,
    data: Path,
    given: Path | None,
    rows: Sequence[Row],
    name: str,
    workers: int,
    tta: str,
    progress: Progress,
) -> Logits:
    split = load_split(data, rows, name, model.size, workers, progress)
    known = model.facts.get("pixels", {}).get(name) if given is None else None
    if known is not None and not split.set_aside and split.content != known:
        raise UserError(f"{data}: {name} images have changed since {run.name} was trained", AGAIN)
    if not len(split):
        raise UserError(f"{data}: no {name} image can be read ({split.set_aside[0][1]})")
    text = f"Scoring {name} images" + (f" ({run.name})" if run.fold.number else "")
    with progress.track(text, len(split) * len(MIRRORS[tta]), "images") as advance:
        values = mirrored_logits(model, split.images, compute, tta, pace.watch(advance))
    return Logits(split.rows, values, tuple(split.set_aside))


def mirrored_logits(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    tta: str,
    advance: Callable[[int], None] = lambda _steps: None,
) -> Floats:
    """Return (N,) float64 logits of (N, S, S) uint8 images, the mean over their mirror images."""
    transform = model.transform(compute)

    def score(turned: NDArray[np.uint8]) -> NDArray[np.float32]:
        return image_logits(model.network, turned, transform, compute, advance)

    return mean_over_mirrors(score, images, tta)


def _mean(parts: Sequence[Logits]) -> Logits:
    """Return the mean logit of every image over the members that scored it."""
    found: dict[str, list[float]] = {}
    rows: dict[str, Row] = {}
    for part in parts:
        for row, value in zip(part.rows, part.values.tolist(), strict=True):
            rows[row.image_id] = row
            found.setdefault(row.image_id, []).append(value)
    names = sorted(rows)
    set_aside = tuple(sorted({one for part in parts for one in part.set_aside}))
    values = np.array([np.mean(found[name]) for name in names], np.float64)
    return Logits(tuple(rows[name] for name in names), values, set_aside)


def _as_scored(rows: Sequence[Row], splits: Mapping[str, Logits]) -> list[Row]:
    """Return the rows with the validation images of every fold, as the members had them."""
    own = {row.image_id: row for split in splits.values() for row in split.rows}
    return [own.get(row.image_id, row) for row in rows]
