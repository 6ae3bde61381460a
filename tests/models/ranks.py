"""What two processes do for test_distributed.py, with a file to write.

They are started by what torchrun starts its processes with, but forked, so that torch is loaded
once. Each check returns how far two processes are from one, or whether something holds.
"""

import contextlib
import copy
import io
import json
import os
import sys
import warnings
from pathlib import Path

import albumentations  # noqa: F401  # here, so that it is loaded once
import numpy as np
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional

import main
from models.distributed import agree, all_values, gather, join, together, wait_for_all
from models.networks import build, freeze, logits, settling_mode, train_mode
from models.registry import MODELS
from models.training.shared_layers import in_step, share_layers
from pipeline.errors import UserError
from pipeline.processes import world_here

NETWORKS = ("ResNet18_CFT", "DenseNet121_PFT", "MammoCNN")
SIDE = 32


def difference(values, others):
    """Return the largest difference, in units of the largest value (at least of 1)."""
    pairs = [(one.detach(), other.detach()) for one, other in zip(values, others, strict=True)]
    return max(float((a - b).abs().max() / max(1, b.abs().max())) for a, b in pairs if b.numel())


def whole(world, part):
    """Put the shares of a tensor together."""
    return torch.from_numpy(gather(world, part.detach().numpy()))


def summed(tensor):
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def shares(world):
    """Unequal and empty shares come back in order, bit for bit, without anything twice."""
    for count in (0, 1, 2, 5, 8):
        values = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        if not np.array_equal(gather(world, world.share(values)), values):
            return False
    return True


def agreement(world):
    """The first process's word holds in all of them."""
    return all_values(world, agree(world, f"run-{world.rank}")) == ["run-0"] * world.size


def mistakes(world):
    """A mistake that one process makes fails all of them, with its rank unless it is the first."""
    texts = []
    for culprits in ((1,), (0, 1), ()):
        try:
            with together(world):
                if world.rank in culprits:
                    raise UserError(f"made by {world.rank}", "do better")
        except UserError as error:
            texts.append(str(error))
    return texts


