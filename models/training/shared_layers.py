"""Layers that look at the whole batch while each process has a share of it.

What one process computes for a batch, several compute together: batch norm takes its statistics
over all shares, and dropout draws for the whole batch. The layers of a network become these in
place: parameters, names in the state dict and references stay as they are.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.training.exact_layers import exact_kind, shares_of
from pipeline.processes import World

Score = Callable[[nn.Module, Tensor], Tensor]


@dataclass
class Batch:
    """The batch that is in work.

    Attributes:
        world: The processes that share it.
        size: Of the whole of it, in images.
    """

    world: World
    size: int = 0


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the shares of all processes, on a processor.

    Its sums keep float32's seven digits. Those of torch's own layer keep four or five where
    channels are stored last, so that two threads train to other weights than one does.
    In eval mode it is the plain layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or nothing at all where this process has no share."""
        if not self.training:
            return nn.BatchNorm2d.forward(self, input)  # not timm's, which activates as well
        output, mean, variance, count = _BatchNorm.apply(input, self.weight, self.bias, self.eps)
        self._follow(mean, variance, int(count))
        return cast(Tensor, output)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as torch's layer does; the variance is unbiased."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        if rate is None:
            rate = 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / (count - 1)), rate)


class GpuBatchNorm2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """The same on GPUs: torch's own, which is a BatchNorm2d as well here."""

    process_group = None  # all of them

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or nothing at all where this process has no share."""
        # An empty share in bfloat16 would send messages of another size than the others' are.
        return nn.SyncBatchNorm.forward(self, input if input.numel() else input.float())


class _Activated:
    """What timm's layer does beside normalising."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and activate (B, C, H, W)."""
        result: Tensor = self.act(self.drop(super().forward(input)))  # type: ignore[misc]
        return result


class SharedBatchNormAct2d(_Activated, SharedBatchNorm2d, BatchNormAct2d):  # type: ignore[misc]
    """Batch norm and activation on a processor."""


class GpuBatchNormAct2d(_Activated, GpuBatchNorm2d, BatchNormAct2d):  # type: ignore[misc]
    """Batch norm and activation on a GPU."""


