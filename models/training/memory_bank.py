"""Fills the memory bank of PatchCore with patches of normal training images; nothing is trained."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.anomaly.patchcore import MemoryBank, coreset
from models.data.loading import EvalTransform
from models.inference import image_logits, run_over
from models.networks import head_name, split_before
from models.registry import LOOKED_AT
from models.run_facts import FitResult, TrainingData
from models.training.objectives import errors_in
from pipeline.progress import Progress


def fill_memory_bank(
    network: nn.Module, data: TrainingData, seed: int, progress: Progress
) -> FitResult:
    """Choose the patches of a PatchCore network's bank, and score the validation images.

    Args:
        network: On its device, its head a `MemoryBank`; changed in place.
        data: Normal training images; validation images, to be scored.
        seed: Of which patches are looked at, and of the first that is chosen.
        progress: Gets the one row of figures.
    """
    started = time.perf_counter()
    kept = keep_patches(network, data.train.images, data.transform, seed, progress)
    with progress.track("Scoring val images", len(data.val), "images") as advance:
        scores = image_logits(network, data.val.images, data.transform, data.compute, advance)
    row: dict[str, Any] = {
        "patches": kept,
        **errors_in(data.val, scores),
        "seconds": round(time.perf_counter() - started, 2),
    }
    progress.row(row, best=True)
    return FitResult([row], row, 0, 0)


def keep_patches(
    network: nn.Module,
    images: NDArray[np.uint8],
    transform: EvalTransform,
    seed: int,
    progress: Progress,
    looked_at: int = LOOKED_AT,
) -> int:
    """Fill the bank of a PatchCore network with patches of images; return how many differ.

    Args:
        network: On its device, its head a `MemoryBank`; changed in place.
        images: (N, S, S) uint8, of normal images.
        transform: Of the network, on its device.
        seed: Of which patches are looked at, and of the first that is chosen.
        progress: Reports.
        looked_at: Patches that those of the bank are chosen of.
    """
    body, head = split_before(network, head_name(network))
    (bank,) = head
    assert isinstance(bank, MemoryBank)
    network.eval()
    device = transform.device
    random = np.random.default_rng(seed)
    each = max(1, -(-looked_at // len(images)))  # patches of an image

    def drawn(batch: torch.Tensor) -> torch.Tensor:
        patches = body(batch).flatten(2).transpose(1, 2)  # (B, h * w, C)
        count = min(each, patches.shape[1])
        places = [random.choice(patches.shape[1], count, replace=False) for _ in batch]
        some = torch.from_numpy(np.stack(places)).to(device)
        chosen: torch.Tensor = patches.gather(1, some[:, :, None].expand(-1, -1, patches.shape[2]))
        return chosen

    with progress.track("Patches of normal images", len(images), "images") as advance:
        found = run_over(drawn, images, transform, advance)
    patches = torch.from_numpy(found.reshape(-1, found.shape[-1])).to(device)
    generator = torch.Generator(device=device).manual_seed(seed)
    with progress.waiting("Choosing the patches to keep ..."):
        bank.bank.copy_(patches[coreset(patches, len(bank.bank), generator)])
    return min(len(patches), len(bank.bank))
