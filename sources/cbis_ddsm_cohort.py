"""CBIS-DDSM: which images a dataset should hold, and in which split.

The case descriptions alone decide; no file is looked at, so that a partial download gets the same
images in the same splits as a whole one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sources.cbis_ddsm import CALCIFICATION, MALIGNANT, MASS, WITHOUT_CALLBACK, Lesion

Stratum = tuple[str, ...]
SHORT = {MASS: "mass", CALCIFICATION: "calc"}


@dataclass(frozen=True)
class PlannedImage:
    """One image that a dataset should hold.

    Attributes:
        image_id: "P_00001_LEFT_CC", for a crop "P_00001_LEFT_CC_mass_1".
        unit: "mammogram" or "crop".
        split: The official one, "train" or "test".
        lesions: What it shows, masses first, by number; at least one.
        series: SeriesInstanceUIDs whose files may hold it, in the order of preference.
    """

    image_id: str
    unit: str
    split: str
    lesions: tuple[Lesion, ...]
    series: tuple[str, ...]

    @property
    def patient_id(self) -> str:
        """The patient, who is the same in the mass and the calcification CSVs."""
        return self.lesions[0].patient_id

    @property
    def label(self) -> str:
        """Malignant where any of the lesions is."""
        return "malignant" if any(x.pathology == MALIGNANT for x in self.lesions) else "benign"


@dataclass(frozen=True)
class Cohort:
    """The images of a dataset, and how many were left out for which reason.

    Attributes:
        images: Sorted by image_id.
        lesions_without_callback: Left out because they are BENIGN_WITHOUT_CALLBACK.
        images_without_callback: Left out because they show no other lesion.
        pooled_patients: In train for one finding and in test for the other.
        pooled_images: Training images of these, left out.
    """

    images: tuple[PlannedImage, ...]
    lesions_without_callback: int
    images_without_callback: int
    pooled_patients: int
    pooled_images: int


def plan_cohort(lesions: Iterable[Lesion], unit: str, leave_out_without_callback: bool) -> Cohort:
    """Group lesions into images and keep training and test patients apart.

    A film that is stored twice, once for its masses and once for its calcifications, is one
    image. Where one of the two is in test, the image is: what is known of its lesions from the
    other still makes its label. Other training images of test patients are left out.

    Args:
        lesions: Rows of the case descriptions, in any order.
        unit: "mammogram" (one image for each film) or "crop" (one for each lesion).
        leave_out_without_callback: Whether BENIGN_WITHOUT_CALLBACK lesions are left out, and with
            them the images that show no other.
    """
    everything = list(lesions)
    kept = [
        lesion
        for lesion in everything
        if not (leave_out_without_callback and lesion.pathology == WITHOUT_CALLBACK)
    ]
    group = _films if unit == "mammogram" else _crops
    images = group(kept)
    test_patients = {image.patient_id for image in images if image.split == "test"}
    pooled = [
        image for image in images if image.split == "train" and image.patient_id in test_patients
    ]
    left_out = {image.image_id for image in pooled}
    return Cohort(
        images=tuple(image for image in images if image.image_id not in left_out),
        lesions_without_callback=len(everything) - len(kept),
        images_without_callback=len(group(everything)) - len(images),
        pooled_patients=len(
            {lesion.patient_id for lesion in kept if lesion.split == "train"} & test_patients
        ),
        pooled_images=len(pooled),
    )


def assign_splits(images: Sequence[PlannedImage], val_share: float, seed: int) -> dict[str, str]:
    """Return the split of each patient: the official test set, and validation off train.

    Args:
        images: All that the dataset should hold, whether or not there are files.
        val_share: Share of the training patients that go to validation.
        seed: Of the choice.
    """
    strata = {}
    lesions: dict[str, list[Lesion]] = defaultdict(list)
    for image in images:
        lesions[image.patient_id] += image.lesions
    splits = dict.fromkeys(lesions, "train")
    splits.update({image.patient_id: "test" for image in images if image.split == "test"})
    malignant = {image.patient_id for image in images if image.label == "malignant"}
    for patient, shown in lesions.items():
        if splits[patient] == "train":
            label = "malignant" if patient in malignant else "benign"
            findings = "|".join(sorted({lesion.finding for lesion in shown}))
            strata[patient] = (label, findings, str(max(lesion.density for lesion in shown)))
    splits.update(dict.fromkeys(validation_patients(strata, val_share, seed), "val"))
    return splits


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

    def draw(name: str) -> str:
        return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()

    groups: dict[str, dict[Stratum, list[str]]] = defaultdict(lambda: defaultdict(list))
    for patient, stratum in strata.items():
        groups[stratum[0]][stratum].append(patient)
    chosen: set[str] = set()
    for by_stratum in groups.values():
        available = sum(map(len, by_stratum.values()))
        wanted = min(max(round(share * available), 1), available - 1)
        quotas = {
            stratum: wanted * len(patients) / available for stratum, patients in by_stratum.items()
        }
        seats = {stratum: int(quota) for stratum, quota in quotas.items()}
        neediest = sorted(quotas, key=lambda name: (seats[name] - quotas[name], draw(str(name))))
        for stratum in neediest[: wanted - sum(seats.values())]:
            seats[stratum] += 1
        for stratum, patients in by_stratum.items():
            chosen.update(sorted(patients, key=draw)[: seats[stratum]])
    return chosen


def _films(lesions: Sequence[Lesion]) -> list[PlannedImage]:
    images = []
    for (patient, laterality, view), shown in _grouped(
        lesions, lambda lesion: (lesion.patient_id, lesion.laterality, lesion.view)
    ):
        split = "test" if any(lesion.split == "test" for lesion in shown) else "train"
        series = tuple(dict.fromkeys(lesion.mammogram_series for lesion in shown))
        image_id = f"{patient}_{laterality}_{view}"
        images.append(PlannedImage(image_id, "mammogram", split, shown, series))
    return images


def _crops(lesions: Sequence[Lesion]) -> list[PlannedImage]:
    images = []
    for (film, finding, number), shown in _grouped(
        lesions,
        lambda lesion: (
            f"{lesion.patient_id}_{lesion.laterality}_{lesion.view}",
            SHORT[lesion.finding],
            str(lesion.number),
        ),
    ):
        for copy, lesion in enumerate(shown, start=1):
            suffix = f"-{copy}" if copy > 1 else ""
            # Some rows have crop and mask exchanged, and mostly they share a series anyway: the
            # files tell which is which.
            series = tuple(dict.fromkeys((lesion.crop_series, lesion.mask_series)))
            image_id = f"{film}_{finding}_{number}{suffix}"
            images.append(PlannedImage(image_id, "crop", lesion.split, (lesion,), series))
    return images


def _grouped(
    lesions: Sequence[Lesion], key: Callable[[Lesion], tuple[str, str, str]]
) -> list[tuple[tuple[str, str, str], tuple[Lesion, ...]]]:
    """Group lesions, each group with its masses first, then by number; the rows' order is moot."""

    def order(lesion: Lesion) -> tuple[bool, int, str]:
        return lesion.finding != MASS, lesion.number, lesion.crop_series

    ordered = sorted(lesions, key=lambda lesion: (key(lesion), order(lesion)))
    return [(name, tuple(shown)) for name, shown in groupby(ordered, key)]
