"""What a model costs, on networks small enough to count by hand."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from models.evaluation.cost import cost_of, known_speed, measure_speed, total_cost
from models.inference import choose_compute, save_weights
from models.networks import build, freeze, parameter_counts, train_mode
from models.registry import MODELS


@pytest.fixture
def compute():
    return choose_compute("cpu", "fp32")


def measure_cost(network, size, compute, folder, train_seconds, peak):
    speed = measure_speed(network, size, compute)
    parameters, _ = parameter_counts(network)
    return cost_of(folder, parameters, speed, compute, train_seconds, peak)


def small():
    layers = OrderedDict(
        convolution=nn.Conv2d(1, 3, 3, padding=1),
        norm=nn.BatchNorm2d(3),
        flat=nn.Flatten(),
        head=nn.Linear(3 * 8 * 8, 1),
    )
    return nn.Sequential(layers)


def test_figures_are_those_counted_by_hand(compute, tmp_path):
    network = small()
    save_weights(tmp_path, network)
    cost = measure_cost(network, 8, compute, tmp_path, 90.0, 12_345_678)
    # A multiply-add is two operations: 9 of them for each of 3 x 8 x 8 outputs, and the head.
    assert cost["gflops"] == pytest.approx(2 * (9 * 192 + 192) / 1e9, abs=1e-6)
    assert cost["parameters"] == (9 * 3 + 3) + 2 * 3 + (192 + 1)
    assert cost["train_minutes"] == 1.5
    assert cost["peak_memory_mb"] == 12.3
    assert cost["disk_mb"] == round((tmp_path / "weights.safetensors").stat().st_size / 1e6, 3)
    assert cost["images_per_second_32"] > cost["images_per_second_1"] > 0
    assert cost["precision"] == "fp32"
    assert cost["device"].endswith(", 1 thread")


def test_what_is_not_known_is_none(compute, tmp_path):
    cost = measure_cost(small(), 8, compute, tmp_path, None, 0)
    assert [cost[name] for name in ("train_minutes", "peak_memory_mb", "disk_mb")] == [None] * 3


def test_operations_of_a_registered_network_are_those_of_its_paper(compute, tmp_path):
    row = MODELS["ResNet18_PFT"]
    cost = measure_cost(build(row.architecture, row.head), 32, compute, tmp_path, 1.0, 1)
    # 1.8 GMAC at 224 pixels and three channels (He et al. 2016, table 1); one channel spares 4 %.
    assert cost["gflops"] * (224 / 32) ** 2 == pytest.approx(2 * 1.8, rel=0.06)


def test_arithmetic_in_bf16_is_the_same_number_of_operations(compute, tmp_path):
    network = small()
    half = measure_cost(network, 8, choose_compute("cpu", "bf16"), tmp_path, 1.0, 1)
    assert half["precision"] == "bf16"
    assert half["gflops"] == measure_cost(network, 8, compute, tmp_path, 1.0, 1)["gflops"] > 0


def test_the_network_is_left_as_it_was(compute, tmp_path):
    row = MODELS["ResNet18_PFT"]
    network = build(row.architecture, row.head)
    freeze(network, row.trained_from)
    train_mode(network, row.trained_from)
    modes = {name: module.training for name, module in network.named_modules()}
    assert len(set(modes.values())) == 2
    state = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [one.requires_grad for one in network.parameters()]
    random = torch.get_rng_state()
    measure_cost(network, 32, compute, tmp_path, 1.0, 1)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [one.requires_grad for one in network.parameters()] == trained
    assert all(one.grad is None for one in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_networks_of_one_kind_are_measured_once_in_a_process(compute):
    row = MODELS["MammoCNN"]
    kinds = [(row.architecture, row.head, size, compute, 1) for size in (32, 48)]
    before = known_speed.cache_info().misses
    random = torch.get_rng_state()
    found = [known_speed(*kind) for kind in (*kinds, *kinds)]
    assert known_speed.cache_info().misses == before + 2
    assert found[0] is found[2]
    assert found[1].gflops == pytest.approx(found[0].gflops * (48 / 32) ** 2, rel=0.1)
    assert torch.equal(torch.get_rng_state(), random), "later trainings draw what they drew before"


def test_an_ensemble_costs_what_its_members_cost_together():
    one = {
        "parameters": 100, "gflops": 1.5, "train_minutes": 2.0, "images_per_second_1": 30.0,
        "images_per_second_32": 60.0, "peak_memory_mb": 900.0, "disk_mb": 4.0, "device": "CPU",
        "precision": "fp32",
    }  # fmt: skip
    assert total_cost([one]) == one
    two = one | {"images_per_second_1": 60.0, "peak_memory_mb": 500.0, "train_minutes": None}
    assert total_cost([one, two | {"precision": "bf16"}]) == {
        "parameters": 200, "gflops": 3.0, "train_minutes": None, "images_per_second_1": 20.0,
        "images_per_second_32": 30.0, "peak_memory_mb": 900.0, "disk_mb": 8.0, "device": "CPU",
        "precision": "fp32, bf16",
    }  # fmt: skip
