"""Two processes do what one does: shares, layers, gradients, and one voice at the terminal."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data.loading import load_split
from models.evaluation.calibration import logistic
from models.inference import choose_compute, image_logits, load_run
from models.training.exact_layers import PreciseConv2d, PreciseDepthwise2d, PreciseLinear
from models.training.shared_layers import share_layers
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.processes import World, world_here
from pipeline.progress import Silent
from pipeline.runs import list_runs, list_unfinished
from pipeline.work import worker_count
from tests.conftest import OFFLINE, ROOT
from tests.models.training.test_resume import Stopping

# --- shares


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 20])
def test_shares_are_all_of_it_in_order_and_differ_by_at_most_one(size, count):
    worlds = [World(rank, size, rank, size) for rank in range(size)]
    shares = [world.share(range(count)) for world in worlds]
    assert [index for share in shares for index in share] == list(range(count))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_the_world_is_what_torchrun_says():
    assert world_here({"PATH": "/bin"}) == World()
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    world = world_here(told)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert world.several
    assert not world.first
    for wrong in ({"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "4"}):
        with pytest.raises(UserError, match=r"RANK=.*contradict each other; start it with torchru"):
            world_here(told | wrong)


def test_the_processes_of_a_machine_share_its_cores(monkeypatch):
    cores = worker_count(0)
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert worker_count(0) == max(1, cores // 2)
    assert worker_count(3) == 3


# --- threads


def test_steps_are_alike_with_any_number_of_threads():
    network = torch.nn.Sequential(  # of the kinds whose sums are cut among threads
        torch.nn.Conv2d(256, 256, 3, padding=1, groups=256, bias=False),
        torch.nn.Conv2d(256, 1392, 1),
        torch.nn.Conv2d(1392, 232, 1, stride=2, bias=False),
        torch.nn.Flatten(),
        torch.nn.Linear(232 * 25, 512),
    )
    plain = copy.deepcopy(network)
    share_layers(network, World(), exact=True)
    kinds = [PreciseDepthwise2d, PreciseConv2d, PreciseConv2d, torch.nn.Flatten, PreciseLinear]
    assert [type(one) for one in network] == kinds
    images = torch.randn(5, 256, 10, 10).contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)

    def gradients(layers, count):
        torch.set_num_threads(count)
        layers.zero_grad()
        inputs = images.clone().requires_grad_()
        output = layers(inputs)
        (output * torch.arange(512)).sum().backward()
        return [output.detach(), inputs.grad, *(one.grad.clone() for one in layers.parameters())]

    threads = torch.get_num_threads()
    try:
        one, two, three = (gradients(network, count) for count in (1, 2, 3))
        expected = gradients(plain, 1)
    finally:
        torch.set_num_threads(threads)
    for other in (two, three):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for found, wanted in zip(one, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)


def test_gradients_of_a_share_are_stored_as_the_weights_are():
    """Else DistributedDataParallel warns, and copies them at every step."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, groups=8, bias=False),
        torch.nn.Conv2d(8, 12, 1),
        torch.nn.Conv2d(12, 4, 1, stride=2, bias=False),
    ).to(memory_format=torch.channels_last)
    share_layers(network, World(), exact=True)
    one_share = torch.randn(1, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    network(one_share).sum().backward()
    for parameter in network.parameters():
        assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize("kind", [torch.nn.SiLU, torch.nn.Sigmoid])
def test_activations_are_alike_with_any_number_of_threads(kind):
    plain = kind()
    values = 4 * torch.randn(4096)
    alone = torch.cat([plain(value) for value in values.split(1)])  # without vector instructions
    telling = values[plain(values) != alone]
    if not len(telling):
        pytest.skip("this processor gives the same without vector instructions")
    layers = torch.nn.Sequential(kind())
    share_layers(layers, World(), exact=True)
    images = telling[0].repeat(10, 817, 3, 3).contiguous(memory_format=torch.channels_last)

    def found(count):
        torch.set_num_threads(count)
        inputs = images.clone().requires_grad_()
        output = layers(inputs)
        output.sum().backward()
        assert output.stride() == images.stride()
        return output.detach(), inputs.grad

    threads = torch.get_num_threads()
    try:
        (one, slope), *others = (found(count) for count in range(1, 7))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one[:5], one[5:])
    torch.testing.assert_close(one, plain(images))
    for output, gradient in others:
        assert torch.equal(output, one)
        assert torch.equal(gradient, slope)


