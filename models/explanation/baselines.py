"""Maps that know nothing of a model's training: what a heat-map has to be better than."""

import copy

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from images.borders import find_border_box
from images.breast import breast_mask
from images.files import SPREAD
from models.anomaly.patchcore import BANK
from models.inference import Compute, TrainedModel, place
from models.networks import build
from models.registry import PATCH_DISTANCE, Head
from models.training.memory_bank import keep_patches
from pipeline.progress import Silent

Heat = NDArray[np.float32]  # (S, S) in [0, 1]
Mask = NDArray[np.bool_]  # (S, S)

LOOKED_AT = 2 * BANK  # patches of normal images that an untrained PatchCore keeps half of
WIDTH = 0.25  # of the square root of the breast's area: sigma of the blob
# Untrained networks that are looked at. What one draw of weights finds bright is chance: of eight,
# seven hit 0 to 16 % of a collection's lesions and one hit 51 %.
DRAWS = 3
# By name, as tables call them.
BASELINES = {"blob": "Centred blob", "breast": "Breast mask", "untrained": "Untrained network"}


def breast_in(image: NDArray[np.uint8]) -> Mask:
    """Return where the breast is in an (S, S) uint8 image; everywhere where none is found."""
    grey = image.astype(np.uint16) * SPREAD
    box = find_border_box(grey)  # what fills the image up to a square is no part of the film
    found = np.zeros(image.shape, np.bool_)
    box.of(found)[...] = breast_mask(np.ascontiguousarray(box.of(grey)))
    return found if found.any() else np.ones(image.shape, np.bool_)


def blob_in(breast: Mask) -> Heat:
    """Return a round blob about the centre of gravity of the breast, (S, S) float32 in [0, 1]."""
    moments = cv2.moments(breast.view(np.uint8), binaryImage=True)
    x, y = (moments[name] / moments["m00"] for name in ("m10", "m01"))
    sigma = WIDTH * np.sqrt(moments["m00"])
    rows, columns = np.ogrid[: breast.shape[0], : breast.shape[1]]
    heat = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    # The pixel beside the centre of gravity falls short of 1.
    return np.asarray(heat / heat.max(), np.float32)


def untrained(model: TrainedModel, compute: Compute, seed: int, draw: int = 0) -> TrainedModel:
    """Return a model with a network of the same architecture and random weights, on the device.

    No training starts from these weights, whatever its seed: a network that was trained for a
    short time from random weights is still close to them, so its maps would look alike.

    Args:
        model: Whose architecture it is.
        compute: The device.
        seed: Of the weights.
        draw: Tells apart networks of one seed.
    """
    drawn = int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])
    head = Head.recorded(model.facts)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(drawn)
        network = build(str(model.facts["architecture"]), head).eval()
    place(network, compute)
    return TrainedModel(network, model.facts)


def without_weights(
    model: TrainedModel, normals: NDArray[np.uint8], compute: Compute, seed: int, draw: int = 0
) -> TrainedModel:
    """Return what the maps of a model are held against: all of it but what was learnt.

    Beside random weights a PatchCore has patches of normal images. With an empty bank its maps
    would be those of the length of features.

    Args:
        model: Of the run.
        normals: (N, S, S) uint8, normal validation images.
        compute: Device and arithmetic.
        seed: Of the weights, and of the patches.
        draw: Tells apart networks of one seed.
    """
    blank = untrained(model, compute, seed, draw)
    if Head.recorded(model.facts).error == PATCH_DISTANCE:
        transform = model.transform(compute)
        keep_patches(blank.network, normals, transform, seed, Silent(), LOOKED_AT)
    return blank


def copied(model: TrainedModel) -> TrainedModel:
    """Return a model whose network may be changed."""
    return TrainedModel(copy.deepcopy(model.network), model.facts)
