import pickle
import re
from copy import deepcopy
from functools import lru_cache

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from models.networks import build, head_name, split_before
from models.registry import Head
from models.weights import fit_state, load_weights, read_state
from pipeline.errors import UserError

RESNET = "resnet18.a1_in1k"
DENSENET = "densenet121.ra_in1k"
EFFICIENTNET = "efficientnet_b3.ra2_in1k"
# Ours, torchvision's, the name of its head there, and all tensors of a state dict.
FAMILIES = {
    "ResNet18": (RESNET, "resnet18", "fc", 122),
    "DenseNet121": (DENSENET, "densenet121", "classifier", 727),
    "EfficientNetB3": (EFFICIENTNET, "efficientnet_b3", "classifier.1", 574),
}
# timm's are named as ours are, whatever the family; torchvision's seldom, but in a ResNet.
PUBLISHED = [
    pytest.param(
        library, *family, id=f"{name}-{library}",
        marks=[] if (library == "timm") == (name == "ResNet18") else [pytest.mark.slow],
    )
    for library in ("timm", "torchvision")
    for name, family in FAMILIES.items()
]  # fmt: skip


@lru_cache
def built(architecture, head):
    torch.manual_seed(4)
    return build(architecture, head)


def ours(architecture, head=Head()):  # noqa: B008  # it is frozen
    """A network of ours with the same random weights each time: drawing them takes long."""
    return deepcopy(built(architecture, head))


def lived_in(network):
    """Give a network the scales of a trained one: batch norm has seen what passes through it."""
    for layer in network.eval().modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.bias, std=0.2)
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        network(torch.randn(8, 1, 96, 96).expand(-1, 3, -1, -1))
    return network.eval()


def features_in(network, head, images):
    """Return what a network hands to its last linear layer."""
    seen = []
    layer = network.get_submodule(head)
    with torch.no_grad(), layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        network(images)
    return seen[0]


@pytest.fixture(scope="module")
def published():
    """A network of theirs by (library, name), built once: three colours, a thousand classes."""
    made = {}

    def get(library, name):
        if (library, name) not in made:
            torch.manual_seed(5)
            make = timm.create_model if library == "timm" else torchvision.models.get_model
            off = {"pretrained": False} if library == "timm" else {"weights": None}
            made[library, name] = lived_in(make(name, **off))
        return made[library, name]

    return get


@pytest.mark.parametrize(("library", "architecture", "theirs", "head", "count"), PUBLISHED)
def test_every_tensor_of_a_published_network_is_accounted_for(
    tmp_path, published, library, architecture, theirs, head, count
):
    name = architecture if library == "timm" else theirs
    head = head if library == "torchvision" else head.removesuffix(".1")
    source, path, network = published(library, name), tmp_path / "theirs.pth", ours(architecture)
    torch.save(source.state_dict(), path)
    told = load_weights(network, architecture, str(path))
    assert told == (
        f"starts from theirs.pth: {count - 2} of {count} tensors taken, the head starts afresh; "
        f"left out: {head}.weight, {head}.bias (a head of 1000 classes)"
    )
    # In double precision, so that only the kernels' sum over the colours has been rounded.
    torch.manual_seed(6)
    grey = torch.randn(2, 1, 96, 96, dtype=torch.float64)
    expected = features_in(deepcopy(source).double(), head, grey.expand(-1, 3, -1, -1))
    body, _ = split_before(network.double().eval(), head_name(network))
    with torch.no_grad():
        found = body(grey)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4


def test_torchvision_s_first_densenet_files_are_read(tmp_path, published):
    """They hold norm.1 and conv.2 where newer ones hold norm1 and conv2, and no counters."""
    newer = published("torchvision", "densenet121").state_dict()
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in newer.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    torch.save(older, tmp_path / "older.pth")
    network = ours(DENSENET)
    assert "604 of 606 tensors taken" in load_weights(
        network, DENSENET, str(tmp_path / "older.pth")
    )
    name = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(network.state_dict()[name], newer[name])


def test_a_deeper_head_of_ours_is_not_mixed_with_torchvision_s(tmp_path, published):
    """Both call a layer classifier.1: ours is the first hidden one, theirs has 1000 classes."""
    theirs, deep = tmp_path / "theirs.pth", Head(widths=(256,), dropout=0.3)
    torch.save(published("torchvision", "efficientnet_b3").state_dict(), theirs)
    network = ours(EFFICIENTNET, deep)
    before = network.classifier[1].weight.clone()
    assert load_weights(network, EFFICIENTNET, str(theirs)).endswith("(a head of 1000 classes)")
    assert torch.equal(network.classifier[1].weight, before)
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    again = ours(EFFICIENTNET, deep)
    nn.init.zeros_(again.classifier[1].weight)
    told = load_weights(again, EFFICIENTNET, str(tmp_path / "ours.safetensors"))
    assert told.endswith("576 of 576 tensors taken, with its head")
    assert torch.equal(again.classifier[1].weight, before)


