"""The process that `models.comparison.costs` measures networks in; it is told and tells by lines.

Of its own, so that the memory of a step is not hidden by what was freed before it. Its input is one
line of JSON; it prints one line of JSON for each measurement.
"""

import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from models.devices import device_name, wait_for
from models.inference import Compute, place, prepare_process, scoring_compute
from models.networks import build, freeze, head_name, logits, split_before, train_mode
from models.registry import Head
from models.training.estimate import forget_peak, peak_memory
from models.without_compiler import without_compiler

BATCH = 2  # images of a step, the fewest that batch norm can be trained on
EPOCH_BATCH, EPOCH_SIDE = 8, 64  # images of a step, and their side in pixels, in an epoch
LEAST_SECONDS, MOST_TIMES = 0.04, 16  # that a measurement lasts; steps in it
LEAST_ROUNDS = 3
MEMORY_ROUNDS = 3  # peaks depend on which threads hold what at once
LARGE = 256  # pixels; larger images are measured in the least rounds


class Subject:
    """A network with what is timed of it."""

    def __init__(self, kind: Mapping[str, Any], compute: Compute) -> None:
        """Build it with random weights: what they are costs nothing."""
        facts = kind["head"]
        head = Head(tuple(facts["widths"]), facts["dropout"], facts.get("error", ""))
        self._kind, self._compute, self._error = kind, compute, head.error
        self.network = build(kind["architecture"], head)
        freeze(self.network, kind["trained_from"])
        place(self.network, compute)
        trained = [one for one in self.network.parameters() if one.requires_grad]
        # Without a rate all is computed, and the weights stay: of images learnt by heart gradients
        # would be so small that a processor takes many times as long for them.
        with without_compiler():
            self._optimizer = torch.optim.AdamW(trained, lr=0.0) if kind["steps"] else None

    def forward(self, images: Tensor) -> None:
        """Score images."""
        self.network.eval()
        with torch.inference_mode():
            logits(self.network, images, None)
        wait_for(self._compute.device)

    def step(self, images: Tensor) -> None:
        """Do what training does with images once: a step, or the frozen layers' pass."""
        if self._optimizer is None:
            self.network.eval()
            body, _ = split_before(self.network, head_name(self.network))
            with torch.inference_mode():
                body(images)
        else:
            train_mode(self.network, self._kind["trained_from"])
            with without_compiler():
                self._optimizer.zero_grad()
                self._loss(logits(self.network, images, None)).backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
        wait_for(self._compute.device)

    def _loss(self, outputs: Tensor) -> Tensor:
        if self._error:
            return outputs.mean()
        targets = torch.arange(len(outputs), device=outputs.device) % 2
        return binary_cross_entropy_with_logits(outputs, targets.float())

    def epoch(self, images: Tensor) -> None:
        """Do so with all images, some at a time."""
        for some in torch.split(images, EPOCH_BATCH):
            self.step(some)


def main() -> None:
    """Measure what the input asks for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it
    asked = json.loads(sys.stdin.readline())
    kinds, sides, counts = asked["kinds"], asked["sides"], asked["counts"]
    if sys.platform == "linux":  # elsewhere a process does not fork, or cannot once torch is there
        for kind in kinds:
            for side in sides:
                found = [_in_child(kind, side, asked["threads"]) for _ in range(MEMORY_ROUNDS)]
                for what in found[0]:  # none where a child found no memory
                    size = statistics.median(one[what] for one in found if what in one)
                    _tell(kind, f"{what}_memory", side, size)
    prepare_process(asked["threads"])
    compute = scoring_compute()
    print(json.dumps({"device": device_name(compute.device)}), flush=True)
    subjects = [(kind, Subject(kind, compute)) for kind in kinds]
    times: dict[str, int] = {}
    began = time.monotonic()
    for number in range(asked["rounds"]):
        if number >= LEAST_ROUNDS and time.monotonic() - began > asked["seconds"]:
            break
        for kind, what, size, work in _works(subjects, sides, counts, compute, number):
            _tell(kind, what, size, _seconds(work, times, f"{kind['key']} {what} {size}"))


def _works(
    subjects: Sequence[tuple[Mapping[str, Any], Subject]],
    sides: Sequence[int],
    counts: Sequence[int],
    compute: Compute,
    number: int,
) -> Iterator[tuple[Mapping[str, Any], str, int, Callable[[], None]]]:
    """Yield what a round measures: all networks in turn at each size."""
    for side in sides:
        if side > LARGE and number >= LEAST_ROUNDS:
            continue
        images = _images(BATCH, side, compute)
        for kind, one in subjects:
            yield kind, "step", side, partial(one.step, images)
            yield kind, "forward", side, partial(one.forward, images)
    if number >= LEAST_ROUNDS:
        return
    for count in counts:
        images = _images(count, EPOCH_SIDE, compute)
        for kind, one in subjects:
            yield kind, "epoch", count, partial(one.epoch, images)


def _seconds(work: Callable[[], None], times: dict[str, int], name: str) -> float:
    """Return the seconds of what is done, the mean over so many times that a clock can tell."""
    if name not in times:
        for _ in range(2):  # the first allocates memory and chooses algorithms
            started = time.perf_counter()
            work()
            once = max(time.perf_counter() - started, 1e-6)
            times[name] = min(MOST_TIMES, math.ceil(LEAST_SECONDS / once))
            if times[name] == 1:  # so long that this is little of it
                break
    started = time.perf_counter()
    for _ in range(times[name]):
        work()
    return (time.perf_counter() - started) / times[name]


def _images(count: int, side: int, compute: Compute) -> Tensor:
    """Return (B, 1, S, S) float32 images with values in [0, 1]."""
    generator = torch.Generator().manual_seed(count + side)
    images: Tensor = torch.rand(count, 1, side, side, generator=generator).to(compute.device)
    return images


def _in_child(kind: Mapping[str, Any], side: int, threads: int) -> dict[str, int]:
    """Return the bytes that a forward pass and a step hold, beside the libraries."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with os.fdopen(read) as told:
            text = told.read()
        os.waitpid(child, 0)
        found: dict[str, int] = json.loads(text) if text else {}
        return found
    try:
        os.close(read)
        found = _memory(kind, side, threads)
        os.write(write, json.dumps(found).encode())
    finally:
        os._exit(0)


def _memory(kind: Mapping[str, Any], side: int, threads: int) -> dict[str, int]:
    prepare_process(threads)
    compute = scoring_compute()
    forget_peak(compute.device)
    before = peak_memory(compute.device)
    subject, images = Subject(kind, compute), _images(BATCH, side, compute)
    found = {}
    for what, work in (("forward", subject.forward), ("step", subject.step)):
        work(images)
        found[what] = peak_memory(compute.device) - before
    return found


def _tell(kind: Mapping[str, Any], what: str, size: int, value: float) -> None:
    print(json.dumps({"key": kind["key"], "what": what, "size": size, "value": value}), flush=True)


if __name__ == "__main__":
    main()
