"""A dataset of a collection that is read to records: which images, in which split."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import ABNORMAL, DIAGNOSES, POSITIVE, QUESTIONS, SPLITS
from pipeline.options import Answers, applies, as_text, checked, choices_of, defaults, flag
from pipeline.progress import Progress, Silent, Table
from pipeline.provenance import NO_PATIENTS
from pipeline.stages.collections import short_name
from pipeline.stages.data import Organize
from sources.exclusion import LeftOut, breast_rules, listed_names
from sources.plan import Plan, split_counts
from sources.pseudonyms import OpenNames
from sources.record_layout import RecordLayout
from sources.records import ImageRecord, PlannedRecord, Records
from sources.splits import Strata, assign_folds, assign_splits

RARE = 0.1  # share of positive images below which accuracy means nothing
Reader = Callable[[Organize, Progress], Records]
_read: dict[tuple[str, str], tuple[int, Records]] = {}


@dataclass(frozen=True)
class RecordPlan(Plan):
    """What the tables and names of a collection decide."""

    options: Organize
    collection: str
    records: Records
    images: Sequence[PlannedRecord]
    left_out: Sequence[LeftOut]
    splits: Mapping[str, str]
    folds: Mapping[str, int]
    rename: OpenNames
    labels: tuple[str, str]

    def facts(self) -> dict[str, Any]:
        """Return what is known before a file is looked at."""
        records = self.records
        facts = {
            "collection": self.collection,
            "question": self.options.question,
            "labels": list(self.labels),
            "has_patients": records.has_patients,
            "held": _held(records.records),
            "left_out": [dataclasses.asdict(entry) for entry in self.left_out],
            "planned": split_counts(self.images, self.splits, self.labels),
            **records.facts,
        }
        if self.folds:
            counts = Counter(self.folds.values())
            facts["folds"] = {fold: counts[fold] for fold in range(1, self.options.folds + 1)}
        return facts

    def tables(self, facts: Mapping[str, Any]) -> Iterator[Table]:
        """Yield what the collection holds, by its own splits and diagnoses."""
        held = facts["held"]
        columns = ("own split", *held["all"])
        rows = tuple((split, *counts.values()) for split, counts in held.items())
        yield Table(f"What {short_name(self.collection)} holds", columns, rows)

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of the cohort before trusting a figure made with it."""
        records, question = self.records, self.options.question
        yield from records.notes
        if not records.has_patients:
            yield NO_PATIENTS
        if not any(record.diagnosis == "normal" for record in records.records):
            same = " (--question benign-malignant names the labels so)"
            yield (
                "the collection holds no normal images: a model learns to tell malignant from "
                f"benign findings, and is no screening test{same * (question == 'malignant-rest')}"
            )
        alone = [image.label for image in self.images if not image.record.variant_of]
        if variants := len(self.images) - len(alone):
            yield f"{variants:,} of the training images are further variants of its films"
        if question in records.on_question:
            label, count = Counter(alone).most_common(1)[0]
            share = f"calling every image {label} is right for {count / len(alone):.2f} of them"
            yield f"{records.on_question[question]}: {share}"
        if self.options.test_share and not any(image.split == "test" for image in self.images):
            yield (
                "the collection has no test images of its own: "
                f"--test-share {self.options.test_share:g} of the patients were drawn"
            )
        yield from _rare(self.images, self.labels[1])
        yield from _apart(self.images, self.splits)
        for name, value in _foreign(self.options):
            yield f"{name} {value} means nothing for this collection, and was not used"

    def collection_notes(self) -> Iterator[str]:
        """Yield nothing: what is odd about a collection is a note of every run."""
        yield from ()

    def shown(self, name: str) -> str:
        """Return the name of a patient as the dataset may show it."""
        return self.rename.whole(name)

    def locate(self, keep: Path | None, progress: Progress) -> RecordLayout:
        """Return where the files are: the records name them."""
        del keep, progress
        aside = [(self.rename.whole(what), why) for what, why in self.records.set_aside]
        noted = [(self.rename.whole(what), why) for what, why in self.records.remarks]
        return RecordLayout(self.options, self.splits, self.rename, aside, noted)


