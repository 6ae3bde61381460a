import pickle

import pytest
import torch
from safetensors.torch import save_file

from models.networks import build
from models.registry import Head
from models.weights import fit_state, load_weights, read_state
from pipeline.errors import UserError

RESNET = "resnet18.a1_in1k"


@pytest.fixture(scope="module")
def state():
    """The state of a network as it is published: three colours, a thousand classes."""
    torch.manual_seed(3)
    tensors = {name: value.clone() for name, value in build(RESNET, Head()).state_dict().items()}
    tensors["conv1.weight"] = torch.randn(64, 3, 7, 7)
    tensors["fc.weight"], tensors["fc.bias"] = torch.randn(1000, 512), torch.randn(1000)
    return tensors


def fresh():
    torch.manual_seed(4)
    return build(RESNET, Head())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_a_file_fills_all_but_the_head(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    network = fresh()
    head = network.fc.weight.clone()
    told = load_weights(network, RESNET, str(path))
    assert told == f"starts from {name}: 100 tensors, the head starts afresh"
    assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    grey = state["conv1.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(network.conv1.weight, grey)
    assert torch.equal(network.fc.weight, head)


def test_wrapped_checkpoints_with_prefixed_names_are_read(tmp_path, state):
    path = tmp_path / "checkpoint.pth"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, path)
    assert read_state(path).keys() == state.keys()


def test_a_head_of_the_same_shape_is_taken(tmp_path):
    path, source = tmp_path / "own.safetensors", fresh()
    torch.nn.init.constant_(source.fc.weight, 0.5)
    save_file(source.state_dict(), path)
    network = fresh()
    assert load_weights(network, RESNET, str(path)).endswith("with its head")
    assert network.fc.weight.unique().tolist() == [0.5]


def test_no_weights_change_nothing():
    network, other = fresh(), fresh()
    assert "random" in load_weights(network, RESNET, "none")
    assert torch.equal(network.conv1.weight, other.conv1.weight)


def test_imagenet_is_taken_from_the_cache_without_a_network(tmp_path, monkeypatch, state):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / f"models--timm--{RESNET}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    network = fresh()
    assert load_weights(network, RESNET, "imagenet").startswith("starts from ImageNet: 100 tensors")
    assert torch.equal(network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_imagenet_without_network_names_the_three_ways(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ways = r"run once with a network, or give --weights FILE, or --weights none"
    with pytest.raises(UserError, match=rf"{RESNET}: not on this machine.*{ways}"):
        load_weights(fresh(), RESNET, "imagenet")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(tmp_path, state, suffix):
    path = tmp_path / f"cut{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=rf"cut{suffix}: is truncated"):
        read_state(path)


class Bomb:
    """Would raise in the reader if its code were run."""

    def __reduce__(self):
        return exec, ("raise RuntimeError('code was run')",)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(UserError, match="holds pickled code, which is not run"):
        read_state(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"bomb\.pth: holds pickled code"):
        read_state(path)


def test_another_architecture_is_refused_and_changes_nothing(tmp_path, state):
    network = build("densenet121.ra_in1k", Head())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"is for another network: 0 of \d+ tensors fit"):
        fit_state(network, state, tmp_path / "resnet.pth")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.pth", None, "no such file"),
        ("notes.txt", b"hello", "is not a weights file"),
        ("text.pth", b"hello world, this is text", "text.pth: "),
        ("empty.safetensors", b"", "is truncated or damaged"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        load_weights(fresh(), RESNET, str(tmp_path / name))


@pytest.mark.parametrize("found", [{}, {"epoch": 3}, [1, 2]])
def test_a_file_without_tensors_is_refused(tmp_path, found):
    torch.save(found, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt: holds no weights"):
        read_state(tmp_path / "odd.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a": torch.tensor([float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="not finite"):
        read_state(tmp_path / "nan.pt")
