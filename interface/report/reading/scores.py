"""What evaluation measured, read from metrics.json: figures with intervals, units, strata, cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRIC_NAMES = {
    "auc": "ROC AUC",
    "partial_auc": "Partial AUC",
    "pr_auc": "PR AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity (recall)",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "mcc": "Matthews correlation (MCC)",
    "sensitivity_at_specificity": "Sensitivity at a specificity of 0.90",
    "specificity_at_sensitivity": "Specificity at a sensitivity of 0.90",
    "brier": "Brier score (lower is better)",
    "ece": "Expected calibration error (lower is better)",
    "pf1": "Probabilistic F1 (pF1)",
}
COST_NAMES = {
    "parameters": "Parameters",
    "gflops": "GFLOPs an image",
    "train_minutes": "Training, minutes",
    "images_per_second_1": "Images a second, one at a time",
    "images_per_second_32": "Images a second, 32 at a time",
    "peak_memory_mb": "Peak memory in training, MB",
    "disk_mb": "On disk, MB",
    "device": "Device",
    "precision": "Precision",
}
UNITS = {"image": "images", "breast": "breasts", "patient": "patients"}
FACTORS = {"density": "Breast density", "assessment": "BI-RADS assessment"}
NONE = "\u2013"  # an en dash, where a figure does not exist


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where it does not exist."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def value_text(self) -> str:
        """The figure to three decimals."""
        return NONE if self.value is None else f"{self.value:.3f}"

    @property
    def known(self) -> bool:
        """Whether it has an interval: with few patients there is a figure alone."""
        return self.low is not None and self.high is not None

    @property
    def range_text(self) -> str:
        """Its interval, as all intervals are written: "0.812 to 0.934"."""
        return f"{self.low:.3f} to {self.high:.3f}" if self.known else NONE

    @property
    def in_words(self) -> str:
        """Both in a sentence: "0.900 (95 % interval 0.820 to 0.960)"."""
        if self.value is None:
            return "unknown"
        if not self.known:
            return f"{self.value:.3f} (no interval: too few patients)"
        return f"{self.value:.3f} (95\u00a0% interval {self.range_text})"


UNKNOWN = Interval(None, None, None)


@dataclass(frozen=True)
class Scores:
    """What evaluation measured on one split."""

    images: int  # how many items (images, breasts or patients) were scored
    patients: int  # how many patients they show
    benign: int  # items whose truth is benign
    malignant: int  # items whose truth is malignant
    metrics: Mapping[str, Interval]  # by the names of metrics.json
    confusion: Mapping[str, int]  # tn, fp, fn, tp at the operating point, in items

    @property
    def base_rate(self) -> float | None:
        """The share of malignant items: what guessing reaches as PR AUC."""
        return self.malignant / self.images if self.images else None

    def of(self, metric: str) -> Interval:
        """Return a metric; without figures where it was not measured."""
        return self.metrics.get(metric, UNKNOWN)


@dataclass(frozen=True)
class UnitScores:
    """Images, breasts or patients at their operating point."""

    threshold: float  # the operating point, a probability in [0, 1]
    rule: str  # how it was chosen on validation
    splits: Mapping[str, Scores]  # "test", and "val" where there is one


@dataclass(frozen=True)
class Stratum:
    """The test images of one level of one factor."""

    factor: str
    level: str
    images: int
    patients: int
    malignant: int
    auc: Interval
    small: bool


def number(value: Any) -> float | None:
    """Return a finite figure, or None."""
    return float(value) if value is not None and math.isfinite(float(value)) else None


def interval_of(data: Mapping[str, Any]) -> Interval:
    """Read {"value", "low", "high"}."""
    return Interval(*(number(data.get(part)) for part in ("value", "low", "high")))


def scores_of(data: Mapping[str, Any]) -> Scores:
    """Read the figures of one split."""
    return Scores(
        images=int(data["images"]),
        patients=int(data["patients"]),
        benign=int(data["benign"]),
        malignant=int(data["malignant"]),
        metrics={name: interval_of(item) for name, item in data["metrics"].items()},
        confusion={cell: int(data["confusion"][cell]) for cell in ("tn", "fp", "fn", "tp")},
    )


def units_of(measured: Mapping[str, Any]) -> dict[str, UnitScores]:
    """Read metrics.json by unit; its images stand at the top of it, the others under "units"."""
    point = measured["operating_point"]
    found = {"image": {**point, "splits": measured["splits"]}, **measured["units"]}
    return {
        unit: UnitScores(
            threshold=float(found[unit]["threshold"]),
            rule=str(found[unit]["rule"]),
            splits={
                split: scores_of(found[unit]["splits"][split])
                for split in ("val", "test")
                if split == "test" or split in found[unit]["splits"]
            },
        )
        for unit in UNITS
    }


def strata_of(measured: Mapping[str, Any]) -> Sequence[Stratum]:
    """Read the strata of the test images."""
    return [
        Stratum(
            factor=FACTORS.get(item["factor"], str(item["factor"]).capitalize()),
            level=str(item["level"]),
            images=int(item["images"]),
            patients=int(item["patients"]),
            malignant=int(item["malignant"]),
            auc=interval_of(item["auc"]),
            small=bool(item["small"]),
        )
        for item in measured["strata"]
    ]
