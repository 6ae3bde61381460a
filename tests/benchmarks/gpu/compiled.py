"""A training step of one network that torch compiles, which takes minutes for some."""

import time

import torch

from models.devices import wait_for
from models.inference import prepare_process
from models.networks import compile_units
from tests.benchmarks.gpu.steps import COMPILED, REDUCED, STEPS, Step, milliseconds
from tests.benchmarks.training import shape_of


def unit_by_unit(network):
    """Have each unit compiled, as `train --compile` does."""
    compile_units(network)
    return network


def with_graphs(network):
    """Have the whole network compiled into CUDA graphs."""
    return torch.compile(network, mode="reduce-overhead")


def measure(record, settings):
    """Measure the network that is chosen, in both ways."""
    model = settings.chosen
    prepare_process(0)
    for name, wrap in ((COMPILED, unit_by_unit), (REDUCED, with_graphs)):
        with record.attempt(f"{model}: {name}"):
            step = Step(model, shape_of(model), wrap=wrap)
            started = time.perf_counter()
            step()
            wait_for(step.compute.device)
            record.figure(model, f"{name}: first step", time.perf_counter() - started, "s")
            record.figure(model, name, milliseconds(step, step.compute.device, STEPS), "ms")
