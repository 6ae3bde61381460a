"""A row of the registry -> a network: what it is made of, what is trained, where that begins.

Every network is a chain of units (`units`), so "everything before the first trained unit" is a
network of its own: the frozen prefix, a pure function of the image.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # of nn.SyncBatchNorm too

from models.anomaly.autoencoder import Autoencoder, ErrorScore
from models.anomaly.patchcore import MemoryBank, PatchFeatures
from models.registry import AUTOENCODERS, MAMMO_CNN, PATCH_DISTANCE, Head
from models.without_compiler import timm

CONTAINERS = {"features", "blocks"}  # children of timm's networks that are chains themselves
CALLS = 8  # kinds of calls of a compiled unit: in training, in scoring, batches of other sizes
MAMMO_CNN_BLOCKS = ((32, 0.1), (64, 0.2), (128, 0.3), (256, 0.4))  # filters, dropout
MAMMO_CNN_GRID = 4  # means of each map's fields, in a row and in a column
MAMMO_CNN_NORMALISATION = (0.5, 0.25)


def build(architecture: str, head: Head) -> nn.Module:
    """Build a network with random weights.

    It takes (B, 1, S, S) float32 images normalised by `normalisation` and gives (B, 1) logits of
    malignancy; an anomaly detector gives how far images are from normal ones, at least 0. Torch's
    global seed decides the weights.

    Args:
        architecture: A timm name, "mammo_cnn" (which has a head of its own), or one of
            `models.registry.AUTOENCODERS`.
        head: The classifier on the pooled features, or what an anomaly detector's number is.
    """
    if architecture == MAMMO_CNN:
        return mammo_cnn()
    if architecture in AUTOENCODERS:
        body = Autoencoder(*AUTOENCODERS[architecture], head.error)
        return nn.Sequential(OrderedDict(autoencoder=body, head=ErrorScore()))
    # One channel: timm sums the pretrained kernels of the first layer over the colours.
    network: nn.Module = timm.create_model(architecture, num_classes=1, in_chans=1)
    if head.error == PATCH_DISTANCE:
        return patch_core(network)
    *_, (name, linear) = units(network).items()
    assert isinstance(linear, nn.Linear)
    if head.widths or head.dropout:
        setattr(network, name, _deep_head(linear.in_features, head))
    else:
        # Timm draws EfficientNet's from -1 to 1 where there is one output: logits of 10 untrained.
        linear.reset_parameters()
    return network


def patch_core(network: nn.Module) -> nn.Sequential:
    """Return PatchCore on the second and third stage of a ResNet18, whose modules it shares."""
    chain = units(network)
    names = list(chain)
    layers = OrderedDict((name, chain[name]) for name in names[: names.index("layer3")])
    stage = chain["layer3"]
    layers["layer3"] = PatchFeatures(OrderedDict(stage.named_children()))
    channels = sum(_channels(one) for one in (chain["layer2"], stage))
    return nn.Sequential(OrderedDict(**layers, head=MemoryBank(channels)))


def _channels(stage: nn.Module) -> int:
    *_, last = (one for one in stage.modules() if isinstance(one, nn.Conv2d))
    return last.out_channels


def _deep_head(features: int, head: Head) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = features
    for hidden in head.widths:
        layers += [nn.Dropout(head.dropout), nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Dropout(head.dropout), nn.Linear(width, 1))


def mammo_cnn() -> nn.Sequential:
    """Build MammoCNN: four double-convolution blocks and three dense layers.

    It takes (B, 1, S, S), S = 512 by design, and gives (B, 1) logits.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for number, (filters, dropout) in enumerate(MAMMO_CNN_BLOCKS, start=1):
        layers[f"block{number}"] = _double_convolution(channels, filters, dropout)
        channels = filters
    layers["pool"] = nn.Sequential(_GridPool(MAMMO_CNN_GRID), nn.Flatten())  # (B, 256 * 4 * 4)
    layers["head"] = nn.Sequential(
        nn.Linear(channels * MAMMO_CNN_GRID**2, 512),
        nn.LeakyReLU(),
        nn.Linear(512, 128),
        nn.LeakyReLU(),
        nn.Linear(128, 1),
    )
    return nn.Sequential(layers)


