"""Reads the datasets behind the runs: cohort, splits, masks, the shortcut probe."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interface.report.pictures import SHEET, data_uri, jpeg
from interface.report.reading.scores import interval_of
from interface.report.reading.words import count, were
from pipeline.errors import UserError
from pipeline.labels import Labels, what_normal_is
from pipeline.manifest import DESCRIPTION, SPLITS, Row, read_manifest, read_masks
from pipeline.provenance import (
    NO_PATIENTS,
    collection_record,
    dataset_hash,
    has_patients,
    locate,
    out_of_date,
)
from pipeline.records import RECORD, SET_ASIDE, read_json, read_record
from pipeline.stages.collections import CBIS_DDSM, collection_name
from pipeline.tables import read_table
from pipeline.workspace import SHORTCUTS

PICTURE = Path(SHORTCUTS).with_suffix(".png").name
FINDINGS = {"mass": "masses", "calc": "calcifications", "both": "masses and calcifications"}
IMAGES = {"organize": "organised", "preprocess": "preprocessed"}


@dataclass(frozen=True)
class Cohort:
    """How many images and patients; augmented copies are counted on their own."""

    images: int
    patients: int
    benign: int
    malignant: int
    augmented: int
    labels: Labels  # what `benign` and `malignant`, negative and positive, are called

    @property
    def malignant_share(self) -> float:
        """The malignant part of the images, 0 to 1."""
        return self.malignant / self.images if self.images else 0.0

    @property
    def in_words(self) -> str:
        """How large it is: "361 images of 201 patients (145 malignant, 216 benign)"."""
        return (
            f"{count(self.images, 'image')} of {count(self.patients, 'patient')} "
            f"({self.malignant:,} {self.labels.names[1]}, {self.benign:,} {self.labels.names[0]})"
        )


@dataclass(frozen=True)
class Step:
    """One stage's folder on the way from the collection to the runs."""

    stage: str  # the stage that made it
    folder: Path  # where it lies
    record: Mapping[str, Any]  # its stage.json
    rows: Sequence[Row]  # its manifest
    # (kind of reason, how many) of what it could not use, the most frequent first.
    set_aside: Sequence[tuple[str, int]]

    @property
    def cohort(self) -> Cohort:
        """All its images."""
        return cohort_of(self.rows, self.labels)

    @cached_property
    def labels(self) -> Labels:
        """The two labels of its images."""
        return Labels.of(self.rows)

    @property
    def has_patients(self) -> bool:
        """Whether the collection tells which patient an image is of."""
        return has_patients(self.record)

    @property
    def tables(self) -> str:
        """What the collection lists its images in, in words."""
        known = collection_name(self.record) == CBIS_DDSM
        return "case descriptions" if known else "tables of the collection"

    @property
    def apart(self) -> str:
        """How far its splits are held apart, in words."""
        return "no patient is in two splits" if self.has_patients else NO_PATIENTS

    @property
    def listed(self) -> int | None:
        """How many images its collection lists; None where it lists others than it has."""
        counts, options = self.record["counts"], self.record["options"]
        return None if options.get("unit") == "patch" else counts.get("expected")

    @property
    def content(self) -> str:
        """What one image is, in words: "mammogram with masses"."""
        unit = str(self.record["options"].get("unit", "mammogram"))
        if self.rows:
            unit = self.rows[0].unit
        if unit == "patch":
            normal = what_normal_is(self.labels, unit)
            return f"square patch of a mammogram with {self.findings} (normal: {normal})"
        return f"{unit} with {self.findings}"

    @property
    def findings(self) -> str:
        """Which findings its images show, in words: "masses and calcifications"."""
        if collection_name(self.record) != CBIS_DDSM:
            return "a finding" if self.labels == Labels() else "or without a finding"
        return FINDINGS.get(str(self.record["options"].get("finding")), "findings")

    @property
    def excluded(self) -> int:
        """How many things it could not use."""
        return sum(count for _, count in self.set_aside)

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """What was left out by rule, in words, and how many."""
        found = self.record.get("counts", {}).get("left_out", [])
        return [(entry["why"], entry["images"]) for entry in found]

    @property
    def lost(self) -> str:
        """What it excluded, and how much of it, in words; empty where it excluded nothing."""
        parts = [f"{reason}: {number:,}" for reason, number in self.set_aside]
        said = [f"{self.excluded:,} could not be used ({'; '.join(parts)})"] if parts else []
        said += [
            f"{count(number, 'image')} {were(number)} left out by rule ({reason})"
            for reason, number in self.left_out
        ]
        return "; ".join(said)

    @property
    def splits(self) -> dict[str, Cohort]:
        """Its images by split."""
        return {
            split: cohort_of([row for row in self.rows if row.split == split], self.labels)
            for split in SPLITS
        }


