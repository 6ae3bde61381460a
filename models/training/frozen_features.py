"""What the frozen layers of a network give for each image: computed once, kept, mapped into memory.

Everything before the first trained unit is in eval mode and is not trained, so its output is a
function of the image alone. It is kept beside the dataset under a name that is a digest of all
that it depends on: weights, images, normalisation, arithmetic, augmentation, code.
"""

import contextlib
import hashlib
import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from images import augmentation
from images.jobs import code_digest
from models import networks
from models.data import loading
from models.data.loading import EvalTransform, Split, to_device
from models.distributed import rank_zero_first
from models.inference import Compute, scoring_batch
from pipeline.leftovers import remove_left_over
from pipeline.progress import Progress
from pipeline.records import atomic, digest
from pipeline.resources.places import CACHE, FROZEN

RESERVE = 2**29  # bytes of the disk that are left free, for weights and figures
Images = Callable[[NDArray[np.int64]], Tensor]  # indices -> (B, 1, S, S) float32
Array = NDArray[np.float32] | NDArray[np.int16]


class Features:
    """The output of the frozen layers for the images of a split; an index gives a tensor."""

    def __init__(self, values: Array, device: torch.device) -> None:
        """Take (N, F) or (N, H, W, C) values: float32, or int16 that holds bfloat16."""
        self._values, self._device = values, device

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor:
        """Return (B, F), or (B, C, H, W) stored channels last; on a GPU of Apple channels first."""
        found = to_device(np.take(self._values, indices, axis=0), self._device)
        if found.dtype is torch.int16:
            found = found.view(torch.bfloat16)
        found = found.permute(0, 3, 1, 2) if found.ndim == 4 else found
        return found.contiguous() if self._device.type == "mps" else found


class FrozenLayers:
    """The layers of a network before the first trained one, and the outputs that are kept."""

    def __init__(self, data: Path, network: nn.Module, trained_from: str, compute: Compute) -> None:
        """Take a network that has its starting weights.

        Args:
            data: The dataset; its cache holds the outputs.
            network: On its device; the layers are its own, not copies.
            trained_from: The first unit that is trained.
            compute: Device and arithmetic.
        """
        self.layers, _ = networks.split_before(network, trained_from)
        self._compute = compute
        self._place = data / CACHE / FROZEN
        weights = hashlib.blake2b(digest_size=16)
        for name, value in self.layers.state_dict().items():
            weights.update(name.encode())
            weights.update(value.detach().cpu().contiguous().numpy().tobytes())
        arithmetic = compute.device.type, compute.precision, torch.__version__
        self._key = digest(weights.hexdigest(), str(self.layers), arithmetic, _code())

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) or (B, F) of (B, 1, S, S) float32 images, without gradients."""
        enabled = self._compute.dtype is not None
        with (
            torch.no_grad(),
            torch.autocast(images.device.type, dtype=self._compute.dtype, enabled=enabled),
        ):
            result: Tensor = self.layers.eval()(images)
        return result

    def features(
        self,
        split: Split,
        images: Images,
        transform: EvalTransform,
        variant: object,
        text: str,
        progress: Progress,
    ) -> Features:
        """Return the output for every image of a split, from the disk where it is kept.

        Args:
            split: The images.
            images: Makes the network's input of some of them.
            transform: What `images` uses, for the name.
            variant: Names the augmentation of `images`, for the name; None without.
            text: What is being done, for the bar.
            progress: Where it reports.
        """
        # By content, not by path or time: a dataset that was moved or touched is still the same.
        content = hashlib.blake2b(digest_size=16)
        for image in split.images:
            content.update(image.data)
        names = [row.image_id for row in split.rows] if variant is not None else []
        scale = transform.mean, transform.std, split.images.shape[1]
        name = digest(self._key, content.hexdigest(), scale, variant, names)
        path = self._place / f"{name}.npy"
        # Rank zero fills the cache, the others map what it wrote.
        values = rank_zero_first(lambda: self._values(path, split, images, text, progress))
        return Features(values, self._compute.device)

    def _values(
        self, path: Path, split: Split, images: Images, text: str, progress: Progress
    ) -> Array:
        values = _opened(path)
        if values is None:
            try:
                values = self._keep(path, split, images, text, progress)
            except OSError as error:  # no right to write, a full disk
                reason = error.strerror or error
                progress.say(f"{self._place}: cannot be used, so it goes to memory ({reason})")
                values = np.concatenate(list(self._outputs(split, images, text, progress)))
        return values

    def _outputs(
        self, split: Split, images: Images, text: str, progress: Progress
    ) -> Iterator[Array]:
        batch = scoring_batch(split.images.shape[1])
        with progress.track(text, len(split), "images") as advance:
            for start in range(0, len(split), batch):
                indices = np.arange(start, min(start + batch, len(split)))
                output = self(images(indices))
                if output.ndim == 4:
                    output = output.permute(0, 2, 3, 1)  # (B, H, W, C)
                output = output.contiguous()
                if output.dtype is torch.bfloat16:
                    output = output.view(torch.int16)  # numpy has no bfloat16
                yield output.cpu().numpy()
                advance(len(indices))

    def _keep(
        self, path: Path, split: Split, images: Images, text: str, progress: Progress
    ) -> Array:
        """Write the outputs batch by batch, never more than one in memory, and map them."""
        self._place.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary, temporary.open("wb") as file:
            for first, values in enumerate(self._outputs(split, images, text, progress)):
                if not first:
                    shape = len(split), *values.shape[1:]
                    self._make_room(int(np.prod(shape)) * values.itemsize)
                    layout = {
                        "descr": values.dtype.str, "fortran_order": False, "shape": shape,
                    }  # fmt: skip
                    np.lib.format.write_array_header_1_0(file, layout)
                file.write(values.data)
        kept = _opened(path)
        if kept is None:
            raise OSError(f"{path} cannot be read back")
        return kept

    def _make_room(self, size: int) -> None:
        """Remove what killed runs left and, where the disk is short, what was used longest ago."""
        remove_left_over(self._place)
        by_use = sorted(self._place.glob("[!.]*.npy"), key=lambda one: one.stat().st_mtime)
        for path in by_use:
            if shutil.disk_usage(self._place).free >= size + RESERVE:
                break
            with contextlib.suppress(OSError):
                path.unlink()
        if shutil.disk_usage(self._place).free < size + RESERVE:
            raise OSError(f"the disk has no room for {size / 1e6:,.0f} MB")


def _opened(path: Path) -> Array | None:
    """Map a file of outputs into memory and note that it was used; None where there is none."""
    try:
        # As a plain array: indexing a memmap object costs more than the copy that it makes.
        values: Array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):
        path.touch()
    return values


@cache
def _code() -> str:
    """Return a digest of the code behind the outputs: an older version's are made again."""
    files = __file__, *(one.__file__ for one in (augmentation, loading, networks))
    made_with = [importlib.metadata.version(name) for name in ("albumentations", "timm")]
    return digest(code_digest(*files), made_with)
