"""Layers that sum alike on a processor, whatever the number of processes and threads.

Sums of floating-point numbers depend on their order, and training magnifies the last digit. So one
process adds up what two would, in their order, and what torch cuts among its threads is done in
ways that do not depend on how many these are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.processes import World

CUT = 30_720  # below 32,768, what torch gives to one thread; 32 x 960, which most counts divide


def shares_of(batch: Tensor) -> Sequence[Tensor]:
    """Return the shares of a batch that are summed apart: its own, or as two processes have it.

    Sums of floating-point numbers depend on their order, and AdamW makes much of the last digits
    of small gradients. So one process adds up what two would, in their order.
    """
    if dist.is_initialized() or len(batch) < 2:
        return (batch,)
    half = World(0, 2).bounds(len(batch))[1]
    return torch.split(batch, [half, len(batch) - half])


class HalvedConv2d(nn.Conv2d):
    """A convolution that is trained on the two halves of a batch, as two processes would do it."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        return torch.cat([super(HalvedConv2d, self).forward(part) for part in shares_of(input)])


class PreciseConv2d(HalvedConv2d):
    """A pointwise convolution that is trained alike with any number of threads.

    A convolution's sums over channels and places are cut among the threads, and what that costs in
    the last digit is magnified some twenty times at every step: by AdamW where a gradient is all
    rounding, and by channels that are the same everywhere, whose sign batch norm takes from
    rounding. A matrix product is not cut, unless it has a row for each image only, which is little
    work: that is done in float64.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        down, right = self.stride
        rows = input[:, :, ::down, ::right].permute(0, 2, 3, 1)
        dtype = torch.float64 if rows.shape[1] * rows.shape[2] == 1 else torch.float32
        outputs = []
        for part in shares_of(rows):
            # Anew for each share, whose gradients are added up in float32, as processes do it.
            # Permuted, for DistributedDataParallel wants its gradient to be stored as it is.
            weight = self.weight.permute(0, 2, 3, 1).flatten(1).to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            outputs.append(nn.functional.linear(part.to(dtype), weight, bias).float())
        return torch.cat(outputs).permute(0, 3, 1, 2)


class PreciseDepthwise2d(HalvedConv2d):
    """A depthwise convolution whose weights are trained alike with any number of threads."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        shape = self.stride, self.padding, self.dilation, self.groups
        parts = [_Depthwise.apply(part, self.weight, shape) for part in shares_of(input)]
        output = torch.cat(parts)
        return output if self.bias is None else output + self.bias.view(1, -1, 1, 1)


class _Depthwise(torch.autograd.Function):
    """A convolution whose weights' gradient one thread sums up."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, shape: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.shape = shape
        stride, padding, dilation, groups = shape
        return nn.functional.conv2d(inputs, weight, None, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape

        def of(*wanted: bool) -> Sequence[Tensor]:
            found: Sequence[Tensor] = torch.ops.aten.convolution_backward(
                gradient, inputs, weight, None, stride, padding, dilation, False, [0, 0], groups,
                wanted,
            )  # fmt: skip
            return found

        threads = torch.get_num_threads()
        of_inputs = of(True, False, False)[0]
        torch.set_num_threads(1)
        try:
            of_weight = of(False, True, False)[1]
        finally:
            torch.set_num_threads(threads)
        return of_inputs, of_weight, None


class PreciseLinear(nn.Linear):
    """A linear layer that is trained alike with any number of threads.

    Its sums over many inputs are cut among the threads where there are only a few images; in
    float64 that is too little to show.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, F') of (B, F)."""
        if not self.training:
            return super().forward(input)
        outputs = []
        for part in shares_of(input):
            weight = self.weight.double()  # anew for each share: see PreciseConv2d
            bias = None if self.bias is None else self.bias.double()
            outputs.append(nn.functional.linear(part.double(), weight, bias).float())
        return torch.cat(outputs)


def _activated(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return an activation whose last digits no thread decides.

    The values at the end of what a thread is given are not computed with vector instructions, and
    so may differ in the last digit. A run of CUT values ends where vectors do, for up to six
    threads and most larger numbers of them; what is left is too short for a second thread.
    """
    rows = inputs.movedim(1, -1)  # channels are stored last
    pieces = []
    for part in shares_of(rows):
        flat = part.flatten()
        whole = len(flat) // CUT * CUT
        pieces += [function(flat[:whole]), function(flat[whole:])]
    return torch.cat(pieces).view(rows.shape).movedim(-1, 1)


class PreciseSiLU(nn.SiLU):
    """An activation that is trained alike with any number of threads."""

    def forward(self, input: Tensor) -> Tensor:
        """Return an array of the input's shape."""
        return _activated(nn.functional.silu, input) if self.training else super().forward(input)


class PreciseSigmoid(nn.Sigmoid):
    """Likewise."""

    def forward(self, input: Tensor) -> Tensor:
        """Return an array of the input's shape."""
        return _activated(torch.sigmoid, input) if self.training else super().forward(input)


EXACT: dict[type, type] = {
    nn.Conv2d: HalvedConv2d,
    nn.Linear: PreciseLinear,
    nn.SiLU: PreciseSiLU,
    nn.Sigmoid: PreciseSigmoid,
}


def exact_kind(layer: nn.Module) -> type | None:
    """Return what a layer becomes; None where torch's own sums alike."""
    if type(layer) is nn.Conv2d:
        if layer.groups == layer.in_channels > 1:
            return PreciseDepthwise2d
        if layer.kernel_size == (1, 1) and layer.groups == 1 and not any(layer.padding):
            return PreciseConv2d
    return EXACT.get(type(layer))
