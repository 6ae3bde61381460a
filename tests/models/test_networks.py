import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from models.networks import (
    build,
    compile_units,
    freeze,
    head_name,
    logits,
    normalisation,
    recalibration_mode,
    split_before,
    train_mode,
    units,
)
from models.registry import AUTOENCODERS, MODELS, Head

ROWS = list(MODELS.values())
NETWORKS = dict.fromkeys((row.architecture, row.head) for row in ROWS)
ARCHITECTURES = sorted({row.architecture for row in ROWS})
QUICK = ("resnet18.a1_in1k", "mammo_cnn")


def images(count=2, size=64):
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[] if quick else [pytest.mark.slow])
        for row in ROWS
        if row.takes_steps or not row.is_detector
        for quick in [row.architecture in QUICK or row.strategy == "pft"]
    ],
)
def test_gradients_reach_what_the_strategy_trains_and_nothing_else(row):
    network = build(row.architecture, row.head)
    freeze(network, row.trained_from)
    train_mode(network, row.trained_from)
    prefix, trained = split_before(network, row.trained_from)
    frozen_before = {name: value.clone() for name, value in prefix.state_dict().items()}

    output = logits(network, images(), None)
    assert output.shape == (2,)
    output.square().sum().backward()

    assert all(parameter.grad is None for parameter in prefix.parameters())
    assert all(parameter.grad is not None for parameter in trained.parameters())
    # Running statistics of batch norm are part of the state.
    after = prefix.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen_before.items())
    assert not any(module.training for module in prefix.modules() if module is not prefix)
    expected = {"opw": 1, "cft": len(units(network)), "anomaly": len(units(network))}
    if row.strategy in expected:
        assert len(trained) == expected[row.strategy]
    else:
        assert 1 < len(trained) < len(units(network))


def test_batch_norm_that_is_trained_does_move():
    network = build("resnet18.a1_in1k", Head())
    train_mode(network, "layer4")
    before = network.layer4[0].bn1.running_mean.clone()
    logits(network, images(), None)
    assert not torch.equal(network.layer4[0].bn1.running_mean, before)


def test_settling_gives_batch_norm_the_statistics_of_what_passed_through():
    network = build("mammo_cnn", Head())
    first, frozen = network.block1[1], network.block1[4]
    nn.init.constant_(first.running_mean, 100)
    with recalibration_mode(network, ""), torch.no_grad():
        assert not network.block1[-1].training  # dropout
        for batch in (images(), images() + 1):
            logits(network, batch, None)
    both = network.block1[0](torch.cat([images(), images() + 1]))
    torch.testing.assert_close(first.running_mean, both.mean(dim=(0, 2, 3)))
    assert not any(module.training for module in network.modules())
    assert first.momentum == 0.1

    before = frozen.running_mean.clone()
    with recalibration_mode(network, "block2"), torch.no_grad():
        logits(network, images(), None)
    assert torch.equal(frozen.running_mean, before)


@pytest.mark.parametrize(("architecture", "head"), NETWORKS, ids=str)
def test_the_chain_of_units_is_the_network(architecture, head):
    network = build(architecture, head).eval()
    batch = images()
    with torch.inference_mode():
        chained = nn.Sequential(*units(network).values())(batch)
        torch.testing.assert_close(chained, network(batch), rtol=0, atol=0)
        prefix, rest = split_before(network, head_name(network))
        torch.testing.assert_close(rest(prefix(batch)), chained, rtol=0, atol=0)


def test_mammo_cnn_is_built_as_described():
    network = build("mammo_cnn", Head())
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 64, 64, 128, 128, 256, 256]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)] == [0.1, 0.2, 0.3, 0.4]
    dense = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(4096, 512), (512, 128), (128, 1)]
    assert convolutions[0].in_channels == 1
    assert MODELS["MammoCNN"].size == 512


@pytest.mark.parametrize(("side", "gradient"), [(512, "AvgPool2D"), (96, "AdaptiveAvgPool2D")])
def test_mammo_cnn_pools_with_a_gradient_that_is_the_same_each_time_on_a_gpu(side, gradient):
    pool = units(build("mammo_cnn", Head()))["pool"]
    maps = torch.rand(2, 3, side // 16, side // 16, requires_grad=True)  # after four blocks
    pooled = pool[0](maps)
    assert torch.equal(pooled, nn.functional.adaptive_avg_pool2d(maps, 4))
    # Adaptive pooling has no other on CUDA, so torch refuses it with --deterministic.
    assert pooled.grad_fn.name() == f"{gradient}Backward0"


def test_a_head_of_its_own_is_built_from_its_widths():
    network = build("resnet18.a1_in1k", Head(widths=(32, 8), dropout=0.5))
    dense = [m for m in network.fc if isinstance(m, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(512, 32), (32, 8), (8, 1)]
    assert [m.p for m in network.fc if isinstance(m, nn.Dropout)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        pytest.param(*kind, marks=[] if kind[0] in QUICK else [pytest.mark.slow])
        for kind in NETWORKS
        if not kind[1].error
    ],
)
def test_an_untrained_network_is_undecided(architecture, head):
    torch.manual_seed(1)
    network = build(architecture, head).train()
    with torch.no_grad():
        assert logits(network, images(8), None).abs().max() < 1.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_normalisation_is_of_one_channel(architecture):
    mean, std = normalisation(architecture)
    if architecture == "mammo_cnn":
        assert (mean, std) == (0.5, 0.25)
    elif architecture in AUTOENCODERS:  # what it restores are grey values
        assert (mean, std) == (0, 1)
    else:
        assert (round(mean, 3), round(std, 3)) == (0.449, 0.226)


def test_the_head_is_computed_in_float32_under_bfloat16():
    network = build("resnet18.a1_in1k", Head()).eval()
    nn.init.constant_(network.fc.weight, 0)
    nn.init.constant_(network.fc.bias, 1.0001)  # bfloat16 would round it to 1
    with torch.inference_mode():
        assert logits(network, images(), torch.bfloat16)[0].item() == pytest.approx(
            1.0001, abs=1e-6
        )


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        pytest.param(*kind, marks=[] if kind[0] in QUICK else [pytest.mark.slow])
        for kind in NETWORKS
    ],
)
def test_with_batch_norm_of_several_gpus_a_network_is_scored_and_saved_as_before(
    architecture, head
):
    torch.manual_seed(3)
    network = build(architecture, head).eval()
    names, parameters = list(network.state_dict()), [*network.parameters()]
    with torch.no_grad():
        expected = network(images())
        assert convert_sync_batchnorm(network) is network
        torch.testing.assert_close(network(images()), expected)
    assert list(network.state_dict()) == names
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    norms = [one for one in network.modules() if isinstance(one, nn.SyncBatchNorm)]
    with recalibration_mode(network, ""):
        assert norms
        assert all(norm.training and norm.momentum is None for norm in norms)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks at it itself
def test_all_units_are_compiled_however_they_are_called(monkeypatch):
    config = torch._dynamo.config
    monkeypatch.setattr(config, "recompile_limit", config.recompile_limit)
    monkeypatch.setattr(config, "fail_on_recompile_limit_hit", True)  # else torch only warns
    network = build("resnet18", Head())
    compile_units(network, backend="eager")
    for count in (4, 3):
        train_mode(network, "")
        logits(network, torch.rand(count, 1, 32, 32), torch.bfloat16).sum().backward()
    network.eval()
    with torch.no_grad():
        logits(network, torch.rand(5, 1, 32, 32), torch.bfloat16)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= len(units(network))
