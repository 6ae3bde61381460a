"""One split's scores with their operating point and what they are worth."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Estimate, estimates
from models.evaluation.operating_point import OperatingPoint
from models.evaluation.units import Unit
from models.metrics import METRICS, OF_PROBABILITIES, PF1, confusion
from pipeline.labels import FEW_POSITIVES, Labels, is_rare
from pipeline.manifest import Row
from pipeline.records import digest

UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))
MOST_FLAGGED = 0.10  # share of normal test images, beyond which too many are flagged
TOO_HIGH = 2.0  # mean probability over prevalence, beyond which probabilities are called too high


@dataclass(frozen=True)
class ScoredSplit:
    """Images, breasts or patients of one split."""

    unit: Unit  # the items with their truth and scores, probabilities of malignancy
    point: OperatingPoint  # the operating point
    estimates: Mapping[str, Estimate]  # of each measure, with its interval
    probabilities: bool = True  # whether its scores are such

    @classmethod
    def of(
        cls,
        unit: Unit,
        point: OperatingPoint,
        replicates: int,
        seed: int,
        probabilities: bool = True,
    ) -> "ScoredSplit":
        """Measure, with intervals from a bootstrap over patients.

        Args:
            unit: What is measured.
            point: Where scores are called malignant.
            replicates: Of the bootstrap.
            seed: Likewise.
            probabilities: Whether the scores are such; else measures of them are left out.
        """
        found = estimates(
            unit.targets, unit.scores, point.threshold, unit.patients, replicates, seed
        )
        if not probabilities:
            found = {**found, **dict.fromkeys(OF_PROBABILITIES, UNKNOWN)}
        return cls(unit, point, found, probabilities)

    @property
    def targets(self) -> NDArray[np.bool_]:
        """(N,), true for malignant."""
        return self.unit.targets

    @property
    def scores(self) -> NDArray[np.float64]:
        """(N,) probabilities of malignancy."""
        return self.unit.scores

    @property
    def both_classes(self) -> bool:
        """Whether it has benign and malignant items."""
        return len(np.unique(self.targets)) > 1

    @property
    def patients(self) -> set[str]:
        """Whose images they are."""
        return set(self.unit.patients)

    @property
    def confusion(self) -> dict[str, int]:
        """The confusion matrix at the operating point, in items."""
        return confusion(self.targets, self.scores, self.point.threshold)

    @property
    def malignant(self) -> int:
        """How many items are malignant (positive)."""
        return int(self.targets.sum())

    @property
    def flagged(self) -> float | None:
        """Share of its normal items that are called malignant; None where it has none."""
        called = self.scores[self.unit.normal] >= self.point.threshold
        return float(called.mean()) if len(called) else None

    @property
    def threshold_text(self) -> str:
        """The operating point as figures have it: a probability, or how far errors lie off."""
        threshold = self.point.threshold
        if self.probabilities or not 0 < threshold < 1:
            return f"{threshold:.3f}"
        return f"{np.log(threshold) - np.log1p(-threshold):+.1f} SD"

    @property
    def rare(self) -> bool:
        """Whether few of its items are positive; see `pipeline.labels.is_rare`."""
        return is_rare(self.malignant, len(self.targets))

    def figures(self, rare: bool = False) -> dict[str, Any]:
        """Return what metrics.json says of it.

        Args:
            rare: Whether few test images are positive: then probabilistic F1 is among it.
        """
        malignant = self.malignant
        return {
            "images": len(self.targets),
            "patients": len(self.patients),
            "benign": len(self.targets) - malignant,
            "malignant": malignant,
            "metrics": {
                name: {part: finite(value) for part, value in asdict(self.estimates[name]).items()}
                for name in (*METRICS, *([PF1] if rare else []))
            },
            "confusion": self.confusion,
        }


def finite(value: float) -> float | None:
    """Return a figure as JSON has it: there is no NaN."""
    return float(value) if np.isfinite(value) else None


def interval_text(low: float, high: float) -> str:
    """Return an interval for people: "0.530 to 0.910", or "-" where there is none."""
    return f"{low:.3f} to {high:.3f}" if np.isfinite(low) and np.isfinite(high) else "-"


def images_digest(rows: Iterable[Row]) -> str:
    """Return a digest of which images these are and what they show, whatever their pixels.

    An image is known by the file that it was made from, where the manifest names that.
    """
    return digest(sorted((row.source_id or row.image_id, row.unit, row.label) for row in rows))


def notes_on_flagged(images: Mapping[str, ScoredSplit]) -> list[str]:
    """Return whether an anomaly detector's threshold flags many normal test images."""
    test = images["test"]
    share = None if test.probabilities else test.flagged
    if share is None or share <= MOST_FLAGGED:
        return []
    return [
        f"{share:.0%} of the {int(test.unit.normal.sum())} normal test images are called "
        "anomalous: give a larger --k, or more normal validation images"
    ]


def notes_on_rarity(images: Mapping[str, ScoredSplit], labels: Labels) -> list[str]:
    """Return what to know of figures where few test images are positive."""
    test = images["test"]
    share = test.malignant / len(test.targets)
    patients = len({one for one, is_one in zip(test.unit.patients, test.targets, strict=True)
                    if is_one})  # fmt: skip
    notes = [
        f"{test.malignant:,} of {len(test.targets):,} test images ({share:.1%}, of {patients} "
        f"patient{'' if patients == 1 else 's'}) are {labels.positive}: calling none of them so "
        f"has an accuracy of {1 - share:.3f}, so accuracy says nothing here; look at PR AUC, by "
        f"chance {share:.3f}{', and at probabilistic F1' if test.probabilities else ''}"
    ]
    if (val := images.get("val")) is None or not test.probabilities:
        return notes
    if val.malignant < FEW_POSITIVES:
        notes.append(
            f"operating point and calibration rest on {val.malignant} {labels.positive} "
            "validation images"
        )
    mean, known = float(val.scores.mean()), val.malignant / len(val.targets)
    # Balanced classes raise logits, which one factor cannot undo; without a positive image
    # isotonic calibration could not either.
    if val.malignant and mean > TOO_HIGH * known:
        notes.append(
            f"probabilities of validation are {mean:.3f} on average, and {known:.3f} of its images "
            f"are {labels.positive}, which lowers probabilistic F1: try --calibration isotonic"
        )
    return notes