# --- two processes, started once for all there is to see: that takes seconds


def begin(options_for, folder):
    """Return a run that ended, and the folder of a run of the same that stopped after an epoch."""
    given = {"model": "MammoCNN", "epochs": 2, "batch_size": 7, "size": 48, "ema": 0.8}
    given |= {"augment": "flip", "learning_rate": 3e-4, "mixup": 0.2}
    whole = train(options_for(folder / "whole", **given), Silent())
    with pytest.raises(KeyboardInterrupt):
        train(options_for(folder / "begun", **given), Stopping(5))
    return whole.folder, folder / "begun"


def start(folder, runs):
    """Return what each of two processes found; see tests.models.ranks."""
    command = [sys.executable, "-m", "tests.models.ranks", "found.json", str(runs)]
    environment = OFFLINE | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run(command, cwd=folder, env=environment, **quiet)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def val_probabilities(folder):
    model, compute = load_run(folder), choose_compute("cpu", "fp32")
    data = Path(model.facts["data"])
    val = load_split(data, read_manifest(data), "val", model.size, 1, Silent())
    scores = image_logits(model.network, val.images, model.transform(compute), compute)
    assert len(scores) == 12
    return logistic(scores)


def test_two_processes_compute_and_tell_what_one_does(options_for, tmp_path):
    whole, runs = begin(options_for, tmp_path)
    ranks = start(tmp_path, runs)
    check_messages(ranks)
    check_layers(ranks)
    check_voice(ranks)
    # A training that one process began, two have ended.
    (first, out, told), second = (rank["resumed"] for rank in ranks)
    assert first == 0, told
    assert second == [0, "", ""]
    assert out.count("Continues from the checkpoint after epoch 1 of 2") == 1
    (run,) = list_runs(runs)
    assert list_unfinished(runs) == []
    assert np.abs(val_probabilities(whole) - val_probabilities(run.folder)).max() < 1e-4


def check_messages(ranks):
    for found in ranks:
        assert found["shares"] is True
        assert found["agreement"] is True
        assert found["mistakes"] == ["rank 1: made by 1; do better", "made by 0; do better"]


def check_layers(ranks):
    """Batch norm, dropout and gradients of shares are those of the whole batch."""
    exact = ["frozen", "Dropout of 5", "Dropout2d of 5"]
    norms = [f"{kind} of {n}" for kind in ("BatchNorm2d", "BatchNormAct2d") for n in (1, 5, 8)]
    networks = [f"{name} of 5" for name in ("ResNet18_CFT", "DenseNet121_PFT", "MammoCNN")]
    limits = dict.fromkeys([*norms, "BatchNorm2d settling"], 3e-6)
    limits |= dict.fromkeys([*networks, "MammoCNN of 1"], 2e-5)
    for found in ranks:
        assert [found[name] for name in exact] == [True, 0, 0]
        assert {name: found[name] for name, limit in limits.items() if found[name] > limit} == {}


def check_voice(ranks):
    """A mistake of all is told once, one of another process with its rank; help is printed once."""
    expected = {
        "another stage": (1, "evaluate: runs in one process, and torchrun started 2; run it with"),
        "no stage": (1, "the menu and replays of several stages run in one process"),
        "questions": (1, "train: under torchrun no questions can be asked; give its flags and"),
        "a wrong flag": (2, "--epochs: 0: must be between"),
        "a wrong value": (1, "gone: no such folder; run: python main.py preprocess"),
    }
    for case, (status, text) in expected.items():
        (first, out, told), second = (rank[case] for rank in ranks)
        assert (first, out, told.count("\n")) == (status, "", 1), case
        assert text in told
        assert second == [status, "", ""], case
    first, second = (rank["a wrong value each"] for rank in ranks)
    assert first[2].startswith("main.py: --data: gone0: no such folder")
    assert second[0] == 1
    assert second[2].startswith("main.py: rank 1: --data: gone1: no such folder")
    first, second = (rank["help"] for rank in ranks)
    assert first[0] == second[0] == 0
    assert "usage: main.py train" in first[1]
    assert second[1] == ""
