"""What the options of training do: rates, decay, loss, mixing, averages, parts, forecasts."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.data.loading import EvalTransform, load_split
from models.inference import Compute
from models.networks import build, freeze
from models.registry import MODELS
from models.run_facts import HyperParameters, TrainingData
from models.training.estimate import Forecast
from models.training.loop import fit
from models.training.optimisation import (
    Loss,
    draw_mix,
    make_optimizer,
    make_schedule,
    moving_average,
)
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from tests.models.datasets import SIZE

QUICK = {"model": "MammoCNN", "size": 32}
CPU = Compute(torch.device("cpu"), None)
PLAIN = HyperParameters(
    epochs=1, batch_size=12, learning_rate=1e-3, weight_decay=0.01, patience=8, augment="none",
    seed=1,
)  # fmt: skip


def hparams(**given):
    return HyperParameters(**{**vars(PLAIN), **given})


@pytest.fixture(scope="module")
def data(tiny_data):
    rows = read_manifest(tiny_data)
    train, val = (load_split(tiny_data, rows, name, SIZE, 1, Silent()) for name in ("train", "val"))
    return TrainingData(tiny_data, train, val, EvalTransform(0.5, 0.25, CPU.device), CPU)


def resnet():
    torch.manual_seed(1)
    return build(MODELS["ResNet18_CFT"].architecture, MODELS["ResNet18_CFT"].head)


def test_every_trained_parameter_is_in_one_group_and_only_kernels_decay():
    network = resnet()
    freeze(network, "layer4")
    for given in ({}, {"layer_decay": 0.5}, {"optimizer": "sgd"}):
        groups = make_optimizer(network, hparams(**given)).param_groups
        found = [id(p) for group in groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in network.parameters() if p.requires_grad)
        for group in groups:
            kernels = {p.ndim > 1 for p in group["params"]}
            assert kernels == {group["weight_decay"] > 0}


def test_layer_decay_lowers_the_rate_stage_by_stage():
    optimizer = make_optimizer(resnet(), hparams(layer_decay=0.5))
    rates = [group["lr"] for group in optimizer.param_groups]
    # The head, four stages, the first batch norm, the first convolution.
    assert sorted(set(rates), reverse=True) == [1e-3 * 0.5**depth for depth in range(7)]
    make_schedule(optimizer, 100)
    warm = [group["lr"] / rate for group, rate in zip(optimizer.param_groups, rates, strict=True)]
    assert warm == pytest.approx([0.1] * len(rates))


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_a_hundredth():
    optimizer = make_optimizer(resnet(), hparams())
    schedule, rates = make_schedule(optimizer, 50), []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert np.argmax(rates) == 4
    assert rates[0] == pytest.approx(2e-4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)


def test_label_smoothing_and_class_weights_are_those_of_the_papers():
    logits, targets = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    plain = [-math.log(1 / (1 + math.exp(-2))), -math.log(1 - 1 / (1 + math.exp(1)))]
    swapped = [plain[0] + 2, plain[1] + 1]  # the loss of the other label
    none = Loss(hparams(balance="none"), 3.0, CPU.device)(logits, targets)
    assert float(none) == pytest.approx(sum(plain))
    weights = Loss(hparams(), 3.0, CPU.device)(logits, targets)
    assert float(weights) == pytest.approx(3 * plain[0] + plain[1])
    smooth = Loss(hparams(balance="none", label_smoothing=0.2), 3.0, CPU.device)(logits, targets)
    expected = sum(0.9 * own + 0.1 * other for own, other in zip(plain, swapped, strict=True))
    assert float(smooth) == pytest.approx(expected)


def test_mixing_follows_from_seed_epoch_and_batch():
    indices = np.arange(10, 20)
    assert draw_mix(indices, hparams(), 1, 1).none
    mixes = [draw_mix(indices, hparams(mixup=0.4), *at) for at in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert mixes[0].share == mixes[1].share
    assert len({mix.share for mix in mixes}) == 3
    for mix in mixes:
        assert 0.5 <= mix.share < 1
        assert sorted(mix.partners) == sorted(indices)
    half = mixes[0](torch.zeros(2), torch.ones(2))
    assert half.tolist() == pytest.approx([1 - mixes[0].share] * 2)


def test_the_moving_average_moves_as_slowly_as_its_decay_says():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    averaged = moving_average(network, 0.9)
    averaged.update_parameters(network)
    nn.init.ones_(network.weight)
    for _ in range(3):
        averaged.update_parameters(network)
    assert averaged.module.weight.item() == pytest.approx(1 - 0.9**3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"mixup": 0.3, "ema": 0.5, "model": "DenseNet121_PFT", "augment": "flip"},
        {"ema": 0.5, "balance": "sampler", "label_smoothing": 0.1, **QUICK},
        {
            "optimizer": "sgd",
            "layer_decay": 0.7,
            "variants": 3,
            "augment": "flip",
            "clip": 0,
            **QUICK,
        },
    ],
)
def test_each_option_trains_and_gives_the_same_again(given, few_data, options_for, tmp_path):
    options = options_for(tmp_path, data=few_data, epochs=2, batch_size=4, **given)
    folders = [train(options, Silent()).folder for _ in range(2)]
    first, second = (load_file(folder / "last.safetensors") for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_in_parts_without_batch_norm_moves_the_weights_alike(data, tmp_path):
    ends = []
    for parts in (1, 3):
        torch.manual_seed(3)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * (SIZE - 2) ** 2, 1))
        (tmp_path / str(parts)).mkdir()
        fit(network, "", data, hparams(parts=parts), tmp_path / str(parts), Silent())
        ends.append(network.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name])


class Small(nn.Module):
    """Stands for a device that has no memory for more than some images."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, images):
        if len(images) > self.most and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return images


def small_network(most):
    return nn.Sequential(Small(most), nn.Flatten(), nn.Linear(SIZE**2, 1))


def test_out_of_memory_halves_the_batch_and_says_so(data, listener, tmp_path):
    fit(small_network(4), "", data, hparams(), tmp_path, listener)
    told = [line for line in listener.lines if line.startswith("Out of memory")]
    assert told == [
        "Out of memory: batches are now computed in 2 parts.",
        "Out of memory: batches are now computed in 4 parts.",
    ]
    assert len(listener.rows) == 1


def test_no_memory_for_two_images_is_told(data, tmp_path):
    with pytest.raises(UserError, match=r"not enough memory for two images.*smaller --size"):
        fit(small_network(1), "", data, hparams(), tmp_path, Silent())


def test_a_long_training_is_forecast_once_and_a_short_one_is_not(data, listener):
    for epochs, said in ((1_000_000, 1), (1, 0)):
        listener.lines.clear()
        forecast = Forecast(data, hparams(epochs=epochs), 50, 0)
        for _ in range(20):
            torch.zeros(10_000).sort()
            forecast.step(listener)
        assert len(listener.lines) == said
    forecast = Forecast(data, hparams(epochs=10**6), 50, 3)
    for _ in range(20):
        forecast.step(listener)
    assert listener.lines == []  # what goes on was forecast when it began


def test_the_course_is_written_for_tensorboard(few_data, options_for, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    result = train(options_for(tmp_path, data=few_data, epochs=2, **QUICK), Silent())
    events = event_accumulator.EventAccumulator(str(result.folder / "tensorboard")).Reload()
    aucs = events.Scalars("val_auc")
    assert [point.step for point in aucs] == [1, 2]
    assert max(point.value for point in aucs) == pytest.approx(result.facts["best_val_auc"])