def plan_records(
    options: Organize, rename: OpenNames, collection: str, read: Reader, progress: Progress
) -> RecordPlan:
    """Decide which images of a collection a dataset holds, and split them by patient.

    Args:
        options: Of the stage.
        rename: Pseudonyms, or names as they are.
        collection: Its name.
        read: Reads the collection.
        progress: Where it reports.

    Raises:
        UserError: No image is left, or the question cannot be asked of the collection.
    """
    records = read(options, progress)
    options = with_question(options, records.records)
    labels = QUESTIONS[options.question]
    images, left_out = plan_cohort(records.records, options, rename)
    if not images:
        why = ", ".join(entry.why for entry in left_out) or "it holds none"
        raise UserError(f"{options.source}: no image is left ({why})", "leave out less")
    _refuse_one_label(images, options)
    alone = [image for image in images if not image.record.variant_of]
    strata = _strata(alone)
    splits = assign_splits(alone, strata, options.val_share, options.seed, options.test_share)
    folds = assign_folds(splits, strata, options.folds, options.seed) if options.folds else {}
    if options.folds and len(set(folds.values())) < options.folds:
        raise UserError(
            f"--folds {options.folds}: there are only {len(folds)} patients in train and val",
            "ask for fewer folds",
        )
    # A variant is an augmented image: of training films alone.
    kept = [
        image
        for image in images
        if not image.record.variant_of or splits[image.patient_id] == "train"
    ]
    if lost := len(images) - len(kept):
        left_out.append(LeftOut("variants of films in val and test", lost, lost, 0))
    left_out = [*records.left_out, *left_out]
    return RecordPlan(options, collection, records, kept, left_out, splits, folds, rename, labels)


def with_question(options: Organize, records: Sequence[ImageRecord]) -> Organize:
    """Return the options with a question that the collection can answer, where none was chosen."""
    if options.question != "auto":
        return options
    there = {record.diagnosis for record in records}
    if "normal" not in there:
        return replace(options, question="benign-malignant")
    question = "malignant-rest" if "malignant" in there else "abnormal-normal"
    return replace(options, question=question)


def plan_cohort(
    records: Sequence[ImageRecord], options: Organize, rename: OpenNames
) -> tuple[list[PlannedRecord], list[LeftOut]]:
    """Choose records and give them the labels of the question.

    Returns:
        The images, sorted by image_id, and what each rule took.

    Raises:
        UserError: The list of what to leave out cannot be read, or names nothing that there is.
    """
    left_out = []
    kept = list(records)
    for why, keep in _rules(records, options, rename):
        remaining = [record for record in kept if keep(record)]
        patients = {record.patient_id for record in kept}
        patients -= {record.patient_id for record in remaining}
        if len(remaining) < len(kept):
            lost = len(kept) - len(remaining)
            left_out.append(LeftOut(why, lost, lost, len(patients)))
        kept = remaining
    present = {record.image_id for record in kept}
    images = [
        PlannedRecord(record, label_of(record.diagnosis, options.question))
        for record in kept
        if not record.variant_of or record.variant_of in present
    ]
    return sorted(images, key=lambda image: image.image_id), left_out


def _rules(
    records: Sequence[ImageRecord], options: Organize, rename: OpenNames
) -> Iterator[tuple[str, Callable[[ImageRecord], bool]]]:
    if options.question == "benign-malignant":
        yield "normal images", lambda record: record.diagnosis != "normal"
    if options.question != "abnormal-normal":
        yield "findings that may be benign or malignant", lambda one: one.diagnosis != ABNORMAL
    yield from breast_rules(options)
    if options.variants == "leave-out":
        yield "variants of a film", lambda record: not record.variant_of
    if options.exclude is not None:
        names = {name for record in records for name in _names(record, rename)}
        unwanted = listed_names(options.exclude, names)
        why = f"listed in {options.exclude.name}"
        yield why, lambda record: not _names(record, rename) & unwanted


def label_of(diagnosis: str, question: str) -> str:
    """Return the label of a diagnosis, by the question of a dataset."""
    negative, positive = QUESTIONS[question]
    if question == "abnormal-normal":
        return negative if diagnosis == "normal" else positive
    return positive if diagnosis == "malignant" else negative


def live_counts(name: str, answers: Answers) -> dict[str, str]:
    """Return for each choice of an option what would be left with it.

    Returns:
        "322 images (0 test), 161 patients" by choice; nothing where the collection cannot be
        read yet: the stage will say why.
    """
    from sources.registry import collection_of, module_of

    item = next(item for item in dataclasses.fields(Organize) if item.name == name)
    counts = {}
    with contextlib.suppress(UserError, OSError):
        known = {key: value for key, value in answers.items() if key in defaults(Organize)}
        collection = collection_of(answers)
        source = Path(answers["source"])
        options = checked(Organize, known | {"out": Path(), "collection": collection})
        module = module_of(collection)
        # What takes minutes to read may be counted by its labels alone.
        labels = getattr(module, "read_labels", partial(module.read, progress=Silent()))
        records = _read_once(collection, source, options, labels)
        for choice in choices_of(item, answers) or ():
            chosen = with_question(replace(options, **{name: choice}), records.records)
            images, _ = plan_cohort(records.records, chosen, OpenNames())
            alone = [image for image in images if not image.record.variant_of]
            positive = sum(image.label == QUESTIONS[chosen.question][1] for image in alone)
            patients = len({image.patient_id for image in alone})
            counts[choice] = (
                f"{len(alone):,} images ({positive:,} {QUESTIONS[chosen.question][1]}), "
                f"{patients:,} patients"
            )
    return counts