@pytest.mark.parametrize(
    ("larger", "architecture", "reason"),
    [
        ("resnet34", RESNET, r"layer1\.2\.conv1\.weight.* and \d+ more have no place in it"),
        ("resnet50", RESNET, r"\d+ of 100 tensors fit, layer1\.0\.conv1\.weight does not"),
        pytest.param("densenet169", DENSENET, r"\d+ of 604 tensors fit, \S+ does not",
                     marks=pytest.mark.slow),
        ("efficientnet_b1", EFFICIENTNET, r"\d+ of 494 tensors fit, \S+ does not"),
        pytest.param("efficientnet_v2_s", EFFICIENTNET, r"\d+ of 494 tensors fit, \S+ does not",
                     marks=pytest.mark.slow),
        ("resnet18", DENSENET, r"0 of 604 tensors fit, \S+ does not"),
    ],
)  # fmt: skip
def test_a_published_network_of_another_kind_is_refused(tmp_path, larger, architecture, reason):
    path = tmp_path / "other.pth"
    with torch.device("meta"):
        names = torchvision.models.get_model(larger, weights=None).state_dict()
    torch.save({name: torch.zeros(()).expand(one.shape) for name, one in names.items()}, path)
    remedy = f"give weights of {architecture}, as timm or torchvision saves them"
    with pytest.raises(UserError, match=rf"^\S*other\.pth: is for another.*{reason}; {remedy}$"):
        load_weights(ours(architecture), architecture, str(path))


@pytest.fixture(scope="module")
def state():
    """The state of a network as it is published: three colours, a thousand classes."""
    torch.manual_seed(3)
    tensors = {name: value.clone() for name, value in build(RESNET, Head()).state_dict().items()}
    tensors["conv1.weight"] = torch.randn(64, 3, 7, 7)
    tensors["fc.weight"], tensors["fc.bias"] = torch.randn(1000, 512), torch.randn(1000)
    return tensors


def fresh():
    return ours(RESNET)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_a_file_fills_all_but_the_head(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    network = fresh()
    head = network.fc.weight.clone()
    told = load_weights(network, RESNET, str(path))
    left = "fc.bias, fc.weight" if path.suffix == ".safetensors" else "fc.weight, fc.bias"
    assert told == (
        f"starts from {name}: 120 of 122 tensors taken, the head starts afresh; "
        f"left out: {left} (a head of 1000 classes)"
    )
    assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    grey = state["conv1.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(network.conv1.weight, grey)
    assert torch.equal(network.fc.weight, head)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        ("state_dict", "module.encoder.backbone."),
        ("state_dict", "model."),
        ("model", "model."),
        ("model", "module."),
        ("model_state_dict", "_orig_mod."),
    ],
)
def test_wrapped_checkpoints_with_prefixed_names_are_read(tmp_path, state, wrapper, prefix):
    path = tmp_path / "checkpoint.pth"
    wrapped = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "optimizer": {"state": {}}, wrapper: wrapped}, path)
    found = read_state(path)
    assert found.tensors.keys() == state.keys()
    assert found.file_names["fc.bias"] == f"{prefix}fc.bias"
    assert prefix + "fc.weight" in fit_state(fresh(), RESNET, found)


def test_moving_averages_are_taken_before_the_weights_beside_them(tmp_path, state):
    """As torchvision's training script writes them."""
    averages = {f"module.{name}": value for name, value in state.items()}
    averages |= {"n_averaged": torch.tensor(7), "module.conv1.weight": torch.ones(64, 3, 7, 7)}
    torch.save({"model": state, "model_ema": averages}, tmp_path / "both.pth")
    network = fresh()
    told = load_weights(network, RESNET, str(tmp_path / "both.pth"))
    assert "120 of 123 tensors (moving averages) taken, the head starts afresh" in told
    assert told.endswith("module.fc.bias (a head of 1000 classes), n_averaged (a counter)")
    assert network.conv1.weight.unique().tolist() == [3.0]


def test_tensors_of_no_part_of_the_network_are_told(tmp_path, state):
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    extra = {f"projector.{layer}.weight": torch.ones(2, 2) for layer in range(4)}
    torch.save(body | extra | {"bad\nname": torch.ones(1)}, tmp_path / "contrastive.pth")
    told = load_weights(fresh(), RESNET, str(tmp_path / "contrastive.pth"))
    assert told == (
        "starts from contrastive.pth: 120 of 125 tensors taken, the head starts afresh; "
        "left out: projector.0.weight, projector.1.weight and 3 more (no part of this network)"
    )


