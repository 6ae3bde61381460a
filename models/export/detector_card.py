"""What the model card of an anomaly detector says otherwise than that of a classifier."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.evaluation.calibration import logit
from models.evaluation.operating_point import flagged_normals
from models.registry import AUTOENCODERS
from pipeline.labels import Labels, what_normal_is

TRAINED = {  # by whether it is an autoencoder
    True: "on normal images alone, which it learnt to restore; no label of a lesion was shown",
    False: "none; a memory bank keeps features of patches of normal images",
}
OUTPUT = {
    True: "one error, the mean over the breast of what is not restored; features: the error, the "
    "divergence, the mean code",
    False: "one error, the distance of the most unusual patch to the memory bank; features of the "
    "patches, as a mean",
}
CODE = """known = facts["anomaly"]
z = (error - known["mean"]) / known["sd"]
anomalous = error >= known["threshold"]"""
MIRRORED = "Its error is the mean over the four mirror images of an image, as it was evaluated."
LIMITS = (
    "It says how unusual an image is among those that it learnt from, and not how likely a disease "
    "is: a scar, a marker or another film may be unusual too, and a cancer may look like normal "
    "tissue.",
)


def is_autoencoder(model: Mapping[str, Any]) -> bool:
    """Return whether model.json is of an autoencoder, and not of PatchCore."""
    return model["architecture"] in AUTOENCODERS


def words_of_detector(
    model: Mapping[str, Any], measured: Mapping[str, Any], image: str
) -> dict[str, Any]:
    """Return what the template shows of a detector, as text.

    Args:
        model: Its model.json.
        measured: Its metrics.json.
        image: What one image is, in words.
    """
    known, labels = measured["anomaly"], Labels.recorded(model)
    flagged = flagged_normals(measured)
    return {
        "summary": f"An anomaly detector of mammograms, trained on normal images alone: how far a "
        f"{image} is from normal ones. It is no classifier and says nothing of how likely a "
        "disease is.",
        "normal": what_normal_is(labels, str(model["unit"])),
        "called": "anomalous",
        "chosen": "Thresholds",
        "score": "error",
        "scores": "errors" if measured["aggregate"] == "max" else "errors, on a logistic scale",
        "threshold": f"{known['threshold']:.4g}",
        "flagged": f" {flagged[:1].upper()}{flagged[1:]}." if flagged else "",
        "scale": "Scale of the error",
        "calibration": f"z = (error - {known['mean']:.4g}) / {known['sd']:.4g}: standard "
        f"deviations above the mean of {known['normals'].get('val', 0)} normal validation images.",
        "output": "error",
        "code": CODE,
    }


def error_at(measured: Mapping[str, Any], threshold: float) -> str:
    """Return the error that a threshold of a breast or patient stands for, as text."""
    known = measured["anomaly"]
    return f"{known['mean'] + known['sd'] * float(logit(np.array(threshold))):.4g}"
