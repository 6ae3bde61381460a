"""Starting weights: from ImageNet, from a file, or none."""

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.networks import head_name
from models.pretrained import HUB_FILE, cached_weights, hub_repository, refuse_missing
from models.registry import IMAGENET, NO_WEIGHTS
from models.weight_files import AVERAGED, COUNTERS, plain_name, timm_names, unwrap
from pipeline.errors import UserError

WAYS = "run once with a network, or give --weights FILE, or --weights none"
TORCH_STARTS = (b"PK", b"\x80")  # of a zip archive, and of the pickles of torch before 1.6
PLAIN_PICKLES = (b"\x80\x04", b"\x80\x05")  # protocols that torch neither writes nor reads
AGAIN = "download or copy it again"
ONLY = "save only its state_dict, or convert it to .safetensors"
NAMES_SHOWN = 2


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds."""

    path: Path  # the file
    tensors: dict[str, Tensor]  # by timm's names, in the order of the file
    file_names: dict[str, str]  # what the file calls each of them
    wrapper: str  # the keys that led to them inside the file; empty for none


def load_weights(network: nn.Module, architecture: str, weights: str) -> str:
    """Put starting weights into a network, in place.

    A file is one that timm, torchvision or this tool saved. It cannot tell how its network was
    padded nor the epsilon of its batch norm: timm's tf_ variants have the same names as the
    others, and see a slightly different network here.

    Args:
        network: From `models.networks.build`.
        architecture: What it was built from.
        weights: "imagenet", "none", or the path of a .safetensors, .pth or .pt file.

    Returns:
        What was done, in one line that accounts for every tensor of the file.

    Raises:
        UserError: The weights cannot be had or read, or fit another architecture.
    """
    if weights == NO_WEIGHTS:
        return "starts from random weights"
    named = weights == IMAGENET
    path = imagenet_file(architecture) if named else Path(weights).expanduser()
    fitted = fit_state(network, architecture, read_state(path))
    return f"starts from {'ImageNet' if named else path.name}: {fitted}"


def imagenet_file(architecture: str) -> Path:
    """Return the file of an architecture's ImageNet weights, fetched if it is not here yet.

    Raises:
        UserError: It is not here and the hub cannot be reached.
    """
    if here := cached_weights(architecture):
        return here
    # Asked first, because the hub's client would try for the better part of a minute.
    refuse_missing([architecture])
    problem = f"ImageNet weights of {architecture}: not on this machine"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_repository(architecture), HUB_FILE))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{problem}, and cannot be downloaded ({reason})", WAYS) from None


def read_state(path: Path) -> WeightsFile:
    """Read the tensors of a weights file.

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
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is truncated or not a weights file ({reason})", AGAIN) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})", AGAIN) from None
    return _weights_file(path, found)


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if start in PLAIN_PICKLES:
        raise UserError(f"{path}: is a plain pickle, which can hold code and is not opened", ONLY)
    if not start.startswith(TORCH_STARTS):
        raise UserError(f"{path}: is not a weights file, whatever its name says", AGAIN)
    try:
        with warnings.catch_warnings():
            # About pickle protocols: what cannot be read is refused below anyway.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle fails wherever its bytes happen to lead: there is no list of such errors.
    except Exception as error:
        if code := _code_in(error):
            raise UserError(
                f"{path}: holds pickled code ({code}), which is not run", ONLY
            ) from None
        raise UserError(f"{path}: is truncated or not a weights file", AGAIN) from None


def _code_in(error: Exception) -> str:
    """Return what torch was asked to run and did not; empty where the error is another."""
    if "TorchScript" in str(error):
        return "TorchScript"
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    return asked[1] if asked and isinstance(error, pickle.UnpicklingError) else ""


