"""Reads the datasets behind the runs: the cohort from the collection to its splits."""

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.flags import command
from pipeline.errors import UserError
from pipeline.manifest import SPLITS, Row, read_manifest
from pipeline.options import applies, as_text, defaults, kind_of, spec_of
from pipeline.provenance import dataset_hash, out_of_date
from pipeline.records import RECORD, SET_ASIDE, read_record
from pipeline.stages import data, evaluation, training
from pipeline.tables import read_table

OPTIONS = {
    "synthesize": data.Synthesize,
    "organize": data.Organize,
    "preprocess": data.Preprocess,
    "train": training.Train,
    "evaluate": evaluation.Evaluate,
    "ensemble": evaluation.Ensemble,
    "report": evaluation.Report,
}
IDLE = ("workers", "preview", "cluster", "resume")  # options that change no figure


@dataclass(frozen=True)
class Cohort:
    """How many images and patients; augmented copies are counted on their own."""

    images: int
    patients: int
    benign: int
    malignant: int
    augmented: int

    @property
    def malignant_share(self) -> float:
        """The malignant part of the images, 0 to 1."""
        return self.malignant / self.images if self.images else 0.0


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
        return cohort_of(self.rows)

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
    def splits(self) -> dict[str, Cohort]:
        """Its images by split."""
        return {
            split: cohort_of([row for row in self.rows if row.split == split]) for split in SPLITS
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

    @property
    def hash(self) -> str:
        """Digest of what it holds today; empty where it is gone."""
        return dataset_hash(self.folder) if self.steps else ""

    @property
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


def cohort_of(rows: Sequence[Row]) -> Cohort:
    """Count images and patients; augmented copies only as such."""
    originals = [row for row in rows if not row.parent]
    labels = Counter(row.label for row in originals)
    return Cohort(
        images=len(originals),
        patients=len({row.patient_id for row in originals}),
        benign=labels["benign"],
        malignant=labels["malignant"],
        augmented=len(rows) - len(originals),
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
        collection = _collection(source)
    except UserError as error:
        problems.append(error.problem)
    except (KeyError, TypeError, ValueError, OSError) as error:
        problems.append(f"{here / RECORD}: does not say what it was made from ({error!r})")
    return Dataset(folder, steps, source, collection, problems)


def _collection(source: Path) -> Mapping[str, Any] | None:
    """Return the record of a synthetic collection; None for a real one, which has no record."""
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    return read_record(source, "synthesize") if (source / RECORD).is_file() else None


def locate(path: Path, beside: Path) -> Path:
    """Find a folder that a record names relative to where the tool was then started.

    Args:
        path: As the record gives it.
        beside: The folder of the record: one of its parents is the likely start.
    """
    if path.is_absolute():
        return path
    for parent in beside.resolve().parents:
        if (parent / path).is_dir():
            return parent / path
    return path


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


def restore(stage: str, values: Mapping[str, Any]) -> Any:
    """Rebuild a stage's options from its record; unlike `checked` it asks nothing of the disk."""
    kind = OPTIONS[stage]
    known = {item.name: item for item in dataclasses.fields(kind)}
    return kind(
        **{
            name: Path(value) if kind_of(known[name]) is Path and value is not None else value
            for name, value in values.items()
            if name in known
        }
    )


def repeat(stage: str, values: Mapping[str, Any]) -> str:
    """Return the command that repeats a stage as its record says."""
    return command(stage, restore(stage, values))


def settings(
    stage: str, values: Mapping[str, Any], without: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Return a stage's options as (question, answer) in words.

    Left out are what does not apply, and folders, workers and the like: they change no figure.

    Args:
        stage: Of OPTIONS.
        values: Its options by name.
        without: Names of options to leave out beside these.
    """
    kind = OPTIONS[stage]
    answers = defaults(kind) | {k: v for k, v in values.items() if k in defaults(kind)}
    rows = []
    for item in dataclasses.fields(kind):
        if item.name in (*IDLE, *without) or kind_of(item) is Path or not applies(item, answers):
            continue
        text = as_text(answers[item.name])
        choices = spec_of(item).choices
        meaning = choices.get(text, "") if isinstance(choices, Mapping) else ""
        rows.append((spec_of(item).text, meaning or text))
    return rows