def test_two_networks_in_one_file_are_refused(tmp_path, state):
    torch.save(state | {"module.fc.bias": state["fc.bias"]}, tmp_path / "two.pth")
    told = "holds two networks: fc.bias and module.fc.bias are the same tensor; save one"
    with pytest.raises(UserError, match=rf"two\.pth: {told}"):
        read_state(tmp_path / "two.pth")


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    loop = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    with pytest.raises(UserError, match="holds no weights"):
        read_state(tmp_path / "loop.pth")


def test_a_head_of_the_same_shape_is_taken(tmp_path):
    path, source = tmp_path / "own.safetensors", fresh()
    torch.nn.init.constant_(source.fc.weight, 0.5)
    save_file(source.state_dict(), path)
    network = fresh()
    told = load_weights(network, RESNET, str(path))
    assert told == "starts from own.safetensors: 122 of 122 tensors taken, with its head"
    assert network.fc.weight.unique().tolist() == [0.5]


def test_no_weights_change_nothing():
    network, other = fresh(), fresh()
    assert "random" in load_weights(network, RESNET, "none")
    assert torch.equal(network.conv1.weight, other.conv1.weight)


def test_imagenet_is_taken_from_the_cache_without_a_network(tmp_path, monkeypatch, state):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / f"models--timm--{RESNET}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    network = fresh()
    told = load_weights(network, RESNET, "imagenet")
    assert told.startswith("starts from ImageNet: 120 of 122 tensors taken")
    assert torch.equal(network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_imagenet_without_network_names_the_file_its_folder_and_the_other_ways(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place = re.escape(str(tmp_path / "hub" / f"models--timm--{RESNET}" / "snapshots" / "main"))
    ways = rf"copy model.safetensors of https://huggingface.co/timm/{RESNET} to {place}, or give "
    with pytest.raises(UserError, match=rf"{RESNET}: not on this machine.*{ways}"):
        load_weights(fresh(), RESNET, "imagenet")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0001, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, state, suffix, share):
    path = tmp_path / f"cut{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    told = rf"^.*cut{suffix}: is truncated or not a weights file.*; download or copy it again$"
    with pytest.raises(UserError, match=told) as refusal:
        load_weights(fresh(), RESNET, str(path))
    assert "\n" not in str(refusal.value)


def test_a_file_of_torch_before_1_6_is_read_and_refused_when_truncated(tmp_path, state):
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert len(read_state(path).tensors) == 122
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"old\.pth: is truncated"):
        read_state(path)


class Bomb:
    """Would raise in the reader if its code were run."""

    def __reduce__(self):
        return exec, ("raise RuntimeError('code was run')",)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_pickled_code_is_refused_and_not_run(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    torch.save({"state_dict": Bomb()}, path)
    told = rf"^.*bomb{suffix}: holds pickled code \(exec\), which is not run; save only its.*$"
    with pytest.raises(UserError, match=told):
        load_weights(fresh(), RESNET, str(path))
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(UserError, match=told):
        load_weights(fresh(), RESNET, str(path))
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(
        UserError, match=r"is a plain pickle, which can hold code and is not opened"
    ):
        load_weights(fresh(), RESNET, str(path))


def test_a_whole_network_is_refused_as_code(tmp_path):
    torch.save(fresh(), tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r"holds pickled code \(timm\.models\.resnet\.ResNet\)"):
        read_state(tmp_path / "whole.pt")


def test_another_architecture_changes_nothing(tmp_path, state):
    network = ours(DENSENET)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"is for another network: 0 of 604 tensors fit"):
        load_weights(network, DENSENET, str(tmp_path / "resnet.safetensors"))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.pth", None, "no such file"),
        ("notes.txt", b"hello", "is not a weights file"),
        ("text.pth", b"hello world, this is text", "is not a weights file, whatever its name"),
        ("table.pt", b"a,b\n1,2\n", "is not a weights file, whatever its name"),
        ("code.pth", b"conv1.weight\nfc.bias\n", "is not a weights file, whatever its name"),
        ("empty.pth", b"", "is not a weights file, whatever its name"),
        ("noise.pth", b"\x80" + b"noise" * 99, "is truncated or not a weights file"),
        ("text.safetensors", b"hello world, this is text", "is truncated or not a weights file"),
        ("empty.safetensors", b"", "is truncated or not a weights file"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^.*{re.escape(name)}: {reason}.*$") as refusal:
        load_weights(fresh(), RESNET, str(tmp_path / name))
    assert "\n" not in str(refusal.value)


def test_whole_numbers_are_no_weights_and_half_precision_is(tmp_path, state):
    name = "layer1.0.conv1.weight"
    torch.save(state | {name: state[name].half()}, tmp_path / "half.pt")
    assert "120 of 122" in load_weights(fresh(), RESNET, str(tmp_path / "half.pt"))
    torch.save(state | {name: (9 * state[name]).to(torch.int8)}, tmp_path / "int8.pt")
    with pytest.raises(UserError, match=rf"99 of 100 tensors fit, {name} does not"):
        load_weights(fresh(), RESNET, str(tmp_path / "int8.pt"))
