"""A run folder for predictions that were made elsewhere, so that they stand beside one's own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.evaluation.predictions import read_predictions
from models.evaluation.scoring import Logits, ScoredRun
from models.inference import save_facts
from models.registry import MODELS, Head
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.manifest import read_manifest
from pipeline.progress import Progress
from pipeline.provenance import dataset_hash, read_fresh
from pipeline.records import close_folder, digest, file_digest, open_folder
from pipeline.runs import ELSEWHERE, create_run
from pipeline.stages.evaluation import Evaluate


def read_external(options: Evaluate, progress: Progress) -> ScoredRun:
    """Read predictions made elsewhere and make a run folder for them, named after their file.

    Raises:
        UserError: The file is not as it should be, or contradicts the dataset.
    """
    assert options.predictions is not None
    path, data = options.predictions, options.data
    record: Mapping[str, Any] = read_fresh(data, "preprocess", "organize") if data else {}
    rows = read_manifest(data) if data else []
    found = read_predictions(path, rows)
    splits = found.splits
    if found.unusual:
        progress.say(found.unusual)
    name = re.sub(r"[^\w.-]+", "_", path.stem).strip("._") or "predictions"
    if name in MODELS:
        raise UserError(f"{path}: {name} is the name of a model here", "rename the file")
    images = dataset_hash(data) if data else _images(splits)
    run = create_run(options.runs, name, options.seed)
    open_folder(run.folder, "evaluate", options)
    labels = Labels.of(rows or [row for one in splits.values() for row in one.rows])
    facts = _facts(name, path, data, images, rows[0].unit if rows else "mammogram") | labels.record
    if found.of_errors:
        facts["head"] = Head(error=ELSEWHERE).record
    save_facts(run.folder, facts)
    counts = {f"{split}_images": len(logits.rows) for split, logits in splits.items()}
    close_folder(run.folder, "evaluate", options, counts, file_digest(path), 0.0)
    return ScoredRun(run, facts, data, images, record, rows, splits)


def _images(splits: Mapping[str, Logits]) -> str:
    """Return what stands for a dataset that is not here: its images and their truth."""
    return digest(
        *sorted((row.image_id, row.label) for split in splits.values() for row in split.rows)
    )


def _facts(name: str, path: Path, data: Path | None, images: str, unit: str) -> dict[str, Any]:
    return {
        "model": name,
        "architecture": "unknown",
        "strategy": ELSEWHERE,
        "trained_from": "",
        "untrained_head": False,
        "input": {"size": 0, "channels": 0},
        "weights": str(path.resolve()),
        "weights_hash": file_digest(path),
        "parameters": 0,
        "trainable": 0,
        "unit": unit,
        "preprocess": None,
        "data": str(data.resolve()) if data else "",
        "data_hash": images,
        "patients": {"train": [], "val": []},
    }
