"""Calibration: from logits to probabilities that are as often right as they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metrics import Floats
from pipeline.errors import UserError

METHODS = ("temperature", "isotonic", "none")
NORMALS = "normals"  # that of anomaly detectors
TEMPERATURES = (0.01, 100.0)
LARGEST = 1 - 2**-53  # the float64 below one: its logit is finite, and so is that of 1 - it
LEAST_NORMAL = 2  # images: of fewer, errors have no standard deviation


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities; its facts are all that a run needs to keep of it.

    The errors of an anomaly detector become no probabilities of a disease: numbers in (0, 1) whose
    logit says how many standard deviations an error lies above the mean of normal images.
    """

    method: str  # one of `METHODS`, or `NORMALS`
    temperature: float | None = None  # what logits are divided by; None but for that method
    # Probabilities before isotonic calibration, rising; empty but for that method.
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()  # what they become, never falling; between them it goes straight
    # Mean and standard deviation of the errors of normal images; None but for `NORMALS`.
    normal: tuple[float, float] | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Calibration":
        """Return what `facts` were written of."""
        knots = tuple(facts["x"]), tuple(facts["y"])
        normal = facts.get("normal")
        own = None if normal is None else (float(normal[0]), float(normal[1]))
        return cls(str(facts["method"]), facts["temperature"], *knots, own)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        found: dict[str, Any] = {"method": self.method, "temperature": self.temperature,
                                 "x": list(self.x), "y": list(self.y)}  # fmt: skip
        return found | ({"normal": list(self.normal)} if self.normal else {})

    def apply(self, logits: NDArray[Any]) -> Floats:
        """Return probabilities (N,) float64 in [0, 1] of logits (N,)."""
        if self.normal is not None:
            return logistic(self.deviations(logits))
        if self.temperature is not None:
            return logistic(logits.astype(np.float64) / self.temperature)
        found = logistic(logits)
        # Beyond the knots it stays at the outermost one.
        return np.interp(found, self.x, self.y) if self.method == "isotonic" else found

    def deviations(self, errors: NDArray[Any]) -> Floats:
        """Return by how many standard deviations (N,) errors lie above the mean of normal images.

        Raises:
            ValueError: It is that of a classifier.
        """
        if self.normal is None:
            raise ValueError(f"a calibration by {self.method} knows no errors")
        mean, sd = self.normal
        return (errors.astype(np.float64) - mean) / sd


def logistic(logits: NDArray[Any]) -> Floats:
    """Return the logistic function of (N,) logits, float64 in [0, 1]."""
    # By tanh, which does not overflow where exp of a large logit does.
    result: Floats = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
    return result


def logit(scores: NDArray[Any]) -> Floats:
    """Return the inverse of the logistic function of (N,) scores in [0, 1]; finite for 0 and 1."""
    known = np.clip(scores.astype(np.float64), 1 - LARGEST, LARGEST)
    result: Floats = np.log(known) - np.log1p(-known)
    return result


def fit_calibration(method: str, targets: NDArray[np.bool_], logits: NDArray[Any]) -> Calibration:
    """Fit a calibration on validation.

    Args:
        method: One of `METHODS`.
        targets: (N,) of validation, true for malignant.
        logits: (N,), finite.

    Returns:
        The calibration: "none" where validation lacks a class.
    """
    if method not in METHODS:
        raise ValueError(f"{method!r} is none of {', '.join(METHODS)}")
    if method == "none" or len(np.unique(targets)) < 2:
        return Calibration("none")
    if method == "temperature":
        return Calibration("temperature", _temperature(targets, logits.astype(np.float64)))
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    steps.fit(logistic(logits), targets.astype(np.float64))
    x, y = steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist()
    return Calibration("isotonic", None, tuple(x), tuple(y))


def fit_normals(normal: NDArray[np.bool_], errors: NDArray[Any]) -> Calibration:
    """Measure the errors of an anomaly detector on normal validation images.

    Args:
        normal: (N,), true for normal images.
        errors: (N,) scores of the detector.

    Raises:
        UserError: They are too few, or all the same.
    """
    known = errors[normal].astype(np.float64)
    if len(known) < LEAST_NORMAL:
        raise UserError(
            f"validation holds {len(known)} normal images, and {LEAST_NORMAL} are needed to set a "
            "threshold by their errors",
            "evaluate on data with more of them",
        )
    sd = float(known.std(ddof=1))
    if not sd > 0:
        raise UserError(
            f"all {len(known)} normal validation images have the same error, "
            f"{known[0]:.3g}, so no threshold can be set by their scatter",
            "look at the images: are they constant?",
        )
    return Calibration(NORMALS, normal=(float(known.mean()), sd))


def _temperature(targets: NDArray[np.bool_], logits: Floats) -> float:
    """Return the temperature of the smallest mean log loss (Guo et al. 2017, ICML 70:1321).

    The loss is taken against Platt's targets, (n + 1) / (n + 2) for n malignant images and
    1 / (n + 2) for n benign ones, as if one image of the other class had been seen (Platt 1999,
    Advances in Large Margin Classifiers, p. 61). Without that, logits that part the classes
    perfectly, as those of a few dozen images do, would get a temperature of 0 and thereby
    probabilities of 0 and 1.
    """
    from scipy.optimize import minimize_scalar

    malignant = np.count_nonzero(targets)
    benign = len(targets) - malignant
    wanted = np.where(targets, (malignant + 1) / (malignant + 2), 1 / (benign + 2))

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - wanted * scaled))

    # Over the logarithm: dividing logits by 0.5 and by 2 are steps of the same size.
    found = minimize_scalar(
        loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-9}
    )
    # Where nothing is gained, as by logits that are all 0, they stay what they are.
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
