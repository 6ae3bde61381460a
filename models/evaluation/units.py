"""What a score is of: a single image, a breast or a patient, by the scores of its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.labels import is_normal
from pipeline.manifest import Row

UNITS = ("image", "breast", "patient")
_KEYS: dict[str, Callable[[Row], tuple[str, ...]]] = {
    "image": lambda row: (row.image_id,),
    "breast": lambda row: (row.patient_id, row.laterality),
    "patient": lambda row: (row.patient_id,),
}


@dataclass(frozen=True)
class Unit:
    """Images, breasts or patients with their truth and their scores."""

    keys: list[str]  # what each is called, N of them: image_id, "P_00001 LEFT" or patient_id
    patients: list[str]  # the patient of each
    targets: NDArray[np.bool_]  # (N,), true for malignant
    scores: NDArray[np.float64]  # (N,) probabilities of malignancy
    normal: NDArray[np.bool_]  # (N,), true where all images are normal


def grouped(rows: Sequence[Row], scores: NDArray[np.float64], unit: str, how: str) -> Unit:
    """Put the images of each breast or patient together.

    A breast or a patient is malignant (positive) where any of its images is.

    Args:
        rows: One for each image, M of them.
        scores: (M,) probabilities of malignancy.
        unit: One of `UNITS`.
        how: "max" or "mean" of the images' scores.

    Returns:
        The units in the order in which they first appear among the images.
    """
    places: dict[tuple[str, ...], int] = {}
    index = np.array([places.setdefault(_KEYS[unit](row), len(places)) for row in rows], np.intp)
    normal = np.ones(len(places), np.bool_)
    normal[index[[not is_normal(row) for row in rows]]] = False
    first = np.unique(index, return_index=True)[1]
    targets = np.zeros(len(places), np.bool_)
    targets[index[[row.is_positive for row in rows]]] = True
    if how == "mean":
        found = np.bincount(index, scores, len(places)) / np.bincount(index, minlength=len(places))
    elif how == "max":
        found = np.full(len(places), -np.inf)
        np.maximum.at(found, index, scores)
    else:
        raise ValueError(f"scores are put together by max or mean, not by {how!r}")
    patients = [rows[place].patient_id for place in first]
    return Unit([" ".join(filter(None, key)) for key in places], patients, targets, found, normal)
