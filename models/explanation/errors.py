"""Error maps of anomaly detectors, and the one scale that all maps of a run are drawn on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.anomaly import maps
from models.inference import Compute, TrainedModel, run_over
from models.registry import AUTOENCODERS
from pipeline.progress import Advance
from pipeline.records import read_json

Errors = NDArray[np.float32]  # (N, S, S), at least 0, in the unit of the detector's score
Masks = NDArray[np.bool_]  # (N, S, S)

FOLDER, SCORED = "explanations", "explanations.json"  # in the folder of a run; its figures
LIMIT = 0.999  # quantile of the errors of normal images up to which a colour is a background's
LEAST_SPAN = 1e-12  # of a scale, where normal images have no errors at all
RESTORED_ERRORS, PATCH_DISTANCES = "restored", "patches"  # what explanations.json calls the maps


@dataclass(frozen=True)
class ErrorScale:
    """What an error looks like on any map of a run: one scale for all images.

    Maps that are each divided by their own maximum make normal images glow, whose largest error is
    small. Here the scale comes from pixels inside the breast of normal validation images alone: it
    begins at their median error and its middle is their 99.9 % quantile, the limit. So the colours
    of its lower half are those of normal images, and what goes beyond the limit glows. It ends as
    far above the limit as that lies above the median; larger errors look as its end does.
    """

    median: float  # error of pixels of normal images
    limit: float  # quantile LIMIT of them
    images: int  # normal validation images that they are of

    @classmethod
    def of(cls, errors: Errors, breasts: Masks) -> "ErrorScale":
        """Measure (N, S, S) maps of normal images inside their breasts (N, S, S)."""
        median, limit = np.quantile(errors[breasts], (0.5, LIMIT))
        return cls(float(median), max(float(limit), float(median) + LEAST_SPAN), len(errors))

    @classmethod
    def recorded(cls, scale: Mapping[str, Any] | None) -> "ErrorScale | None":
        """Read what explanations.json has under "scale"; None of a classifier's heat-maps."""
        return None if scale is None else cls(scale["median"], scale["limit"], scale["images"])

    @property
    def record(self) -> dict[str, float]:
        """What explanations.json says of it."""
        return {**asdict(self), "quantile": LIMIT, "top": self.top}

    @property
    def top(self) -> float:
        """The error at its end."""
        return 2 * self.limit - self.median

    def heat(self, errors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return how hot errors of any shape are drawn, float32 in [0, 1]; 0.5 at the limit."""
        place = (errors - self.median) / (self.top - self.median)
        return np.asarray(np.clip(place, 0, 1), np.float32)


def error_scale(run_folder: Path) -> ErrorScale | None:
    """Return the scale that the maps of an explained detector are drawn on.

    Args:
        run_folder: Of a run.

    Returns:
        The one that `explain` measured; None where the run is not explained, or no detector.

    Raises:
        UserError: What explain wrote is damaged.
    """
    path = run_folder / FOLDER / SCORED
    return ErrorScale.recorded(read_json(path).get("scale")) if path.is_file() else None


def error_maps(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    advance: Advance = lambda _steps: None,
) -> Errors:
    """Return the error of an anomaly detector about each pixel; see `models.anomaly.maps`.

    Args:
        model: From `models.inference.load_run`, placed on the device of `compute`; a detector.
        images: (N, S, S) uint8 in [0, 255], as `models.data.loading.fit_square` gives them.
        compute: Its device; computed in float32.
        advance: Called with the number of images done.

    Returns:
        (N, S, S) float32, at least 0, in the unit of the score: maps compare between images.
    """
    return _over(maps.error_maps, model, images, compute, advance)


def restored_images(
    model: TrainedModel, images: NDArray[np.uint8], compute: Compute
) -> NDArray[np.float32]:
    """Return (N, S, S) float32 in [0, 1]: images (N, S, S) uint8 as an autoencoder restores them.

    Args:
        model: From `models.inference.load_run`, placed on the device of `compute`; one that
            `restores` images.
        images: As those of `error_maps`.
        compute: Its device.
    """
    return _over(maps.restored_images, model, images, compute)


def restores(model: TrainedModel) -> bool:
    """Return whether a model is an autoencoder, which gives images back."""
    return str(model.facts["architecture"]) in AUTOENCODERS


def kind_of_map(model: TrainedModel) -> str:
    """Return what explanations.json calls a detector's maps."""
    return RESTORED_ERRORS if restores(model) else PATCH_DISTANCES


def _over(
    function: Any,
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    advance: Advance = lambda _steps: None,
) -> Errors:
    network = model.network
    assert isinstance(network, nn.Sequential)
    network.eval()

    def made(batch: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = function(network, batch)
        return found

    return run_over(made, images, model.transform(compute), advance)