class _BatchNorm(torch.autograd.Function):
    """Batch norm (Ioffe & Szegedy 2015) with one message forward and one backward.

    Means and sums of squares are merged as Chan et al. (1979) do: no difference of large numbers.
    The gradients of weight and bias are those of this process's share alone, as for every layer.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output, mean (C,), biased variance (C,) and the count behind them."""
        output, own = torch.empty_like(inputs, dtype=torch.float32), []
        others = _others(inputs)
        for values, centred in zip(shares_of(inputs), shares_of(output), strict=True):
            count = values.numel() // values.shape[1]
            own_mean = values.sum(others, dtype=torch.float32) / max(1, count)  # (C,)
            torch.sub(values, _channels(own_mean, inputs), out=centred)
            own.append((own_mean, (centred * centred).sum(others), count))
        mean, variance, whole = _merged(own)
        if whole < 2:
            raise ValueError("batch norm needs more than one value a channel")
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(inputs, weight, mean, scale)
        ctx.count = int(whole)
        ctx.mark_non_differentiable(mean, variance, whole)
        slope = weight * scale
        for centred, (own_mean, _, _) in zip(shares_of(output), own, strict=True):
            shift = bias + (own_mean - mean) * slope
            centred.mul_(_channels(slope, inputs)).add_(_channels(shift, inputs))
        return output.to(inputs.dtype), mean, variance, whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of inputs, weight and bias."""
        inputs, weight, mean, scale = ctx.saved_tensors
        others = _others(inputs)
        gradient, centred = gradient.float(), inputs.float() - _channels(mean, inputs)
        own = [
            torch.stack([part.sum(others), (part * values).sum(others) * scale])  # (2, C)
            for part, values in zip(shares_of(gradient), shares_of(centred), strict=True)
        ]
        sums = torch.stack(own).sum(0)
        bias_gradient, weight_gradient = sums.clone().unbind()
        if dist.is_initialized():
            dist.all_reduce(sums)
        shift, slope = sums / ctx.count
        # d = weight * scale * (gradient - shift - slope * normalised)
        factor = weight * scale
        result = centred.mul_(_channels(-slope * scale * factor, inputs))
        result.add_(_channels(-shift * factor, inputs))
        result.addcmul_(gradient, _channels(factor, inputs))
        return result.to(inputs.dtype), weight_gradient, bias_gradient, None


def _merged(own: Sequence[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), biased variance (C,) and count over all shares.

    Args:
        own: Of each share of this process: mean (C,), the sum (C,) of squared distances from it,
            and the count of values in each channel.
    """
    parts = [
        torch.cat([mean.double(), squares.double(), torch.tensor([float(count)]).double()])
        for mean, squares, count in own
    ]
    if dist.is_initialized():
        (mine,), parts = parts, [torch.empty_like(parts[0]) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
    every = torch.stack(parts)  # (shares, 2 * C + 1)
    channels = len(own[0][0])
    means, all_squares, counts = every.split([channels, channels, 1], dim=1)  # type: ignore[no-untyped-call]
    whole = counts.sum()
    merged = (means * counts).sum(0) / whole  # (C,)
    variance = (all_squares + counts * (means - merged) ** 2).sum(0) / whole  # (C,)
    return merged.float(), variance.float(), whole


def _others(inputs: Tensor) -> list[int]:
    """Return all dimensions but the channels."""
    return [0, *range(2, inputs.ndim)]


def _channels(values: Tensor, inputs: Tensor) -> Tensor:
    """Return (C,) values in a shape that goes with inputs: (1, C, 1, 1)."""
    return values.view(1, -1, *[1] * (inputs.ndim - 2))


class _SharedDropout:
    """Draws for the whole batch in every process, so that their random numbers stay in step."""

    batch: Batch
    training: bool
    p: float

    def forward(self, input: Tensor) -> Tensor:
        """Drop units of (B, F), or channels of (B, C, H, W), of this process's share."""
        start, stop = self.batch.world.bounds(self.batch.size)
        if not self.training or not self.p:
            return input
        if stop - start != len(input):
            raise RuntimeError(f"a share of {stop - start} images was expected, not {len(input)}")
        kept = input.new_empty(self.batch.size, *self._drawn(input)).bernoulli_(1 - self.p)
        return input * kept[start:stop].div_(1 - self.p)

    def _drawn(self, inputs: Tensor) -> tuple[int, ...]:
        raise NotImplementedError


class SharedDropout(_SharedDropout, nn.Dropout):
    """Dropout of single units."""

    def _drawn(self, inputs: Tensor) -> tuple[int, ...]:
        return tuple(inputs.shape[1:])


class SharedDropout2d(_SharedDropout, nn.Dropout2d):
    """Dropout of whole channels."""

    def _drawn(self, inputs: Tensor) -> tuple[int, ...]:
        return inputs.shape[1], 1, 1


DROPOUT: dict[type, type] = {nn.Dropout: SharedDropout, nn.Dropout2d: SharedDropout2d}
NORMS: dict[type, type] = {
    nn.BatchNorm2d: SharedBatchNorm2d,
    BatchNormAct2d: SharedBatchNormAct2d,
}
GPU_NORMS: dict[type, type] = {
    nn.BatchNorm2d: GpuBatchNorm2d,
    BatchNormAct2d: GpuBatchNormAct2d,
}


class _Step(nn.Module):
    """What DistributedDataParallel calls, with this process's share of a batch."""

    def __init__(self, network: nn.Module, score: Score, batch: Batch) -> None:
        super().__init__()
        self.network = network
        self._score, self._batch = score, batch

    def forward(self, inputs: Tensor, whole: int) -> Tensor:
        """Return the scores of the share of a batch of `whole` images."""
        self._batch.size = whole
        return self._score(self.network, inputs)


def share_layers(network: nn.Module, world: World, exact: bool = False) -> Batch:
    """Make batch norm and dropout of a network look at the whole batch, in place.

    Args:
        network: On its device. Any part of it may be in eval mode, and takes no part then.
        world: The processes.
        exact: Whether sums on a processor are to be the same for any number of processes and
            threads, as far as float32 goes.

    Returns:
        The batch that its dropout layers draw for; its size is to be set before each step.
    """
    batch = Batch(world)
    on_gpu = any(parameter.is_cuda for parameter in network.parameters())
    norms = GPU_NORMS if on_gpu else NORMS
    exact = exact and not on_gpu
    kinds = norms | DROPOUT if world.several or exact else {}
    for module in network.modules():
        shared = kinds.get(type(module)) or (exact_kind(module) if exact else None)
        if shared is not None:
            module.__class__ = shared
            if isinstance(module, _SharedDropout):
                module.batch = batch
    return batch


def in_step(network: nn.Module, score: Score, batch: Batch) -> nn.Module:
    """Return what trains a network in step with the other processes.

    Args:
        network: With shared layers. Its gradients become the average over processes.
        score: What makes scores of the network and of inputs.
        batch: What `share_layers` returned.

    Returns:
        A module to call with this process's share of a batch and the size of the whole batch.
    """
    step = _Step(network, score, batch)
    if not batch.world.several:
        return step
    # Shared batch norm keeps the buffers equal, so they need not be sent at every step. Torch is
    # renaming the option.
    known = inspect.signature(DistributedDataParallel).parameters
    name = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in known)
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(step, **options)


def part_of_step(step: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Return the context of one of several parts of a step; gradients are sent with the last."""
    if last or not isinstance(step, DistributedDataParallel):
        return nullcontext()
    sent_later: AbstractContextManager[None] = step.no_sync()
    return sent_later
