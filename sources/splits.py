"""Which patients test, which validate and in which fold; decided before any file is looked at."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

Stratum = tuple[str, ...]  # label first, and what else to balance
Strata = Mapping[str, Stratum]  # by patient_id


class Planned(Protocol):
    """An image that a dataset should hold."""

    @property
    def image_id(self) -> str:
        """Its name, unique in the dataset."""

    @property
    def patient_id(self) -> str:
        """Who it shows; or what else must not be in two splits."""

    @property
    def split(self) -> str:
        """The collection's own: "train", "val" or "test"; empty where it has none."""

    @property
    def label(self) -> str:
        """One of the dataset's two labels."""

    @property
    def breast(self) -> tuple[str, str]:
        """The patient and the side."""


def assign_splits(
    images: Sequence[Planned], strata: Strata, val_share: float, seed: int, test_share: float = 0
) -> dict[str, str]:
    """Return the split of each patient: the collection's own, and what it lacks off train.

    Args:
        images: All that the dataset should hold, whether or not there are files.
        strata: Of every patient.
        val_share: Share of the training patients that go to validation, where the collection
            has no images for it.
        seed: Of the choice.
        test_share: Share of all patients that go to test, where it has no test images.
    """
    splits = _own_splits(images)
    if test_share and "test" not in splits.values():
        chosen = validation_patients(_in_train(strata, splits), test_share, seed)
        splits.update(dict.fromkeys(chosen, "test"))
    if "val" not in splits.values():
        chosen = validation_patients(_in_train(strata, splits), val_share, seed)
        splits.update(dict.fromkeys(chosen, "val"))
    return splits


def assign_folds(
    splits: Mapping[str, str], strata: Strata, folds: int, seed: int
) -> dict[str, int]:
    """Return the fold, from 1, of each patient who is not in test.

    Within each label the patients of one stratum after the other are dealt like cards, so that
    labels differ by at most one patient between folds, and so do strata.
    """
    assigned: dict[str, int] = {}
    dealt_to = {
        patient: one for patient, one in sorted(strata.items()) if splits[patient] != "test"
    }
    for by_stratum in _grouped(dealt_to).values():
        dealt = [
            patient
            for stratum in sorted(by_stratum)
            for patient in sorted(by_stratum[stratum], key=lambda name: _draw(seed, name))
        ]
        # Labels start at different folds, so that no fold has the extra patient of each.
        start = len(assigned)
        assigned.update({who: (start + turn) % folds + 1 for turn, who in enumerate(dealt)})
    return assigned


def _own_splits(images: Sequence[Planned]) -> dict[str, str]:
    """Return the split of each patient as the collection has it; what it has not is train."""
    splits = dict.fromkeys((image.patient_id for image in images), "train")
    # By patient: views and breasts of one woman are too alike to stand on both sides.
    for split in ("val", "test"):
        splits.update({image.patient_id: split for image in images if image.split == split})
    return splits


def _in_train(strata: Strata, splits: Mapping[str, str]) -> dict[str, Stratum]:
    return {name: one for name, one in sorted(strata.items()) if splits[name] == "train"}


def validation_patients(strata: Strata, share: float, seed: int) -> set[str]:
    """Choose the patients to validate on, stratified, the same whatever their order.

    Of each label (first part of the stratum) the share is met to the nearest patient, with at
    least one in validation and one left in training where there are two. Within a label the
    largest-remainder method spreads it over the strata.

    Args:
        strata: patient_id -> (label, and what else to balance).
        share: Of the patients of each label, in (0, 1).
        seed: Which of them.
    """
    chosen: set[str] = set()
    for by_stratum in _grouped(strata).values():
        available = sum(map(len, by_stratum.values()))
        wanted = min(max(round(share * available), 1), available - 1)
        quotas = {
            stratum: wanted * len(patients) / available for stratum, patients in by_stratum.items()
        }
        seats = {stratum: int(quota) for stratum, quota in quotas.items()}
        neediest = sorted(
            quotas, key=lambda name: (seats[name] - quotas[name], _draw(seed, str(name)))
        )
        for stratum in neediest[: wanted - sum(seats.values())]:
            seats[stratum] += 1
        for stratum, patients in by_stratum.items():
            chosen.update(sorted(patients, key=lambda name: _draw(seed, name))[: seats[stratum]])
    return chosen


def _grouped(strata: Strata) -> dict[str, dict[Stratum, list[str]]]:
    groups: dict[str, dict[Stratum, list[str]]] = defaultdict(lambda: defaultdict(list))
    for patient, stratum in strata.items():
        groups[stratum[0]][stratum].append(patient)
    return {label: groups[label] for label in sorted(groups)}


def _draw(seed: int, name: str) -> str:
    # A hash and no generator: another patient in the list does not change anyone's draw.
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