@dataclass(frozen=True)
class Dataset:
    """What a run learnt from, and where that came from."""

    folder: Path  # as the runs name it
    # Organize, then preprocess where it was done; as far as they can be found.
    steps: Sequence[Step]
    source: Path | None  # the raw collection's folder; None where it is not known
    # The record of its making, where the tool made it: then it is synthetic.
    collection: Mapping[str, Any] | None
    problems: Sequence[str]  # what could not be read, one line each

    @cached_property  # asked once for each run
    def hash(self) -> str:
        """Digest of what it holds today; empty where it is gone."""
        return dataset_hash(self.folder) if self.steps else ""

    @cached_property
    def out_of_date(self) -> str:
        """How what it was made from has changed since; empty where it has not."""
        return out_of_date(self.folder, self.final.record) if self.final else ""

    @property
    def synthetic(self) -> bool:
        """Whether the tool made the collection up."""
        return self.collection is not None

    @property
    def final(self) -> Step | None:
        """The step whose images the runs saw."""
        return self.steps[-1] if self.steps else None

    def step(self, stage: str) -> Step | None:
        """Return the step that a stage made."""
        return next((step for step in self.steps if step.stage == stage), None)


def description_of(dataset: Dataset) -> str:
    """Return the figure that describes the organised dataset as a data URI; empty without one."""
    organised = dataset.step("organize")
    path = organised.folder / DESCRIPTION if organised else None
    if path is None or not path.is_file():
        return ""
    with suppress(OSError):
        return data_uri("image/png", path.read_bytes())
    return ""


def masks_of(dataset: Dataset) -> dict[str, list[Path]]:
    """Return the masks of the lesions in each image, by image_id, as far as they were written."""
    organised = dataset.step("organize")
    if organised is not None:
        with suppress(UserError):  # an outline fewer is no reason for no report
            found = read_masks(organised.folder).items()
            return {image_id: [mask.path for mask in masks] for image_id, masks in found}
    return {}


def cohort_of(rows: Sequence[Row], labels: Labels) -> Cohort:
    """Count images and patients, of a dataset with these labels; augmented copies only as such."""
    originals = [row for row in rows if not row.parent]
    counts = Counter(row.is_positive for row in originals)
    return Cohort(
        images=len(originals),
        patients=len({row.patient_id for row in originals}),
        benign=counts[False],
        malignant=counts[True],
        augmented=len(rows) - len(originals),
        labels=labels,
    )


def trace(folder: Path) -> Dataset:
    """Follow a dataset back to its collection, as far as the folders are still there."""
    steps: list[Step] = []
    problems: list[str] = []
    source: Path | None = None
    collection: Mapping[str, Any] | None = None
    here = folder
    makers: tuple[str, ...] = ("preprocess", "organize")
    try:
        while source is None:
            step = _read_step(here, *makers)
            steps.insert(0, step)
            given = step.record["options"]
            if step.stage == "organize":
                source = locate(Path(given["source"]), here)
            else:
                here, makers = locate(Path(given["data"]), here), ("organize",)
        collection = collection_record(source)
    except UserError as error:
        problems.append(error.problem)
    except (KeyError, TypeError, ValueError, OSError) as error:
        problems.append(f"{here / RECORD}: does not say what it was made from ({error!r})")
    return Dataset(folder, steps, source, collection, problems)


def _read_step(folder: Path, *makers: str) -> Step:
    record = read_record(folder, *makers)
    return Step(record["stage"], folder, record, read_manifest(folder), _reasons(folder))


def _reasons(folder: Path) -> list[tuple[str, int]]:
    path = folder / SET_ASIDE
    if not path.is_file():
        return []
    lines = read_table(path, ("what", "reason")).lines
    counts = Counter(reason_kind(line.cells["reason"]) for line in lines)
    return counts.most_common()


def reason_kind(reason: str) -> str:
    """Reduce a reason to its kind, so that a thousand missing files count as one line.

    What names one file goes: a path in front, a detail in brackets, UIDs, all but the first of
    several reasons.
    """
    text = reason.split("; ")[0]
    name, _, rest = text.partition(": ")
    if rest and ("/" in name or "\\" in name):
        text = rest
    text = re.sub(r"\s*\([^()]*\)$", "", text)
    return re.sub(r"(?:\s+or)?\s+\d[\d.]{9,}", "", text)


@dataclass(frozen=True)
class ShortcutView:
    """The probe of one step's images."""

    images: str  # "organised" or "preprocessed"
    seen: bool  # whether the runs saw these images
    warnings: Sequence[str]  # what predicts the label
    line: str  # what to say where nothing does
    picture: str  # the classes' mean images as a data URI, where something does and it is there


def shortcuts_of(dataset: Dataset) -> list[ShortcutView]:
    """Return the probe of the images that the runs saw, and of earlier ones where it warns."""
    views = [view for step in dataset.steps if (view := _view(step, step is dataset.final))]
    return [view for view in views if view.seen or view.warnings]


def _view(step: Step, seen: bool) -> ShortcutView | None:
    path = step.folder / SHORTCUTS
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        warnings = [text.replace(f"; see {PICTURE}", "") for text in found["warnings"]]
        line = "" if warnings else _quiet(found)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        warnings, line = [], f"{path} cannot be read"
    picture = jpeg(step.folder / PICTURE, SHEET) if warnings else ""
    return ShortcutView(IMAGES[step.stage], seen, warnings, line, picture)


def _quiet(found: Mapping[str, Any]) -> str:
    if found["problem"]:
        return f"no verdict, {found['problem']}"
    together = found["groups"]["all"]
    area = interval_of({**together, "value": together["auc"]})
    return f"nothing predicts the label; the AUC of all features together is {area.in_words}"
