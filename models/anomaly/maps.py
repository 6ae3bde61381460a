"""Where in an image an anomaly detector finds its errors: maps in their own unit, not scaled."""

import torch
from torch import Tensor, nn

from models.anomaly.autoencoder import BLACK, Autoencoder
from models.anomaly.patchcore import PATCH_STRIDE, MemoryBank


def error_maps(network: nn.Sequential, images: Tensor) -> Tensor:
    """Return the errors about each pixel of images.

    An autoencoder's are the mean error of the field about each pixel, 0 outside the breast; those
    of PatchCore the distances of the patches about it to the memory bank, outside the breast too:
    a letter beside it raises the score, and that is to be seen.

    Args:
        network: An anomaly detector from `models.networks.build`, in eval mode.
        images: (B, 1, S, S) float32, normalised as the network expects.

    Returns:
        (B, S, S) float32, at least 0, in the unit of the network's score.
    """
    body, head = network[:-1], network[-1]
    if isinstance(head, MemoryBank):
        return enlarged(head.distances(body(images).float()), images.shape[-1])
    return _autoencoder(network).errors(images)


def restored_images(network: nn.Sequential, images: Tensor) -> Tensor:
    """Return (B, S, S) float32 grey values in [0, 1]: images as an autoencoder restores them.

    Background stays black: what comes out there is in no error, so it was never learnt.

    Args:
        network: An autoencoder from `models.networks.build`, in eval mode.
        images: (B, 1, S, S) float32 in [0, 1].
    """
    restored = _autoencoder(network).restore(images).clamp(0, 1)
    return (restored * (images > BLACK))[:, 0]


def enlarged(cells: Tensor, size: int) -> Tensor:
    """Return maps of cells (B, h, w) in the pixels of an image, (B, size, size).

    Cells are joined linearly, each about the pixel where it looks, so that the highest value stays
    what it is. Where they begin is not where resizing an image takes it to be: convolutions of
    stride 2 with odd kernels look at even pixels.
    """
    down, across = (_hats(count, size).to(cells) for count in cells.shape[1:])
    return down @ cells @ across.T


def _hats(count: int, size: int) -> Tensor:
    """Return (size, count) weights of a row of cells in each pixel of a line; they add up to 1."""
    places = (torch.arange(size) / PATCH_STRIDE).clamp(max=count - 1)  # beyond the last, as there
    return (1 - (places[:, None] - torch.arange(count)).abs()).clamp_min(0)


def _autoencoder(network: nn.Sequential) -> Autoencoder:
    body = network[0]
    assert isinstance(body, Autoencoder)
    return body