def _weights_file(path: Path, found: Any) -> WeightsFile:
    inside, wrapper = unwrap(found)
    held = {
        str(name): value
        for name, value in (inside.items() if isinstance(inside, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not held:
        raise UserError(f"{path}: holds no weights", "give a state_dict, as torch.save writes it")
    if any(one.layout != torch.strided or one.is_meta or one.is_quantized for one in held.values()):
        raise UserError(f"{path}: holds sparse, quantised or absent numbers", "save it as float32")
    # One NaN would spread to every logit, and training would stop with a puzzling message.
    if not all(torch.isfinite(tensor.float()).all() for tensor in held.values()):
        raise UserError(f"{path}: holds numbers that are not finite", "give another file")
    plain = {name: plain_name(name) for name in held}
    renamed = timm_names(plain.values())
    file_names: dict[str, str] = {}
    for name in held:
        other = file_names.setdefault(renamed[plain[name]], name)
        if other != name:
            twice = f"{_shown([other])} and {_shown([name])} are the same tensor"
            raise UserError(f"{path}: holds two networks: {twice}", "save one of them alone")
    tensors = {own: held[name] for own, name in file_names.items()}
    return WeightsFile(path, tensors, file_names, wrapper)


def fit_state(network: nn.Module, architecture: str, found: WeightsFile) -> str:
    """Copy the tensors of a file into a network by name.

    The kernels of a first convolution of three colours are summed, which is what a grey image in
    three equal channels would see. The head is taken where it has the same shape.

    Args:
        network: Changed in place, or not at all.
        architecture: What it was built from, for the message.
        found: From `read_state`.

    Returns:
        How many tensors of the file were taken, and which were left out and why.

    Raises:
        UserError: A tensor outside the head is missing, of another shape, or one too many.
    """
    own = network.state_dict()
    head = f"{head_name(network)}."
    state = found.tensors | _grey(own, found.tensors)
    fits = {name for name in own if name in state and _fits(state[name], own[name])}
    if misfit := _misfit(own, head, state, fits):
        remedy = f"give weights of {architecture}, as timm or torchvision saves them"
        raise UserError(f"{found.path}: is for another network: {misfit}", remedy)
    own_head, file_head = ({name for name in one if name.startswith(head)} for one in (own, state))
    whole_head = own_head == file_head and own_head <= fits
    taken = fits if whole_head else fits - own_head
    network.load_state_dict(own | {name: state[name] for name in taken})
    left_out = [name for name in state if name not in taken]
    averaged = any(key in AVERAGED for key in found.wrapper.split("."))
    return (
        f"{len(taken)} of {len(state)} tensors{' (moving averages)' if averaged else ''} taken, "
        f"{'with its head' if whole_head else 'the head starts afresh'}"
        f"{_told_left_out(found, left_out, head)}"
    )


def _fits(tensor: Tensor, own: Tensor) -> bool:
    # Whole numbers in place of weights are quantised: their scale is elsewhere.
    same_kind = tensor.is_floating_point() == own.is_floating_point()
    return tensor.shape == own.shape and same_kind


def _grey(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first convolution for one grey channel, if the file's takes three colours."""
    first = next(iter(own))
    kernels = state.get(first)
    if kernels is None or kernels.ndim != 4 or kernels.shape[1] != 3:
        return {}
    return {first: kernels.sum(dim=1, keepdim=True)}  # (F, 3, K, K) -> (F, 1, K, K)


def _misfit(
    own: Mapping[str, Tensor], head: str, state: Mapping[str, Tensor], fits: Set[str]
) -> str:
    """Return why a file is for another network, empty if it is not; the head may differ."""
    body = [name for name in own if not name.startswith(head)]
    wanted = [name for name in body if not name.endswith(COUNTERS)]
    if missing := [name for name in wanted if name not in fits]:
        fitting = len(wanted) - len(missing)
        return f"{fitting} of {len(wanted)} tensors fit, {missing[0]} does not"
    # A ResNet34 has all that a ResNet18 has, and further blocks in the same stages.
    stages = {name.partition(".")[0] for name in body}
    more = [name for name in state if name not in own and name.partition(".")[0] in stages]
    return f"{_shown(more)} {'has' if len(more) == 1 else 'have'} no place in it" if more else ""


def _told_left_out(found: WeightsFile, names: Iterable[str], head: str) -> str:
    """Return every tensor that was not taken with the reason, in the file's names."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(head):
            reason = _of_classes(found.tensors, head)
        else:
            reason = "a counter" if name.endswith(COUNTERS) else "no part of this network"
        reasons.setdefault(reason, []).append(found.file_names[name])
    parts = [f"{_shown(left)} ({reason})" for reason, left in reasons.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _of_classes(state: Mapping[str, Tensor], head: str) -> str:
    widths = [
        one.shape[0] for name, one in state.items() if name.startswith(head) and one.ndim == 2
    ]
    return f"a head of {widths[-1]} class{'es' if widths[-1] > 1 else ''}" if widths else "a head"


def _shown(names: Sequence[str]) -> str:
    """Return names as they fit in one line: a file may call its tensors anything."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:NAMES_SHOWN]]
    more = [f"{len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return " and ".join([", ".join(shown), *more])
