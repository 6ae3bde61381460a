"""CBIS-DDSM: which patients validate, and in which fold; decided before any file is looked at."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sources.cbis_ddsm.cohort import PlannedImage
from sources.cbis_ddsm.tables import Lesion

Stratum = tuple[str, ...]


def assign_splits(images: Sequence[PlannedImage], val_share: float, seed: int) -> dict[str, str]:
    """Return the split of each patient: the official test set, and validation off train.

    Args:
        images: All that the dataset should hold, whether or not there are files.
        val_share: Share of the training patients that go to validation.
        seed: Of the choice.
    """
    splits = dict.fromkeys((image.patient_id for image in images), "train")
    # By patient: views and breasts of one woman are too alike to stand on both sides.
    splits.update({image.patient_id: "test" for image in images if image.split == "test"})
    chosen = validation_patients(_strata(images, splits), val_share, seed)
    splits.update(dict.fromkeys(chosen, "val"))
    return splits


def assign_folds(images: Sequence[PlannedImage], folds: int, seed: int) -> dict[str, int]:
    """Return the fold, from 1, of each patient who is not in test.

    Within each label the patients of one stratum after the other are dealt like cards, so that
    labels differ by at most one patient between folds, and so do strata.
    """
    test = {image.patient_id: "test" for image in images if image.split == "test"}
    splits = dict.fromkeys((image.patient_id for image in images), "train") | test
    assigned: dict[str, int] = {}
    for by_stratum in _grouped(_strata(images, splits)).values():
        dealt = [
            patient
            for stratum in sorted(by_stratum)
            for patient in sorted(by_stratum[stratum], key=lambda name: _draw(seed, name))
        ]
        # Labels start at different folds, so that no fold has the extra patient of each.
        start = len(assigned)
        assigned.update({who: (start + turn) % folds + 1 for turn, who in enumerate(dealt)})
    return assigned


def validation_patients(strata: Mapping[str, Stratum], share: float, seed: int) -> set[str]:
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


def _strata(images: Sequence[PlannedImage], splits: Mapping[str, str]) -> dict[str, Stratum]:
    """Return label, findings and density of each training patient."""
    lesions: dict[str, list[Lesion]] = defaultdict(list)
    for image in images:
        lesions[image.patient_id] += image.lesions
    malignant = {image.patient_id for image in images if image.label == "malignant"}
    return {
        patient: (
            "malignant" if patient in malignant else "benign",
            "|".join(sorted({lesion.finding for lesion in shown})),
            str(max(lesion.density for lesion in shown)),
        )
        for patient, shown in sorted(lesions.items())
        if splits[patient] == "train"
    }


def _grouped(strata: Mapping[str, Stratum]) -> dict[str, dict[Stratum, list[str]]]:
    groups: dict[str, dict[Stratum, list[str]]] = defaultdict(lambda: defaultdict(list))
    for patient, stratum in strata.items():
        groups[stratum[0]][stratum].append(patient)
    return {label: groups[label] for label in sorted(groups)}


def _draw(seed: int, name: str) -> str:
    # A hash and no generator: another patient in the list does not change anyone's draw.
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
