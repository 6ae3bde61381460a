"""Occlusion: what a score loses where part of the image is hidden; slow, without gradients."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.inference import Compute, TrainedModel, image_logits
from pipeline.progress import Advance

GRID = 16  # places in a row, and in a column
PATCH = 2  # side of what is hidden, in steps of the grid: neighbours overlap by half
BLUR = 0.1  # of the side: sigma of the blur that hides a lesion


def occlusion_maps(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    signs: Sequence[int],
    advance: Advance = lambda _steps: None,
) -> NDArray[np.float32]:
    """Return how much of its evidence an image loses where a patch of it is hidden.

    A patch an eighth of the side wide moves over the image in 16 by 16 steps (Zeiler & Fergus 2014,
    ECCV, section 4.2). It shows the blurred image instead of their grey, which in a mammogram would
    be a square of dense tissue.

    Args:
        model: In eval mode, on the device of `compute`.
        images: (N, S, S) uint8 in [0, 255].
        compute: Device and arithmetic; computed in float32.
        signs: (N,) 1 for evidence of malignancy, -1 for that of a benign finding.
        advance: Called with the number of images done.

    Returns:
        (N, S, S) float32 in [0, 1], each divided by its maximum; 0 where hiding raises the score.
    """
    exact = Compute(compute.device, None)
    transform = model.transform(exact)
    maps = np.zeros(images.shape, np.float32)
    for image, heat, sign in zip(images, maps, signs, strict=True):
        patches = _patches(image.shape[0])
        shown = np.repeat(image[None], len(patches) + 1, axis=0)
        hidden = blurred(image)
        for place, patch in enumerate(patches, start=1):
            shown[place][patch] = hidden[patch]
        found = sign * image_logits(model.network, shown, transform, exact)
        counts = np.zeros(image.shape, np.float32)
        for patch, logit in zip(patches, found[1:], strict=True):
            heat[patch] += max(float(found[0] - logit), 0.0)
            counts[patch] += 1
        heat /= counts
        heat /= max(float(heat.max()), np.finfo(np.float32).tiny)
        advance(1)
    return maps


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an (S, S) uint8 image blurred so far that a mass is no longer seen."""
    soft = cv2.GaussianBlur(image, (0, 0), BLUR * image.shape[0])
    return soft.astype(np.uint8, copy=False)


def _patches(size: int) -> list[tuple[slice, slice]]:
    """Return the squares that are hidden in turn; together they cover the image."""
    edges = np.linspace(0, size, GRID + PATCH).round().astype(int)
    spans = [slice(first, last) for first, last in zip(edges, edges[PATCH:], strict=False)]
    return [(down, across) for down in spans for across in spans]
