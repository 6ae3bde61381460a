"""Starting weights: from ImageNet, from a file, or none."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.networks import head_name
from models.registry import (
    HUB_FILE,
    IMAGENET,
    NO_WEIGHTS,
    cached_weights,
    hub_reachable,
    hub_repository,
)
from pipeline.errors import UserError

WAYS = "run once with a network, or give --weights FILE, or --weights none"
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where checkpoints keep their tensors
PREFIXES = ("module.", "_orig_mod.")  # what data parallelism and torch.compile put before names
COUNTER = "num_batches_tracked"  # absent from old files, and of no effect


def load_weights(network: nn.Module, architecture: str, weights: str) -> str:
    """Put starting weights into a network, in place.

    Args:
        network: From `models.networks.build`.
        architecture: What it was built from.
        weights: "imagenet", "none", or the path of a .safetensors, .pth or .pt file.

    Returns:
        What was done, in one line.

    Raises:
        UserError: The weights cannot be had or read, or fit another architecture.
    """
    if weights == NO_WEIGHTS:
        return "starts from random weights"
    if weights == IMAGENET:
        path = imagenet_file(architecture)
        return f"starts from ImageNet: {fit_state(network, read_state(path), path)}"
    path = Path(weights).expanduser()
    return f"starts from {path.name}: {fit_state(network, read_state(path), path)}"


def imagenet_file(architecture: str) -> Path:
    """Return the file of an architecture's ImageNet weights, fetched if it is not here yet.

    Raises:
        UserError: It is not here and the hub cannot be reached.
    """
    if here := cached_weights(architecture):
        return here
    problem = f"ImageNet weights of {architecture}: not on this machine"
    # Asked first, because the hub's client would try for the better part of a minute.
    if not hub_reachable():
        raise UserError(f"{problem}, and huggingface.co cannot be reached", WAYS)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_repository(architecture), HUB_FILE))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{problem}, and cannot be downloaded ({reason})", WAYS) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, by name.

    A .pth or .pt file is unpickled with `weights_only`, so code in it never runs.

    Raises:
        UserError: The file is missing, damaged, holds code, or holds no tensors.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pth": _read_torch,
        ".pt": _read_torch,
    }
    reader = readers.get(path.suffix.lower())
    if not path.is_file():
        ways = "give an existing file, imagenet or none"
        raise UserError(f"--weights {path}: no such file", ways)
    if reader is None:
        raise UserError(f"{path}: is not a weights file", f"give one of {', '.join(readers)}")
    try:
        found: Any = reader(path)
    except SafetensorError as error:
        raise UserError(f"{path}: is truncated or damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return _tensors(path, found)


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # About pickle protocols: what cannot be read is refused below anyway.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "global" in str(error).lower():
            raise UserError(
                f"{path}: holds pickled code, which is not run",
                "save only its state_dict, or convert it to .safetensors",
            ) from None
        raise UserError(f"{path}: is damaged or not a weights file") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile):
        raise UserError(f"{path}: is truncated or not a weights file") from None


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    tensors = {}
    for name, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(value, Tensor):
            plain = str(name)
            for prefix in PREFIXES:
                plain = plain.removeprefix(prefix)
            tensors[plain] = value
    if not tensors:
        raise UserError(f"{path}: holds no weights")
    if not all(torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
        raise UserError(f"{path}: holds numbers that are not finite")
    return tensors


def fit_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> str:
    """Copy tensors into a network by name.

    The kernels of a first convolution of three colours are summed, which is what a grey image in
    three equal channels would see. The head is taken where it has the same shape.

    Args:
        network: Changed in place.
        state: Tensors by name.
        path: Where they are from, for the message.

    Returns:
        How much was taken, in words.

    Raises:
        UserError: A tensor outside the head is missing or of another shape.
    """
    own = network.state_dict()
    head = f"{head_name(network)}."
    wanted = {name for name in own if not name.startswith(head) and not name.endswith(COUNTER)}
    taken = {
        name: grey
        for name, tensor in state.items()
        if name in own and (grey := _grey(tensor, own[name])).shape == own[name].shape
    }
    if missing := sorted(wanted - set(taken)):
        raise UserError(
            f"{path}: is for another network: {len(wanted) - len(missing)} of {len(wanted)} "
            f"tensors fit, {missing[0]} does not"
        )
    network.load_state_dict(own | taken)
    whole_head = all(name in taken for name in own if name.startswith(head))
    return f"{len(wanted)} tensors, {'with its head' if whole_head else 'the head starts afresh'}"


def _grey(tensor: Tensor, own: Tensor) -> Tensor:
    if tensor.ndim == 4 and own.ndim == 4 and own.shape[1] == 1 and tensor.shape[1] == 3:
        return tensor.sum(dim=1, keepdim=True)  # (F, 3, K, K) -> (F, 1, K, K)
    return tensor