class _GridPool(nn.Module):
    """The mean of each field of a grid, as adaptive pooling has it.

    Its gradient differs on a GPU each time, and `--deterministic` refuses it there; where all
    fields are equally large, plain pooling gives the same and has one that does not differ.
    """

    def __init__(self, grid: int) -> None:
        """Take the number of fields in a row, as many as in a column."""
        super().__init__()
        self._grid = grid

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, C, G, G) of (B, C, H, W)."""
        height, width = maps.shape[-2:]
        if height % self._grid or width % self._grid:
            return functional.adaptive_avg_pool2d(maps, self._grid)
        return functional.avg_pool2d(maps, (height // self._grid, width // self._grid))


def _double_convolution(channels: int, filters: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, filters):
        layers += [
            nn.Conv2d(inputs, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.LeakyReLU(),
        ]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout2d(dropout))


def normalisation(architecture: str) -> tuple[float, float]:
    """Return mean and standard deviation of the grey values in [0, 1] that a network expects.

    A pretrained network brings three of each, one for each colour. The first convolution's
    kernels are summed over the colours, so one channel takes their mean.
    """
    if architecture == MAMMO_CNN:
        return MAMMO_CNN_NORMALISATION
    if architecture in AUTOENCODERS:
        return 0.0, 1.0  # errors are of grey values
    config = timm.get_pretrained_cfg(architecture)
    return sum(config.mean) / len(config.mean), sum(config.std) / len(config.std)


def units(network: nn.Module) -> "OrderedDict[str, nn.Module]":
    """Return the chain that a network is: applied one after the other they are its forward pass.

    The last unit is the head. The modules are the network's own, not copies.
    """
    return OrderedDict(_flat(network))


def _flat(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if name in CONTAINERS:
            for inner, unit in child.named_children():
                yield f"{name}.{inner}", unit
        else:
            yield name, child


def split_before(network: nn.Module, first: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a network in two: what comes before a unit, and the rest.

    Args:
        network: From `build`.
        first: The name of the first unit of the second part; empty for the very first one.

    Returns:
        Two chains that share the network's modules; the first may be empty.
    """
    chain = units(network)
    names = list(chain)
    at = names.index(first) if first else 0
    prefix = nn.Sequential(OrderedDict((_key(name), chain[name]) for name in names[:at]))
    rest = nn.Sequential(OrderedDict((_key(name), chain[name]) for name in names[at:]))
    return prefix, rest


def split_after(network: nn.Module, last: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a network in two: a unit with what comes before it, and the rest; see `split_before`."""
    names = list(units(network))
    return split_before(network, names[names.index(last) + 1])


def _key(name: str) -> str:
    return name.replace(".", "_")  # a child's name may hold no dot


def head_name(network: nn.Module) -> str:
    """Return the name of the head among the units."""
    return list(units(network))[-1]


def freeze(network: nn.Module, trained_from: str) -> None:
    """Let gradients reach only what comes from a unit on."""
    prefix, rest = split_before(network, trained_from)
    prefix.requires_grad_(False)
    rest.requires_grad_(True)


def train_mode(network: nn.Module, trained_from: str) -> None:
    """Set what is trained to train mode; the frozen prefix stays in eval mode, batch norm too."""
    network.eval()
    _, trained = split_before(network, trained_from)
    trained.train()


@contextmanager
def recalibration_mode(network: nn.Module, trained_from: str) -> Iterator[None]:
    """Let trained batch norm layers average what passes through them, from nothing.

    Everything else, the frozen prefix and dropout too, is in eval mode; afterwards all is.
    """
    _, trained = split_before(network, trained_from)
    norms = [one for one in trained.modules() if isinstance(one, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to say: the plain average over batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Return how many parameters a network has, and how many of them are trained."""
    parameters = list(network.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters), trainable


class _Float32Convolution(nn.Conv2d):
    """A convolution that computes in float32 under autocast too."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


def keep_depthwise_in_float32(network: nn.Module) -> None:
    """Have depthwise convolutions computed in float32 under autocast, in place.

    On a processor they are slower in bfloat16. Only their class changes: what is saved of the
    network, copied or loaded stays as it was.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = _Float32Convolution


def compile_units(network: nn.Module, backend: str = "inductor") -> None:
    """Have torch compile each unit of a network when it is first used, in place.

    Args:
        network: From `build`, or a part of one.
        backend: What torch compiles with.
    """
    import torch._dynamo  # seconds

    chain = units(network)
    # To torch all units are one function, and after so many kinds of calls, eight, it compiles no
    # more of them: the units at the end of the chain would be left as they are.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, CALLS * len(chain))
    for unit in chain.values():
        unit.compile(backend=backend)


def pooled(features: Tensor) -> Tensor:
    """Return (B, F) features of those before the head: (B, F), or the means of (B, F, h, w)."""
    return features if features.ndim == 2 else features.mean((2, 3))


def logits(network: nn.Module, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the logits of malignancy, or the scores of an anomaly detector.

    The head is always computed in float32: a logit in bfloat16 keeps three digits, too few to
    order images by.

    Args:
        network: From `build`.
        images: (B, 1, S, S) float32, normalised.
        dtype: Of the arithmetic before the head under autocast; None for float32.

    Returns:
        (B,) float32.
    """
    body, head = split_before(network, head_name(network))
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        features = body(images)  # (B, F)
    result: Tensor = head(features.float()).squeeze(1)
    return result