def layer(kind, momentum=0.1):
    torch.manual_seed(3)
    norm = kind(7, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def norm(world, kind, count, momentum=0.1):
    """Batch norm: output, gradients and running statistics of two batches, the mean far from 0."""
    plain = layer(kind, momentum)
    shared = copy.deepcopy(plain)
    share_layers(shared, world)
    shared = copy.deepcopy(shared)  # as a moving average of the weights has it
    if shared.state_dict().keys() != plain.state_dict().keys():
        return float("inf")
    worst = 0.0
    for turn in range(2):
        generator = torch.Generator().manual_seed(turn)
        images = 20 + 3 * torch.randn(count, 7, 5, 4, generator=generator)
        images = images.contiguous(memory_format=torch.channels_last)
        slope = torch.randn(images.shape, generator=generator)
        one, own = images.clone().requires_grad_(), world.share(images).clone().requires_grad_()
        (plain(one) * slope).sum().backward()
        result = shared(own)
        (result * world.share(slope)).sum().backward()
        with torch.no_grad():
            expected = functional.batch_norm(
                images, None, None, plain.weight, plain.bias, True, 0.0, plain.eps
            )
        if isinstance(plain, BatchNormAct2d):
            expected = expected.relu()
        got = [whole(world, result), whole(world, own.grad)]
        got += [summed(shared.weight.grad), summed(shared.bias.grad)]
        wanted = [expected, one.grad, plain.weight.grad, plain.bias.grad]
        got += [shared.running_mean, shared.running_var, shared.num_batches_tracked]
        wanted += [plain.running_mean, plain.running_var, plain.num_batches_tracked]
        worst = max(worst, difference(got, wanted))
    return worst


def frozen_norm(world):
    """Batch norm in eval mode needs nobody else: only one process asks it."""
    shared = layer(nn.BatchNorm2d).eval()
    share_layers(shared, world)
    return world.first or bool(torch.isfinite(shared(torch.randn(2, 7, 3, 3))).all())


def dropout(world, kind, shape):
    """Dropout drops the same units as in one process."""
    plain, shared = nn.Sequential(kind(0.4)), nn.Sequential(kind(0.4))
    share_layers(shared, world).size = shape[0]
    images = agree(world, torch.rand(shape) + 1)
    results = []
    for network, batch in ((plain, images), (shared, world.share(images))):
        torch.manual_seed(8)
        results.append(torch.stack([network(batch), network(batch)], dim=1))
    return difference([whole(world, results[1])], [results[0]])


def network(world, name, count):
    """A step and the settling of batch norm: gradients and statistics as of the whole batch."""
    row = MODELS[name]
    torch.manual_seed(1)
    plain = build(row.architecture, row.head)
    freeze(plain, row.trained_from)
    shared = copy.deepcopy(plain)
    torch.manual_seed(2)
    images, targets = torch.randn(count, 1, SIDE, SIDE), torch.arange(count) % 2 * 1.0
    batch = share_layers(shared, world)
    step = in_step(shared, lambda network, inputs: logits(network, inputs, None), batch)
    for one in (plain, shared):
        train_mode(one, row.trained_from)
    torch.manual_seed(4)
    functional.binary_cross_entropy_with_logits(logits(plain, images, None), targets).backward()
    torch.manual_seed(4)
    scores, own = step(world.share(images), count), world.share(targets)
    if len(own):
        loss = functional.binary_cross_entropy_with_logits(scores, own, reduction="sum")
        loss = loss * world.size / count
    else:
        loss = scores.sum()
    loss.backward()
    wanted = [p.grad for p in plain.parameters() if p.grad is not None]
    got = [p.grad for p in shared.parameters() if p.grad is not None]
    for one, batch in ((plain, images), (shared, world.share(images))):
        with torch.no_grad(), settling_mode(one, row.trained_from):
            one(batch)
    got += [value.float() for value in shared.buffers()]
    wanted += [value.float() for value in plain.buffers()]
    return difference(got, wanted)


def checks(world):
    yield "shares", shares(world)
    yield "agreement", agreement(world)
    yield "mistakes", mistakes(world)
    for kind in (nn.BatchNorm2d, BatchNormAct2d):
        for count in (1, 5, 8):
            yield f"{kind.__name__} of {count}", norm(world, kind, count)
    yield "BatchNorm2d settling", norm(world, nn.BatchNorm2d, 5, momentum=None)
    yield "frozen", frozen_norm(world)
    yield "Dropout of 5", dropout(world, nn.Dropout, (5, 6))
    yield "Dropout2d of 5", dropout(world, nn.Dropout2d, (5, 6, 2, 2))
    for name in NETWORKS:
        yield f"{name} of 5", network(world, name, 5)
    yield "MammoCNN of 1", network(world, "MammoCNN", 1)


def told(world, runs):
    """What main.py says and does when it is started in both processes."""
    commands = {
        "resumed": ["train", "--resume", "latest", "--runs", runs, "--workers", "1", "--batch"],
        "another stage": ["evaluate", "--batch"],
        "no stage": [],
        "questions": ["train"],
        "a wrong flag": ["train", "--epochs", "0"],
        "a wrong value": ["train", "--data", "gone", "--batch"],
        "a wrong value each": ["train", "--data", f"gone{world.rank}", "--batch"],
        "help": ["train", "--help"],
    }
    for number, (name, command) in enumerate(commands.items()):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # as if each were started anew
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main.main(command)
            except SystemExit as leave:
                status = leave.code
        yield name, [status, out.getvalue(), err.getvalue()]


def run(path, runs):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    found = dict(told(world_here(), runs))
    with join() as world:
        every = all_values(world, found | dict(checks(world)))
        if world.first:
            path.write_text(json.dumps(every))
        wait_for_all(world)


if __name__ == "__main__":
    torchrun = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=0, start_method="fork",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0",
    )  # fmt: skip
    elastic_launch(torchrun, run)(Path(sys.argv[1]), sys.argv[2])
