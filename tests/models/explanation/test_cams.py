"""Heat-maps of every architecture: in range, where they should be, and nothing left behind."""

from itertools import combinations

import numpy as np
import pytest
import torch

from models.explanation.baselines import untrained
from models.explanation.cams import CAMS, enlarged, heat_maps
from models.explanation.checks import correlation, mirror_correlations
from models.inference import Compute, TrainedModel, image_logits, place
from models.networks import build, freeze, head_name, normalisation, units
from models.registry import MODELS, TARGET_LAYERS, Head, TargetLayer
from pipeline.errors import UserError

ARCHITECTURES = sorted({row.architecture for row in MODELS.values() if not row.is_detector})
COMPUTE = Compute(torch.device("cpu"), None)
QUICK = ("resnet18.a1_in1k", "mammo_cnn")
EACH = pytest.mark.parametrize(
    "architecture",
    [pytest.param(one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in ARCHITECTURES],
)
SIZE = 128


def model_of(architecture, head=None):
    head = head or Head()
    torch.manual_seed(3)
    mean, std = normalisation(architecture)
    facts = {
        "architecture": architecture,
        "head": {"widths": list(head.widths), "dropout": head.dropout},
        "input": {"size": SIZE, "channels": 1, "mean": mean, "std": std},
    }
    model = TrainedModel(build(architecture, head).eval(), facts)
    place(model.network, COMPUTE)
    return model


def pictures(count=3, size=SIZE):
    """Dark noise with a bright disc, at another place in each."""
    generator = np.random.default_rng(2)
    images = generator.integers(0, 40, (count, size, size)).astype(np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for number, image in enumerate(images):
        y, x = 40 + 20 * number, 90 - 25 * number
        image[(rows - y) ** 2 + (columns - x) ** 2 < 100] = 220
    return images


@EACH
def test_maps_are_in_range_differ_and_leave_the_model_as_it_was(architecture):
    model = model_of(architecture)
    freeze(model.network, head_name(model.network))  # as a linear probe leaves it
    wanted = [parameter.requires_grad for parameter in model.network.parameters()]
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    images = pictures()
    # A random network may find no evidence of one kind in an image.
    both = [heat_maps(model, images, COMPUTE, evidence=one) for one in ("malignant", "benign")]
    for maps in both:
        assert maps.shape == images.shape
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()
        assert maps.min() >= 0
        assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    warm = max(both, key=lambda maps: maps.any(axis=(1, 2)).sum())
    assert warm.any(axis=(1, 2)).sum() > 1
    assert np.abs(warm[0] - warm[1]).max() > 0.03
    assert [parameter.requires_grad for parameter in model.network.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())
    hooks = [one for m in model.network.modules() for one in (m._forward_hooks, m._backward_hooks)]
    assert not any(hooks)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@EACH
def test_target_layer_is_a_unit_before_the_head_with_cells_of_its_stride(architecture):
    layer = TARGET_LAYERS[architecture]
    names = list(units(model_of(architecture).network))
    assert layer.unit in names[:-1]
    assert 0 <= layer.first < layer.stride


@EACH
def test_a_cell_looks_where_its_target_layer_says(architecture):
    """The gradient of one cell with respect to the image lies about the cell's place."""
    from models.networks import split_after

    layer = TARGET_LAYERS[architecture]
    network = build(architecture, Head()).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # even weights: nothing pulls to one side
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    before, _ = split_after(network, layer.unit)
    size = 32 * 16
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 1, size, size, generator=generator).requires_grad_()
    cells = before(images)
    middle = size // 2 // layer.stride
    assert cells.shape[-1] == size // layer.stride
    (found,) = torch.autograd.grad(cells[:, :, middle, middle].sum(), images)
    weight = found.abs().sum(dim=(0, 1, 2)).double()
    centre = float((weight * torch.arange(size)).sum() / weight.sum())
    assert centre == pytest.approx(layer.first + layer.stride * middle, abs=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("method", CAMS)
def test_evidence_of_malignancy_lies_where_hiding_lowers_the_logit(method):
    """A network whose only feature is brightness finds its evidence in the bright disc."""
    model = model_of("mammo_cnn")
    with torch.no_grad():
        for module in model.network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
            elif isinstance(module, torch.nn.Linear):
                module.weight.fill_(1 / module.in_features)
    images = pictures()
    maps = heat_maps(model, images, COMPUTE, method)
    for image, heat in zip(images, maps, strict=True):
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        bright = np.argwhere(image > 200).mean(axis=0)
        assert np.hypot(*(bright - (y, x))) < 12
    hidden = heat_maps(model, images, COMPUTE, "occlusion")
    assert all(correlation(*pair) > 0.5 for pair in zip(maps, hidden, strict=True))
    # What raises the logit is no evidence of a benign finding; the dark around it may be.
    benign = heat_maps(model, images, COMPUTE, method, "benign")
    assert benign[images > 200].max() < 0.05
    mixed = heat_maps(model, images, COMPUTE, method, ["malignant", "benign", "malignant"])
    np.testing.assert_allclose(mixed[[0, 2]], maps[[0, 2]], atol=1e-4)
    np.testing.assert_allclose(mixed[1], benign[1], atol=1e-4)


def test_maps_do_not_depend_on_the_other_images_of_a_batch():
    model, images = model_of("mammo_cnn"), pictures()
    together = heat_maps(model, images, COMPUTE)
    alone = np.concatenate([heat_maps(model, one[None], COMPUTE) for one in images])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_scores_are_the_same_after_a_map():
    model, images = model_of("resnet18.a1_in1k"), pictures()
    transform = model.transform(COMPUTE)
    before = image_logits(model.network, images, transform, COMPUTE)
    heat_maps(model, images, COMPUTE)
    np.testing.assert_array_equal(image_logits(model.network, images, transform, COMPUTE), before)


@pytest.mark.parametrize("first", [0, 7.5, 14])
def test_one_warm_cell_is_enlarged_about_where_it_looks(first):
    cells = np.zeros((1, 8, 8), np.float32)
    cells[0, 3, 5] = 2
    (heat,) = enlarged(cells, TargetLayer("any", 16, first), SIZE)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.max() == 1
    assert (y, x) == pytest.approx((3 * 16 + first, 5 * 16 + first), abs=0.5)


def test_a_peak_may_lie_between_cells():
    cells = np.zeros((1, 8, 8), np.float32)
    cells[0, 3, 4:6] = 1
    (heat,) = enlarged(cells, TargetLayer("any", 16, 0), SIZE)
    assert np.unravel_index(heat.argmax(), heat.shape)[1] == pytest.approx(4.5 * 16, abs=1)


def test_no_training_starts_from_the_weights_of_an_untrained_network():
    """One that was trained shortly from random weights is still close to them."""
    model = model_of("mammo_cnn")  # with seed 3, as a training with --seed 3 begins
    drawn = [untrained(model, COMPUTE, 3, draw) for draw in (0, 1)]
    for pair in combinations((model, *drawn), 2):
        first, second = (convolutions(one) for one in pair)
        assert max(abs(correlation(*both)) for both in zip(first, second, strict=True)) < 0.5
    again = convolutions(untrained(model, COMPUTE, 3))
    assert all(
        (one == other).all() for one, other in zip(again, convolutions(drawn[0]), strict=True)
    )


def convolutions(model):
    return [one.detach().numpy() for one in model.network.parameters() if one.dim() == 4]


def test_an_architecture_without_target_layer_is_refused():
    model = model_of("mammo_cnn")
    other = TrainedModel(model.network, {**model.facts, "architecture": "vgg11"})
    with pytest.raises(UserError, match="vgg11: has no target layer"):
        heat_maps(other, pictures(), COMPUTE)


def test_the_mirror_check_is_of_single_maps():
    model, images = model_of("resnet18.a1_in1k"), pictures()
    way = COMPUTE, "gradcam++", ["malignant"] * len(images)
    found = mirror_correlations(model, images, *way, lambda _steps: None)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    single, other = (heat_maps(model, some, *way, mirrored=False) for some in (images, turned))
    expected = [correlation(*pair) for pair in zip(single, other[:, :, ::-1], strict=True)]
    assert found == pytest.approx(expected, nan_ok=True)
    assert np.nanmin(found) < 0.999, "a random network is not the same on both sides"
    shown, shown_turned = (heat_maps(model, some, *way) for some in (images, turned))
    mean = [correlation(*pair) for pair in zip(shown, shown_turned[:, :, ::-1], strict=True)]
    assert np.nanmin(mean) > 0.999, "means are the same by construction"
