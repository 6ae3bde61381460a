"""A training step alone, on random tensors: eager, as a CUDA graph, compiled.

The network is placed and the step taken as in a training of this tool (bfloat16 autocast, channels
last, clipped gradients, fused AdamW); images and targets lie on the GPU already.
"""

import itertools
import statistics
import time

import torch

from models.devices import wait_for
from models.inference import choose_compute, place, prepare_process
from models.networks import build, logits, train_mode
from models.registry import MODELS
from models.training.optimisation import clip_gradients
from tests.benchmarks.gpu.networks import measured, shape_in
from tests.benchmarks.gpu.record import NO_GPU, NO_TIME

WARM_UP, STEPS, ROUNDS = 5, 20, 5
EAGER, UNCLIPPED, GRAPH = "eager", "eager without clipping", "CUDA graph"
COMPILED, REDUCED = "compiled as --compile does", "compiled, reduce-overhead"


class Step:
    """One optimisation step of a network."""

    def __init__(self, model, shape, clip=1.0, capturable=False, wrap=None):
        """Make network, optimiser and a random batch.

        Args:
            model: A name of the registry.
            shape: Side of the input in pixels, and images in a batch.
            clip: Largest norm of the gradient; 0 for no limit.
            capturable: Whether the optimiser may be part of a CUDA graph.
            wrap: Gets the network and gives what is called instead.
        """
        row, (size, batch) = MODELS[model], shape
        self.compute = choose_compute("auto", "auto")
        torch.manual_seed(0)
        self._network = build(row.architecture, row.head)
        place(self._network, self.compute)
        train_mode(self._network, "")
        self._trained = list(self._network.parameters())
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=1e-4, fused=True, capturable=capturable
        )
        device = self.compute.device
        self._images = torch.randn(batch, 1, size, size, device=device)
        self._targets = (torch.arange(batch, device=device) % 2).float()
        self._clip, self._called = clip, wrap(self._network) if wrap else self._network

    def _forward(self):
        if self._called is self._network:
            return logits(self._network, self._images, self.compute.dtype)
        dtype = self.compute.dtype
        with torch.autocast(self.compute.device.type, dtype, enabled=dtype is not None):
            return self._called(self._images).float().squeeze(1)

    def __call__(self):
        """Take the step."""
        self._optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self._forward(), self._targets)
        loss.backward()
        if self._clip:
            clip_gradients(self._trained, self._clip)
        self._optimizer.step()


def milliseconds(step, device, steps):
    """Return the median time of a step over some rounds of steps, after a warm-up."""
    for _ in range(min(WARM_UP, steps)):
        step()
    found = []
    for _ in range(ROUNDS if steps > 1 else 1):
        wait_for(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait_for(device)
        found.append((time.perf_counter() - started) / steps)
    return 1000 * statistics.median(found)


def captured(model, shape):
    """Return the replay of a step as one CUDA graph."""
    step = Step(model, shape, capturable=True)
    torch.cuda.synchronize()
    beside = torch.cuda.Stream()
    # Memory and algorithms are chosen outside the capture, on a stream of their own. Casts that
    # autocast keeps would be those of the capture's weights for ever.
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.cuda.stream(beside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    finally:
        torch.set_autocast_cache_enabled(True)

    def replay():
        graph.replay()
        return step  # the graph works on its memory

    return replay


def measure(record, settings):
    """Measure every network, quick ways first."""
    prepare_process(0)
    on_gpu = torch.cuda.is_available()
    ways = {EAGER: {}, UNCLIPPED: {"clip": 0.0}}
    if on_gpu:
        ways[GRAPH] = None
    else:
        record.unmeasured(GRAPH, NO_GPU)
    for model, (name, given) in itertools.product(measured(settings), ways.items()):
        shape = shape_in(settings, model)
        if record.left < 3:
            record.unmeasured(f"{model}: {name}", NO_TIME)
            continue
        with record.attempt(f"{model}: {name}"):
            device = choose_compute("auto", "auto").device
            step = captured(model, shape) if given is None else Step(model, shape, **given)
            record.figure(model, name, milliseconds(step, device, STEPS if on_gpu else 1), "ms")
        if on_gpu:
            torch.cuda.empty_cache()
