"""Frozen layers are computed once, and training on what they gave is training all the same."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.data.loading import EvalTransform, TrainTransform, batches, load_split
from models.inference import load_run
from models.networks import build, freeze, normalisation, recalibration_mode, train_mode
from models.registry import MODELS
from models.training.loop import calibration_images
from models.training.optimisation import make_optimizer, make_schedule
from models.training.stage import hyper_parameters_of, train
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from tests.models.datasets import make_dataset

FROZEN = "ResNet18_PFT", "DenseNet121_PFT", "EfficientNetB3_PFT"
FEW = {"train": 6, "val": 2}
# On fewer pixels batch norm would see a handful of values, and a last digit that differs would
# grow from step to step.
LARGE = 96
KEPT = "DenseNet121_PFT"


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "data" / "preprocessed", FEW)


def plain_loop(options):
    """Train as anybody would, every image through every layer; return the network."""
    row = MODELS[options.model]
    hparams, rows = hyper_parameters_of(options, row), read_manifest(options.data)
    torch.manual_seed(options.seed)
    network = build(row.architecture, row.head).to(memory_format=torch.channels_last)
    freeze(network, row.trained_from)
    split = load_split(options.data, rows, "train", LARGE, 1, Silent())
    transform = EvalTransform(*normalisation(row.architecture), torch.device("cpu"))
    augmented = TrainTransform(transform, hparams.augment, hparams.seed)
    cuts = [
        batches(len(split), hparams.batch_size, np.random.default_rng(
            (hparams.seed, epoch)).permutation(len(split)))
        for epoch in range(1, hparams.epochs + 1)
    ]  # fmt: skip
    optimizer = make_optimizer(network, hparams)
    schedule = make_schedule(optimizer, sum(map(len, cuts)))
    malignant = split.targets.sum()
    weight = torch.tensor((len(split) - malignant) / malignant)
    for epoch, cut in enumerate(cuts):
        train_mode(network, row.trained_from)
        for indices in cut:
            optimizer.zero_grad()
            scores = network(augmented(split, indices, epoch % hparams.variants)).squeeze(1)
            targets = torch.from_numpy(split.targets[indices])
            nn.functional.binary_cross_entropy_with_logits(
                scores, targets, pos_weight=weight
            ).backward()
            nn.utils.clip_grad_norm_(network.parameters(), hparams.clip)
            optimizer.step()
            schedule.step()
        with recalibration_mode(network, row.trained_from), torch.no_grad():
            calibration = calibration_images(len(split), hparams)
            for indices in batches(len(calibration), hparams.batch_size, calibration):
                network(transform(split.images[indices]))
    return network


def scores_of(network, architecture, data):
    val = load_split(data, read_manifest(data), "val", LARGE, 1, Silent())
    transform = EvalTransform(*normalisation(architecture), torch.device("cpu"))
    with torch.no_grad():
        return network.eval()(transform(val.images[:])).squeeze(1).sigmoid().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", FROZEN)
def test_training_on_kept_outputs_equals_the_plain_loop(name, data, options_for, tmp_path):
    given = {"epochs": 2, "augment": "flip", "variants": 2, "learning_rate": 3e-4, "batch_size": 6}
    options = options_for(tmp_path / "runs", data=data, model=name, size=LARGE, **given)
    result = train(options, Silent())
    assert load_run(result.folder).facts["model"] == name
    assert any("frozen layers are random" in note for note in result.notes)
    expected = plain_loop(options)
    architecture = MODELS[name].architecture
    found = build(architecture, MODELS[name].head)
    found.load_state_dict(load_file(result.folder / "last.safetensors"))
    ours, theirs = (scores_of(network, architecture, options.data) for network in (found, expected))
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.ptp(theirs) > 1e-3


# --- what is kept, and for whom


@pytest.fixture(scope="module")
def first(options_for, tmp_path_factory):
    """A run with frozen layers and its data, which keep their outputs; not to be written to."""
    folder = tmp_path_factory.mktemp("frozen")
    data = make_dataset(folder / "data", FEW)
    return data, train(options_for(folder / "runs", data=data, model=KEPT), Silent()).folder


@pytest.fixture
def kept(first, tmp_path):
    """A copy of that data: with the same times, so that nobody takes it for changed."""
    return shutil.copytree(first[0], tmp_path / "kept")


def assert_same(folder, other):
    first, second = (load_file(x / "weights.safetensors") for x in (folder, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


class Counting(Silent):
    """Counts the images that pass through frozen layers."""

    def __init__(self):
        self.images = 0

    def track(self, text, total, unit, done=0):
        self.images += total if text.startswith("Frozen layers") else 0
        return super().track(text, total, unit, done)


def count(options):
    progress = Counting()
    train(options, progress)
    return progress.images


@pytest.mark.slow
def test_the_next_run_finds_them_and_another_network_does_not(kept, options_for, tmp_path):
    def frozen(**given):
        return count(options_for(tmp_path / "runs", data=kept, model=KEPT, **given))

    assert frozen(weight_decay=0.5) == 0
    assert frozen(seed=7) > 0
    turned = {"augment": "flip", "variants": 2, "epochs": 2}
    assert frozen(**turned) > 0
    assert frozen(**turned) == 0


def test_read_outs_share_them_too(data, options_for, tmp_path):
    options = options_for(tmp_path / "runs", data=data, model="ResNet18_OPW", size=32)
    assert count(options) > 0
    assert count(options) == 0


def test_a_changed_image_is_seen(kept, options_for, tmp_path):
    images = sorted(path for path in (kept / "train").rglob("*.png"))
    images[0].write_bytes(images[1].read_bytes())
    assert count(options_for(tmp_path / "runs", data=kept, model=KEPT)) > 0


def test_a_damaged_file_is_made_again(first, kept, options_for, tmp_path):
    for path in (kept / ".cache" / "frozen").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    again = train(options_for(tmp_path / "runs", data=kept, model=KEPT), Silent())
    assert_same(again.folder, first[1])


def test_where_nothing_can_be_kept_it_goes_to_memory(first, kept, options_for, tmp_path, listener):
    shutil.rmtree(kept / ".cache" / "frozen")
    (kept / ".cache" / "frozen").write_text("in the way")
    again = train(options_for(tmp_path / "runs", data=kept, model=KEPT), listener)
    assert any("cannot be used, so it goes to memory" in line for line in listener.lines)
    assert_same(again.folder, first[1])
