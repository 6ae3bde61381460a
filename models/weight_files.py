"""Weights files of other programs: where their tensors lie, and what timm calls each of them."""

import re
from collections.abc import Collection, Mapping
from typing import Any

AVERAGED = ("state_dict_ema", "model_ema")  # moving averages of the weights, as timm prefers them
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model")
DEEPEST = 3  # wrappers in wrappers; a pickled mapping may hold itself
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")
COUNTERS = ("num_batches_tracked", "n_averaged")  # of no effect on what a network computes

# torchvision.models.efficientnet_b0 to b4; both it and timm follow Tan & Le 2019, table 1.
TORCHVISION_EFFICIENTNET = "features.0.0.weight"
OUTER_LAYERS = {
    "features.0.0": "conv_stem",
    "features.0.1": "bn1",
    "features.8.0": "conv_head",
    "features.8.1": "bn2",
    "classifier.1": "classifier",
}
BLOCK = re.compile(r"features\.(?P<stage>[1-7])\.(?P<block>\d+)\.block\.(?P<layer>\d\.\w+)")
EXPANDING_LAYERS = {
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    "2.fc1": "se.conv_reduce",
    "2.fc2": "se.conv_expand",
    "3.0": "conv_pwl",
    "3.1": "bn3",
}
FIRST_STAGE_LAYERS = {  # of expansion 1: there is no convolution to expand with
    "0.0": "conv_dw",
    "0.1": "bn1",
    "1.fc1": "se.conv_reduce",
    "1.fc2": "se.conv_expand",
    "2.0": "conv_pw",
    "2.1": "bn2",
}

# torchvision's published DenseNet files are older than torch's ban on dots in names of modules.
OLD_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.")


def unwrap(found: Any) -> tuple[Any, str]:
    """Return the mapping of tensors inside a checkpoint, and the keys that led there.

    Where a checkpoint keeps moving averages beside the weights, the averages are taken: they are
    what the programs that make them evaluate.

    Args:
        found: What a file held; returned as it is if it is no checkpoint.

    Returns:
        What is inside, and the keys joined with a dot; empty for none.
    """
    keys: list[str] = []
    while len(keys) < DEEPEST and isinstance(found, Mapping):
        inside = [key for key in WRAPPERS if isinstance(found.get(key), Mapping)]
        if not inside:
            break
        found = found[inside[0]]
        keys.append(inside[0])
    return found, ".".join(keys)


def plain_name(name: str) -> str:
    """Return a tensor's name without what wrappers of networks put before it."""
    while prefix := next((one for one in PREFIXES if name.startswith(one)), ""):
        name = name.removeprefix(prefix)
    return name


def timm_names(names: Collection[str]) -> dict[str, str]:
    """Return what timm calls the tensors of a network that timm or torchvision made.

    The ResNets have the same names in both. So have the DenseNets but for old files, and the
    EfficientNets have none in common. A name that no rule knows stays as it is.

    Args:
        names: Of one file's tensors, plain.

    Returns:
        timm's name for each, in the same order.
    """
    if TORCHVISION_EFFICIENTNET in names:
        return {name: _efficientnet_name(name) for name in names}
    return {name: OLD_DENSE_LAYER.sub(r"\1\2.", name) for name in names}


def _efficientnet_name(name: str) -> str:
    layer, _, tensor = name.rpartition(".")
    if layer in OUTER_LAYERS:
        return f"{OUTER_LAYERS[layer]}.{tensor}"
    match = BLOCK.fullmatch(layer)
    if match is None:
        return name
    stage = int(match["stage"])
    layers = FIRST_STAGE_LAYERS if stage == 1 else EXPANDING_LAYERS
    if match["layer"] not in layers:
        return name
    return f"blocks.{stage - 1}.{match['block']}.{layers[match['layer']]}.{tensor}"
