"""How well each kind of image is classified: by finding, density, view and the like."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import (
    Estimate,
    enough_patients,
    fewest_patients,
    patient_weights,
    tail_of,
    with_interval,
)
from models.evaluation.scored import finite
from models.metrics import Floats, aucs
from pipeline.manifest import Row

MASS, CALCIFICATION = "mass", "calcification"
SEVERAL = "several"  # of an image whose lesions differ
UNSTATED = "not stated"
YOUNGEST, OLDEST = 40, 80  # years: the decades of screening, by which ages are told apart
NORMAL = "none"  # of a finding, where the dataset says that there is none
FEW = 10  # malignant or benign images, below which an AUC says little


def _of_image(column: str) -> Callable[[Row], list[str] | None]:
    def values(row: Row) -> list[str]:
        value = getattr(row, column)
        return [] if value is None else str(value).split("|")

    return values


def _of_lesions(column: str, finding: str) -> Callable[[Row], list[str] | None]:
    """Return what gives the values of the lesions of one kind; None for an image without any."""

    def values(row: Row) -> list[str] | None:
        found = row.finding.split("|")
        if finding not in found:
            return None
        listed = getattr(row, column).split("|")
        if len(found) == 1:
            return list(listed)
        # "mass 1|calcification 1": which lesion is what.
        kinds = [name.rpartition(" ")[0] for name in row.abnormality.split("|")]
        return [value for kind, value in zip(kinds, listed, strict=False) if kind == finding]

    return values


def _of_age(row: Row) -> list[str]:
    """Return the decade of a patient's age, those below and above screening ages together."""
    if row.age is None:
        return []
    if row.age < YOUNGEST:
        return [f"{YOUNGEST - 1} and under"]
    if row.age >= OLDEST:
        return [f"{OLDEST} and over"]
    decade = row.age // 10 * 10
    return [f"{decade} to {decade + 9}"]


def _findings(row: Row) -> list[str]:
    return [NORMAL] if row.diagnosis == "normal" and not row.finding else row.finding.split("|")


FACTORS = {
    "collection": _of_image("collection"),
    "finding": _findings,
    "density": _of_image("density"),
    "view": _of_image("view"),
    "laterality": _of_image("laterality"),
    "subtlety": _of_image("subtlety"),
    "assessment": _of_image("assessment"),
    "mass shape": _of_lesions("shape", MASS),
    "mass margins": _of_lesions("margins", MASS),
    "calcification type": _of_lesions("shape", CALCIFICATION),
    "calcification distribution": _of_lesions("margins", CALCIFICATION),
    "age": _of_age,
    **{column: _of_image(column) for column in ("implant", "site", "machine")},
}


def strata(rows: Sequence[Row], scores: Floats, replicates: int, seed: int) -> list[dict[str, Any]]:
    """Return the area under the ROC curve of each stratum, with its 95 % interval.

    The patients of all images are drawn, once for all strata, so that a stratum's size varies
    from replicate to replicate as it would from sample to sample.

    Args:
        rows: One for each image, N of them.
        scores: (N,), higher is more suspicious.
        replicates: Of the bootstrap over patients.
        seed: Of the bootstrap.

    Returns:
        For each level of each factor that the images have: factor, level, images, patients,
        malignant (images), auc (value, low, high; each None where it does not exist) and small,
        which is true with fewer than `FEW` malignant or benign images.
    """
    found = [(factor, level, members) for factor in FACTORS
             for level, members in levels(rows, factor)]  # fmt: skip
    targets = np.array([row.is_positive for row in rows], np.bool_)
    patients = np.array([row.patient_id for row in rows], np.str_)
    drawn: list[list[Floats]] = [[] for _ in found]
    for weights in patient_weights(patients.tolist(), replicates, seed) if found else ():
        for areas, (_, _, members) in zip(drawn, found, strict=True):
            areas.append(aucs(targets[members], scores[members], weights[:, members]))
    return [
        {
            "factor": factor,
            "level": level,
            **_figures(targets[members], patients[members], scores[members], areas),
        }
        for (factor, level, members), areas in zip(found, drawn, strict=True)
    ]


def levels(rows: Sequence[Row], factor: str) -> list[tuple[str, NDArray[np.intp]]]:
    """Return each level of a factor with the places of its images; none where nothing is stated."""
    levels: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        values = FACTORS[factor](row)
        if values is not None:
            stated = sorted({value for value in values if value})
            level = SEVERAL if len(stated) > 1 else (stated or [UNSTATED])[0]
            levels.setdefault(level, []).append(place)
    last = [name for name in (SEVERAL, UNSTATED) if name in levels]
    if set(levels) <= {UNSTATED}:
        return []
    names = [*sorted(set(levels) - set(last), key=_in_order), *last]
    return [(name, np.array(levels[name], np.intp)) for name in names]


def _in_order(level: str) -> tuple[int, str]:
    """Sort numbers of machines by their value."""
    return len(level) if level.isdecimal() else 0, level


def _figures(
    targets: NDArray[np.bool_], patients: NDArray[np.str_], scores: Floats, areas: list[Floats]
) -> dict[str, Any]:
    value = float(aucs(targets, scores, np.ones((1, len(scores))))[0])
    estimate = Estimate(value, float("nan"), float("nan"))
    # Few patients would give an interval of no width at all, which looks like certainty.
    if enough_patients(targets, patients):
        tail = tail_of(fewest_patients(targets, patients))
        estimate = with_interval(value, np.concatenate(areas), tail)
    malignant = int(np.count_nonzero(targets))
    return {
        "images": len(targets),
        "patients": len(np.unique(patients)),
        "malignant": malignant,
        "auc": {part: finite(figure) for part, figure in asdict(estimate).items()},
        "small": min(malignant, len(targets) - malignant) < FEW,
    }  # fmt: skip
