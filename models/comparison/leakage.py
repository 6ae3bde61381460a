"""The price of leakage: what a split by image would have claimed for the same model."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.calibration import logistic
from models.evaluation.operating_point import OperatingPoint
from models.evaluation.scored import ScoredSplit, finite, interval_text
from models.evaluation.scoring import Logits, score_run
from models.evaluation.units import grouped
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.manifest import SPLITS, Row, labels_of, write_manifest
from pipeline.options import checked
from pipeline.paths import inside
from pipeline.progress import Progress, Table
from pipeline.provenance import read_fresh, refuse_changed
from pipeline.records import RECORD, digest, read_json, write_json
from pipeline.resources.places import LEAKAGE
from pipeline.runs import ELSEWHERE, LATEST, MODEL_FILE, NEW_RUN, Run, list_runs, list_unfinished
from pipeline.stages.evaluation import Compare
from pipeline.stages.training import Train

RESULT = "price.json"


@dataclass(frozen=True)
class Leak:
    """Both results side by side: as JSON, as a table, and what they mean."""

    facts: Mapping[str, Any]
    table: Table
    notes: tuple[str, ...]


def split_by_image(rows: Sequence[Row], seed: int) -> list[Row]:
    """Deal images into splits of the same sizes without a thought for their patients.

    It is the usual mistake, made on purpose: every image counts as a patient of its own.

    Args:
        rows: Of a dataset; augmented copies are left out.
        seed: Of the dealing.
    """
    random, dealt = np.random.default_rng(seed), []
    for label in labels_of(rows):
        own = [row for row in rows if row.label == label and not row.parent]
        homes = [row.split for row in sorted(own, key=lambda row: SPLITS.index(row.split))]
        for place, row in zip(random.permutation(len(own)), own, strict=True):
            dealt.append(dataclasses.replace(row, split=homes[place], patient_id=row.image_id))
    return dealt


def _share_images(rows: Sequence[Row], data: Path, folder: Path) -> None:
    """Put the images of a dataset into another one, as further names of the same files."""
    for row in rows:
        source, target = inside(data, row.path), inside(folder, row.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(source)
        except OSError:  # another disk, or a file system without such links
            shutil.copyfile(source, target)


def price_of_leakage(options: Compare, run: Run, progress: Progress) -> Leak:
    """Train a run's model again, with its options, on a split by image.

    What it makes is kept below the runs and not made twice.

    Args:
        options: Where the runs lie; seed and replicates.
        run: Whose training is repeated; its own test figures are those of the patient split.
        progress: Where it reports.

    Raises:
        UserError: The run is not a training, or its data is gone.
    """
    facts = read_json(run.folder / MODEL_FILE)
    if facts["strategy"] in (ELSEWHERE, "ensemble"):
        raise UserError(f"{run.name}: was not trained here", "name a trained run with --run")
    data = Path(str(facts["data"]))
    refuse_changed(run, facts, data, "train again")
    record = read_fresh(data, "preprocess", "organize")
    rows, _ = read_rows(data, record, run.fold.number)
    given = run.record()["options"]
    place = options.runs / LEAKAGE / digest(facts["data_hash"], given, options.seed)[:16]
    if not (place / "dataset" / RECORD).is_file():
        (place / "dataset").mkdir(parents=True, exist_ok=True)
        dealt = split_by_image(rows, options.seed)
        _share_images(dealt, data, place / "dataset")
        write_manifest(place / "dataset", dealt)
        write_json(place / "dataset" / RECORD, record)
    leaky = _trained(place, given, progress)
    return _priced(options, run, leaky, rows, place, progress)


def _trained(place: Path, given: Mapping[str, Any], progress: Progress) -> Run:
    """Return the run on the split by image, trained as far as it is not yet."""
    runs = place / "runs"
    if done := list_runs(runs):
        return done[-1]
    progress.say("Training again, on a split by image")
    resume = LATEST if list_unfinished(runs) else NEW_RUN
    changed = {"data": place / "dataset", "runs": runs, "fold": 0, "seeds": 1, "resume": resume}
    train(checked(Train, {**given, **changed}), progress)
    return list_runs(runs)[-1]


def _priced(
    options: Compare, run: Run, leaky: Run, rows: Sequence[Row], place: Path, progress: Progress
) -> Leak:
    patients = {row.image_id: row.patient_id for row in rows}
    found: dict[str, ScoredSplit] = {}
    shared = 0.0
    for name, one in (("patient", run), ("image", leaky)):
        scored_run = score_run(one, None, options.workers, "none", progress)
        test = scored_run.splits["test"]
        found[name] = _measured(test, options)
        if name == "image":
            trained = {patients[row.image_id] for row in scored_run.rows if row.split == "train"}
            shared = float(np.mean([patients[row.image_id] in trained for row in test.rows]))
    areas = {name: scored.estimates["auc"] for name, scored in found.items()}
    facts = {
        "run": run.name,
        "shared": shared,
        **{
            name: {"auc": finite(area.value), "low": finite(area.low), "high": finite(area.high),
                   "images": len(found[name].targets)}
            for name, area in areas.items()
        },
    }  # fmt: skip
    write_json(place / RESULT, facts)
    titles = {"patient": "by patient (honest)", "image": "by image (leaks)"}
    lines = tuple(
        (titles[name], len(found[name].targets), finite(area.value),
         interval_text(area.low, area.high))
        for name, area in areas.items()
    )  # fmt: skip
    table = Table(
        f"Price of leakage: {run.model}", ("Split", "Test images", "AUC", "95 % interval"), lines
    )
    note = (
        f"split by image, {shared:.0%} of the test images show a patient who was trained on, and "
        f"the AUC seems {areas['image'].value - areas['patient'].value:+.2f} better"
    )
    return Leak(facts, table, (note,))


def _measured(test: Logits, options: Compare) -> ScoredSplit:
    unit = grouped(test.rows, logistic(test.values), "image", "max")
    return ScoredSplit.of(unit, OperatingPoint(0.5, "0.5"), options.replicates, options.seed)
