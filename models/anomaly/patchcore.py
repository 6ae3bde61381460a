"""PatchCore: how far each patch of an image is from those of normal images (Roth et al. 2022).

"Towards total recall in industrial anomaly detection", CVPR, p. 14318. Features of two stages of a
network that is never trained are joined; a memory bank keeps a few thousand of those of normal
images. Written here because anomalib, which has it too, brings Lightning, Kornia and its own data
and command line; of the paper, the score's weight by the neighbourhood in the bank is left out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH_STRIDE = 8  # pixels from one patch to the next: of the second stage of a ResNet18
AROUND = 3  # side in cells of the patch whose mean a feature is (Roth et al. 2022, section 3.1)
BANK = 2048  # features that the memory bank keeps
PROJECTED = 128  # dimensions that the bank is chosen in
AT_ONCE = 2**25  # distances that are computed at once, 128 MB


class PatchFeatures(nn.Sequential):
    """A stage of a residual network that gives its input beside its output, as patches.

    Its children keep the names that they have in the network that it is taken from, so that weights
    are found by name.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, C1 + C2, h, w) of (B, C1, h, w): means over patches of both stages."""
        deeper: Tensor = super().forward(maps)  # type: ignore[no-untyped-call]
        parts = [functional.avg_pool2d(one, AROUND, 1, AROUND // 2) for one in (maps, deeper)]
        parts[1] = functional.interpolate(parts[1], size=maps.shape[-2:], mode="bilinear")
        return torch.cat(parts, dim=1)


class MemoryBank(nn.Module):
    """The head of PatchCore: the distance of the most unusual patch to the nearest kept one."""

    bank: Tensor

    def __init__(self, channels: int, size: int = BANK) -> None:
        """Make an empty bank.

        Args:
            channels: Of a patch's features.
            size: Patches that are kept.
        """
        super().__init__()
        self.register_buffer("bank", torch.zeros(size, channels))

    def forward(self, patches: Tensor) -> Tensor:
        """Return (B, 1) scores of (B, C, h, w) patches."""
        return self.distances(patches).flatten(1).amax(1, keepdim=True)

    def distances(self, patches: Tensor) -> Tensor:
        """Return (B, h, w): of each patch to the nearest one of the bank."""
        count, channels, height, width = patches.shape
        flat = patches.permute(0, 2, 3, 1).reshape(-1, channels)  # (B * h * w, C)
        return nearest(flat, self.bank).reshape(count, height, width)


def nearest(patches: Tensor, bank: Tensor) -> Tensor:
    """Return the distance (N,) of each patch (N, C) to the nearest one of a bank (M, C)."""
    lengths = bank.square().sum(1)
    at_once = max(1, AT_ONCE // len(bank))
    # A graph that is exported is of any number of images.
    parts = (patches,) if torch.compiler.is_exporting() else torch.split(patches, at_once)
    found = []
    for some in parts:
        squared = some.square().sum(1, keepdim=True) + lengths - 2 * some @ bank.T
        found.append(squared.amin(1).clamp_min(0).sqrt())
    return torch.cat(found)


def coreset(patches: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the places (size,) of patches that lie near all others: greedy k-centre selection.

    Each next one is the patch that is farthest from those before (Sener & Savarese 2018,
    arXiv:1708.00489), in a random projection to 128 dimensions (Roth et al. 2022, section 3.2).
    Where there are fewer patches than `size`, all are kept, some of them twice.

    Args:
        patches: (N, C) float32.
        size: How many.
        generator: Of the projection and the first patch, on the device of `patches`.
    """
    if len(patches) <= size:
        return torch.arange(size, device=patches.device) % len(patches)
    shape = patches.shape[1], PROJECTED
    directions = torch.randn(shape, generator=generator, device=patches.device)
    points = patches @ directions / PROJECTED**0.5
    chosen = [int(torch.randint(len(points), (1,), generator=generator, device=points.device))]
    away = torch.full((len(points),), torch.inf, device=points.device)
    for _ in range(size - 1):
        away = torch.minimum(away, (points - points[chosen[-1]]).square().sum(1))
        chosen.append(int(away.argmax()))
    return torch.tensor(chosen, device=patches.device)
