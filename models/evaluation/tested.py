"""What a run was tested on: which images, how they were preprocessed, and their baselines."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.options import as_text, defaults, items_of, spec_of
from pipeline.records import read_json
from pipeline.runs import MODEL_FILE
from pipeline.stages.data import Preprocess

BASELINES_FOLDER = ".baselines"  # below the folder of all runs
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


def tested_of(folder: Path, measured: Mapping[str, Any]) -> Tested:
    """Read what a run was tested on.

    Args:
        folder: Of the run.
        measured: Its metrics.json.
    """
    data_hash, data = str(measured["data_hash"]), str(measured["data"] or "")
    said = measured
    if "preprocess" not in measured:  # of before: what is known is how it was trained
        facts = read_json(folder / MODEL_FILE)
        said = facts if facts.get("data_hash") == data_hash else {}
    given = said.get("preprocess", "")
    known = data and (given is None or isinstance(given, Mapping))
    preprocessing = preprocessing_of(given) if known else ""
    return Tested(str(measured.get("test_images", "")), preprocessing, data, data_hash)


def identified(tested: Sequence[Tested]) -> list[Tested]:
    """Name the images where metrics.json, of before, does not: by the dataset of another run.

    What no run names is known by its manifest.
    """
    known = {one.data_hash: one.images for one in tested if one.images}
    return [
        dataclasses.replace(one, images=one.images or known.get(one.data_hash, one.data_hash))
        for one in tested
    ]


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


def kept_baselines(runs: Path, data_hash: str) -> Sequence[Mapping[str, Any]]:
    """Return the baselines that evaluation left for a dataset; none where it left none.

    Those of its own split come before those of a fold. (`models.evaluation.baselines`, which
    makes them, loads torch.)
    """
    folder = runs / BASELINES_FOLDER
    for path in (folder / f"{data_hash}.json", *sorted(folder.glob(f"{data_hash}-*.json"))):
        with contextlib.suppress(UserError):  # missing or damaged
            kept: Sequence[Mapping[str, Any]] = read_json(path)["baselines"]
            return kept
    return []
