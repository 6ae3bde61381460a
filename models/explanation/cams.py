"""Heat-maps: where in an image a network finds evidence of malignancy, or against it.

Grad-CAM, Grad-CAM++ and HiRes-CAM come from the library grad-cam. It gets the part of a network
after the target layer alone: what lies before runs without gradients, so that a map costs little
more than the score.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM
from torch import Tensor, nn

from models.explanation.occlusion import occlusion_maps
from models.inference import Compute, TrainedModel, scoring_batch
from models.networks import split_after
from models.registry import TARGET_LAYERS, TargetLayer
from pipeline.errors import UserError
from pipeline.progress import Advance
from pipeline.stages.explanation import OCCLUSION, OWN_METHOD, SIGNS

Floats = NDArray[np.float32]

CAMS = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "hirescam": HiResCAM}


def heat_maps(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    method: str = OWN_METHOD,
    evidence: str | Sequence[str] = "malignant",
    advance: Advance = lambda _steps: None,
    mirrored: bool = True,
) -> Floats:
    """Return where each image shows evidence of malignancy, or of a benign finding.

    Each map is divided by its own maximum, so its hottest pixel is 1; maps do not compare between
    images. 0 is no evidence, or evidence to the contrary. A map of zeros says that there is no
    evidence of that kind anywhere.

    Methods: "gradcam" (Selvaraju et al. 2017, ICCV), "gradcam++" (Chattopadhay et al. 2018, WACV),
    "hirescam" (Draelos & Carin 2020, arXiv:2011.08891) and "occlusion" (`occlusion_maps`). All
    compute in float32, whatever the precision of `compute`.

    Args:
        model: From `models.inference.load_run`, placed on the device of `compute`. It may be
            frozen, and is left in eval mode and otherwise as it was.
        images: (N, S, S) uint8 in [0, 255], as `models.data.loading.fit_square` gives them.
        compute: Its device.
        method: A key of `CAMS`, or "occlusion", which takes 256 forward passes; "auto" is the one
            of the architecture's target layer.
        evidence: "malignant", for what raises the logit, or "benign", for what lowers it; the same
            for all images, or one for each.
        advance: Called with the number of images done.
        mirrored: Whether the map is the mean of the image's and its mirror image's, mirrored back:
            then that of a mirror image is the mirrored map, and it hits more lesions. Occlusion
            does without.

    Returns:
        (N, S, S) float32 in [0, 1], in the pixels of the images.

    Raises:
        UserError: The network's architecture has no target layer.
    """
    model.network.eval()
    signs = signs_of(evidence, len(images))
    if method == OCCLUSION:
        return occlusion_maps(model, images, compute, signs, advance)
    maps = _cams(model, images, compute, method, signs, advance)
    if not mirrored:
        return maps
    other = np.ascontiguousarray(images[:, :, ::-1])
    return mean_maps([maps, _cams(model, other, compute, method, signs)[:, :, ::-1]])


def _cams(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    method: str,
    signs: Sequence[int],
    advance: Advance = lambda _steps: None,
) -> Floats:
    layer = target_layer(model)
    size = images.shape[-1]
    maps = np.empty(images.shape, np.float32)
    batch, transform = scoring_batch(size), model.transform(compute)
    before, rest = split_after(model.network, layer.unit)
    with _explained(rest, own_method(model, method)) as cells_of:
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            with torch.no_grad():
                activations = before(transform(images[part])).float()  # (B, C, h, w)
            maps[part] = enlarged(cells_of(activations, signs[part]), layer, size)
            advance(len(activations))
    return maps


def own_method(model: TrainedModel, method: str) -> str:
    """Return a method as it is, or that of a network's architecture for "auto"."""
    return target_layer(model).method if method == OWN_METHOD else method


def signs_of(evidence: str | Sequence[str], count: int) -> list[int]:
    """Return 1 for each image whose evidence of malignancy is asked for, else -1."""
    each = [evidence] * count if isinstance(evidence, str) else evidence
    return [SIGNS[one] for one in each]


def target_layer(model: TrainedModel) -> TargetLayer:
    """Return the layer that a network's heat-maps are made of.

    Raises:
        UserError: Its architecture has none.
    """
    name = str(model.facts["architecture"])
    if name not in TARGET_LAYERS:
        known = ", ".join(TARGET_LAYERS)
        raise UserError(f"{name}: has no target layer for heat-maps", f"those with one: {known}")
    return TARGET_LAYERS[name]


class _FromTarget(nn.Module):
    """What follows the target layer; the library watches `activations`, the target layer's."""

    def __init__(self, rest: nn.Module) -> None:
        super().__init__()
        self.activations, self.rest = nn.Identity(), rest

    def forward(self, activations: Tensor) -> Tensor:
        """Return (B, 1) logits of (B, C, h, w)."""
        logits: Tensor = self.rest(self.activations(activations))
        return logits


def _signed(sign: int, logit: Tensor) -> Tensor:
    return sign * logit.squeeze()


@contextmanager
def _explained(rest: nn.Module, method: str) -> Iterator[Callable[[Tensor, Sequence[int]], Floats]]:
    """Let the library watch a part of a network while the block runs.

    Yields:
        A function of activations (B, C, h, w) and the signs of their evidence that gives
        (B, h, w) float32 in [0, 1].
    """
    watched = _FromTarget(rest)
    cam = CAMS[method](watched, [watched.activations])
    # Gradients with respect to activations are all that is needed, and those of weights cost as
    # much again.
    trained = [one for one in rest.parameters() if one.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)

    def cells_of(activations: Tensor, signs: Sequence[int]) -> Floats:
        # The library's own target for one logit is in doubt (its issue 428).
        targets = [partial(_signed, sign) for sign in signs]
        with torch.enable_grad():
            found: Floats = cam(activations.requires_grad_(), targets)
        return found

    try:
        yield cells_of
    finally:
        # Its own context manager prints what goes wrong, and swallows an IndexError.
        cam.activations_and_grads.release()
        for parameter in trained:
            parameter.requires_grad_(True)


def enlarged(cells: Floats, layer: TargetLayer, size: int) -> Floats:
    """Enlarge maps of a layer's cells to an image, each cell about where it looks.

    Cells are joined by a cubic B-spline: it is smooth, so the peak of a map may lie between cells,
    and never negative. Plain resizing would move the maps of most networks by half a cell.

    Args:
        cells: (B, h, w), not negative.
        layer: Whose cells they are.
        size: Of the square image in pixels.

    Returns:
        (B, size, size) float32, each divided by its maximum.
    """
    down, across = (_spline(count, layer, size) for count in cells.shape[1:])
    maps = down @ cells @ across.T  # (B, size, size)
    return normalised(np.maximum(maps, 0, dtype=np.float32))


def _spline(count: int, layer: TargetLayer, size: int) -> Floats:
    """Return (size, count) weights of a row of cells in each pixel of a line; they add up to 1."""
    places = (np.arange(size) - layer.first) / layer.stride
    away = np.abs(places[:, None] - np.arange(count))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6
    weights = np.where(away < 1, near, far)
    weights /= weights.sum(axis=1, keepdims=True)  # beyond the last cell it goes on as that cell
    return np.asarray(weights, np.float32)


def normalised(maps: Floats) -> Floats:
    """Divide each map of (B, H, W), not negative, by its maximum; one of zeros stays."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    divided: Floats = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    return divided


def mean_maps(parts: Sequence[Floats]) -> Floats:
    """Return the mean of several maps (N, H, W) of the same images, divided by its maximum."""
    return normalised(np.mean(parts, axis=0, dtype=np.float32))
