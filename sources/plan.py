"""What `organize` needs of a collection: a plan made of its tables, and where its files are."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.labels import Labels
from pipeline.manifest import LABELS, SPLITS
from pipeline.progress import Progress, Table
from pipeline.stages.data import Organize
from sources.dataset import Account
from sources.pseudonyms import OpenNames
from sources.splits import Planned
from sources.writing import Facts, Job

SPLIT_COLUMNS = ("images", "patients", "breasts")


class Layout(ABC):
    """Where the files of the planned images are, and what comes of them."""

    # (file or image, reason) of what cannot be used, known before an image is read.
    unreadable: Sequence[tuple[str, str]]
    holds_masks: bool = True  # whether there are masks, or the collection never has any
    work: tuple[str, str] = ("Writing images", "images")  # what its jobs do, and how they count

    @abstractmethod
    def image_job(self, image: Any) -> Job | None:
        """Return how an image is written; None where it has no file."""

    @abstractmethod
    def mask_jobs(self, image: Any, shape: tuple[int, int]) -> Iterator[tuple[Any, Job | None]]:
        """Yield each lesion of an image with how its mask is written, or None without a file."""

    @abstractmethod
    def account_image(self, image: Any, job: Job | None, facts: Facts, account: Account) -> None:
        """Enter one image: its row if it was written, and what was set aside on the way."""

    @abstractmethod
    def account_mask(
        self, image: Any, lesion: Any, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one mask, as `account_image` enters an image."""

    def outcome(self, account: Account) -> tuple[dict[str, Any], list[str]]:
        """Return facts and notes on what came of the images, beside what is counted of all."""
        del account
        return {}, []

    @abstractmethod
    def remarks(self) -> list[tuple[str, str]]:
        """Return (file or row, remark) of what is usable but worth knowing."""

    @abstractmethod
    def refuse_nothing(self, images: Sequence[Any]) -> NoReturn:
        """Say why none of the planned images has a file.

        Raises:
            UserError: Always.
        """

    @abstractmethod
    def inputs(self) -> Any:
        """Return what the dataset is made from, as JSON can hold it."""


class Plan(ABC):
    """What the tables of a collection decide, before an image is read."""

    options: Organize  # of the stage, presets resolved
    images: Sequence[Planned]  # that the dataset should hold, sorted by image_id
    unit: str = "images"  # what its images are called, in the plural
    splits: Mapping[str, str]  # patient_id -> split
    folds: Mapping[str, int]  # patient_id -> fold; empty where none are wanted
    rename: OpenNames  # pseudonyms, or names as they are
    labels: tuple[str, str] = LABELS  # the negative one first
    private_files: Sequence[str] = ()  # that an earlier run left and that name patients

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what is known before a file is looked at, with "planned" and "left_out"."""

    @abstractmethod
    def tables(self, facts: Mapping[str, Any]) -> Iterator[Table]:
        """Yield what the collection holds; the cohort by split is not among it."""

    @abstractmethod
    def notes(self) -> Iterator[str]:
        """Yield what a person should know of the cohort before trusting a figure made with it."""

    @abstractmethod
    def collection_notes(self) -> Iterator[str]:
        """Yield what the collection holds that is easily counted wrongly."""

    def shown(self, name: str) -> str:
        """Return the name of a patient as the dataset may show it."""
        return self.rename(name)

    @abstractmethod
    def locate(self, keep: Path | None, progress: Progress) -> Layout:
        """Find the files.

        Args:
            keep: The folder to keep what was learnt of them in; None to keep nothing.
            progress: Where to report.
        """


def split_counts(
    images: Iterable[Planned], splits: Mapping[str, str], labels: tuple[str, str] = LABELS
) -> dict[str, Any]:
    """Count images, patients, breasts and labels by split.

    Args:
        images: Of a cohort.
        splits: patient_id -> "train", "val" or "test".
        labels: The two of the dataset.
    """
    by_split: dict[str, list[Planned]] = {split: [] for split in SPLITS}
    for image in images:
        by_split[splits[image.patient_id]].append(image)
    found = {}
    for split, members in by_split.items():
        held = Counter(image.label for image in members)
        found[split] = {
            "images": len(members),
            "patients": len({image.patient_id for image in members}),
            "breasts": len({image.breast for image in members}),
            **{label: held[label] for label in labels},
        }
    return found


def left_out_table(facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield what was left out by rule, if anything was."""
    if facts["left_out"]:
        columns = ("why", "lesions", "images", "patients")
        rows = tuple(tuple(entry[name] for name in columns) for entry in facts["left_out"])
        yield Table("Left out", columns, rows)


def split_table(plan: Plan, facts: Mapping[str, Any]) -> Table:
    """Return images, patients, breasts and labels by split."""
    splits, columns = facts["splits"], (*SPLIT_COLUMNS, *plan.labels)
    total = {name: sum(splits[split][name] for split in SPLITS) for name in columns}
    rows = [(split, *(splits[split][name] for name in columns)) for split in SPLITS]
    titles = ("split", *SPLIT_COLUMNS, *Labels(*plan.labels).names)
    rows.append(("all", *total.values()))
    return Table(f"{plan.unit.capitalize()} by split", titles, tuple(rows))