def _read_once(
    collection: str, source: Path, options: Organize, read: Callable[[Organize], Records]
) -> Records:
    """Read a collection, or take it as read a moment ago: several questions in a row want it."""
    stamp = source.stat().st_mtime_ns
    key = collection, str((source, options.csv, options.columns, options.classes))
    if key not in _read or _read[key][0] != stamp:
        _read[key] = stamp, read(options)
    return _read[key][1]


def _refuse_one_label(images: Sequence[PlannedRecord], options: Organize) -> None:
    """Refuse a question that every image answers alike.

    Raises:
        UserError: There is one label alone.
    """
    there = {image.label for image in images}
    if len(there) > 1:
        return
    held = Counter(image.record.diagnosis for image in images)
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(held.items()))
    raise UserError(
        f"--question {options.question}: all {len(images):,} images are {there.pop()} ({counts})",
        "ask another question",
    )


def _strata(images: Sequence[PlannedRecord]) -> Strata:
    """Return label, collection, site, finding and density of each patient."""
    held: dict[str, list[PlannedRecord]] = {}
    for image in images:
        held.setdefault(image.patient_id, []).append(image)

    def joined(name: str, shown: Sequence[PlannedRecord]) -> str:
        values = {getattr(image.record, name) for image in shown}
        return "|".join(sorted({str(value or "") for value in values}))

    strata = {}
    for patient, shown in held.items():
        diagnoses = {image.record.diagnosis for image in shown}
        worst = max(diagnoses, key=(ABNORMAL, *DIAGNOSES).index)
        positive = max({image.label for image in shown}, key=POSITIVE.__contains__)
        others = tuple(joined(name, shown) for name in ("collection", "site", "finding", "density"))
        strata[patient] = (positive, worst, *others)
    return strata


def _names(record: ImageRecord, rename: OpenNames) -> set[str]:
    """Return every name under which an image may be listed to be left out."""
    own = {record.image_id, record.patient_id, Path(record.file).stem, *record.also_named}
    return own | {rename.whole(name) for name in own}


def _held(records: Sequence[ImageRecord]) -> dict[str, dict[str, int]]:
    """Count images, patients and diagnoses by the collection's own splits, and in all."""
    splits = [split for split in SPLITS if any(record.split == split for record in records)]
    unclear = any(record.diagnosis == ABNORMAL for record in records)
    kinds = (*DIAGNOSES, ABNORMAL) if unclear else DIAGNOSES
    found = {}
    for split in [*splits, "all"]:
        members = [record for record in records if split in (record.split, "all")]
        diagnoses = Counter(record.diagnosis for record in members)
        found[split] = {
            "images": len(members),
            "patients": len({record.patient_id for record in members}),
            **{name: diagnoses[name] for name in kinds},
        }
    return found


def _apart(images: Sequence[PlannedRecord], splits: Mapping[str, str]) -> Iterator[str]:
    """Say where validation and test share no finding, as in DDSM's TFRecords."""
    held: dict[str, set[str]] = {"val": set(), "test": set()}
    for image in images:
        if image.record.finding and (split := splits[image.patient_id]) in held:
            held[split].add(image.record.finding)
    if all(held.values()) and not held["val"] & held["test"]:
        said = " and ".join(f"{split} only {', '.join(sorted(one))}" for split, one in held.items())
        yield f"of findings, {said}: what is chosen on val may not fit test"


def _rare(images: Sequence[PlannedRecord], positive: str) -> Iterator[str]:
    """Yield a note where one label is so rare that accuracy means nothing."""
    alone = [image for image in images if not image.record.variant_of]
    count = sum(image.label == positive for image in alone)
    if 0 < count < RARE * len(alone):
        share = count / len(alone)
        yield (
            f"{share:.1%} of the images are {positive}: calling none of them so would be right for "
            f"{1 - share:.1%}, so accuracy means nothing: read PR AUC and probabilistic F1"
        )


def _foreign(options: Organize) -> Iterator[tuple[str, str]]:
    """Yield the flags that were given and do not apply to the collection, with their values."""
    answers = {item.name: getattr(options, item.name) for item in dataclasses.fields(options)}
    answers |= {"dry_run": False, "check": False}  # which leave out more, and not by collection
    for item in dataclasses.fields(options):
        value = answers[item.name]
        if value != item.default and not applies(item, answers):
            yield flag(item), as_text(value)
