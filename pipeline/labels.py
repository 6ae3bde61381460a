"""A dataset's two labels: how JSON files keep them, and how people read them.

JSON counts under the keys "benign" (the negative label) and "malignant" (the positive one),
whatever a dataset's question is; where its two labels are others, "labels" beside them names both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import LABELS, NORMAL, QUESTIONS, Row, labels_of

KEYS = LABELS  # of JSON: the negative label's, and the positive one's
CONDITIONS = {"malignant": "malignancy", "abnormal": "abnormality"}
# The share of positive images below which accuracy and ROC AUC say little of what is found, and
# average precision leads (Saito & Rehmsmeier 2015, PLoS ONE 10:e0118432).
RARE = 0.10
FEW_POSITIVES = 10  # of validation, below which single images decide what is chosen there


@dataclass(frozen=True)
class Labels:
    """The two labels of one of QUESTIONS."""

    negative: str = LABELS[0]  # "benign", "not_malignant" or "normal", as the manifest has it
    positive: str = LABELS[1]  # "malignant" or "abnormal"

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Labels":
        """Return those of a dataset."""
        return cls(*labels_of(rows))

    @classmethod
    def recorded(cls, facts: Mapping[str, Any]) -> "Labels":
        """Read those that model.json or metrics.json tells of; benign and malignant without."""
        return cls(*facts.get("labels", LABELS))

    @property
    def record(self) -> dict[str, list[str]]:
        """What such a file says of them; nothing of benign and malignant."""
        return {} if self == Labels() else {"labels": [self.negative, self.positive]}

    @property
    def names(self) -> tuple[str, str]:
        """Both as people read them, the negative one first: ("not malignant", "malignant")."""
        return self.negative.replace("_", " "), self.positive

    @property
    def condition(self) -> str:
        """What the positive label is the presence of: "malignancy" or "abnormality"."""
        return CONDITIONS[self.positive]

    def label(self, positive: bool) -> str:
        """Return one of them as the manifest has it."""
        return self.positive if positive else self.negative

    def name(self, positive: bool) -> str:
        """Return one of them as people read it."""
        return self.names[bool(positive)]

    def evidence(self, positive: bool) -> str:
        """Return what a heat-map shows evidence of: "of malignancy", "of a benign finding"."""
        if positive:
            return f"of {self.condition}"
        return "of a benign finding" if self == Labels() else f"against {self.condition}"


def is_rare(positive: int, images: int) -> bool:
    """Return whether few images of a test set are positive, though some are."""
    return 0 < positive < RARE * images


def is_normal(row: Row) -> bool:
    """Return whether an image shows no finding, as far as its dataset says so.

    Where a dataset tells no diagnosis, as one of benign and malignant findings, its negative images
    stand for normal ones.
    """
    return row.diagnosis == NORMAL if row.diagnosis else not row.is_positive


def what_normal_is(labels: Labels, unit: str, left_out: bool = False) -> str:
    """Return what the images of a dataset's negative label are, for titles of results.

    A detector of anomalies learns what is normal from these alone.

    Args:
        labels: The two of the dataset.
        unit: What one image is, as `Row.unit` says.
        left_out: Whether its collection has normal images that the question leaves out.
    """
    if labels.negative == "normal":
        of_patches = "normal-tissue patches outside every lesion mask"
        return of_patches if unit == "patch" else "normal films"
    if labels.negative == "not_malignant":
        return "normal films (where none are told, those that are not malignant)"
    if left_out:
        return "benign images; the collection's normal ones are left out"
    return "benign images, the nearest thing: the collection has no normal ones"


ALL_LABELS = tuple(dict.fromkeys(label for pair in QUESTIONS.values() for label in pair))


def known_label(text: str) -> str | None:
    """Return a label as the manifest has it ("Not malignant" too); None where it is none."""
    label = text.strip().lower().replace(" ", "_")
    return label if label in ALL_LABELS else None


def note_on_labels(name: str, trained: Labels, data: Labels) -> str:
    """Say that a run answers another question than a dataset asks; empty where it is the same.

    Where both call the same thing positive, its scores mean the same: "malignant" against benign
    findings, and against all the rest.

    Raises:
        UserError: They call different things positive.
    """
    if trained == data:
        return ""
    learnt, asked = (" or ".join(labels.names) for labels in (trained, data))
    if trained.positive != data.positive:
        raise UserError(
            f"{name}: learnt to tell {learnt}, and the images of this dataset are {asked}",
            f"organise the data with --question {_questions(trained)}, or train on this dataset",
        )
    return f"the run learnt to tell {learnt}, and the images here are {asked}"


def _questions(labels: Labels) -> str:
    """Return the questions whose positive label is the same."""
    return " or ".join(name for name, pair in QUESTIONS.items() if pair[1] == labels.positive)
