"""What trainings will take is said before they begin; the table behind it is that of the models."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from models.anomaly.patchcore import PATCH_STRIDE
from models.networks import build, freeze, parameter_counts, split_before
from models.registry import MODELS
from models.training import budget
from models.training.budget import (
    COSTS,
    Planned,
    convolution_speed,
    estimates_of,
    plan,
    scoring_seconds,
    sentence,
    training_estimate,
)
from models.training.queue import train_each
from pipeline.errors import UserError
from pipeline.resources import machine
from pipeline.resources.sizes import bytes_of
from tests.conftest import ROOT
from tests.models.datasets import make_dataset

LIGHT = """
import sys
from models.training.budget import Planned, training_estimate
found = training_estimate(Planned("DenseNet121_PFT", 1000, 200, epochs=30, device="cpu"))
assert found.seconds > 60 and found.size > 1e8, found
assert not {"torch", "timm", "sklearn"} & set(sys.modules)
"""


@pytest.mark.parametrize("row", MODELS.values(), ids=lambda row: row.name)
def test_the_table_has_every_model_as_it_is(row):
    cost, network = COSTS[row.name], build(row.architecture, row.head)
    freeze(network, row.trained_from)
    assert (cost.parameters, cost.trained) == parameter_counts(network)
    features = 0
    if row.trained_from and not row.is_detector:  # of which none are kept
        frozen, _ = split_before(network, row.trained_from)
        with torch.no_grad():
            features = frozen.eval()(torch.zeros(1, 1, 224, 224)).numel()
    assert cost.features == features


def test_it_grows_with_images_pixels_and_epochs():
    few = training_estimate(Planned("ResNet18_CFT", 100, 20, epochs=5, device="cpu"))
    for more in ({"train": 400}, {"size": 448}, {"epochs": 20}):
        given = {"train": 100, "val": 20, "epochs": 5, "device": "cpu"} | more
        assert training_estimate(Planned("ResNet18_CFT", **given)).seconds > 2 * few.seconds
    probe = [training_estimate(Planned("ResNet18_OPW", 100, 20, epochs=epochs, device="cpu"))
             for epochs in (5, 50)]  # fmt: skip
    assert probe[0] == probe[1]
    assert probe[0].seconds < few.seconds
    plain = Planned("ResNet18_CFT", 100, 20, device="cpu")
    assert 0 < scoring_seconds(plain, 100) < training_estimate(plain).seconds


def test_images_that_are_decoded_are_not_counted_again(options_for, tmp_path):
    both = [options_for(tmp_path, size=56, seed=seed) for seed in (1, 2)]
    first, second = plan(both)
    assert (first.decoded, second.decoded) == (False, True)
    difference = training_estimate(first).size - training_estimate(second).size
    assert difference == 48 * 56**2
    assert (first.train, first.val, first.others) == (24, 12, 12)


def test_a_detector_learns_from_normal_images_alone_and_all_are_decoded(options_for, tmp_path):
    options = options_for(tmp_path, model="CAE", size=64)
    (detector,) = plan([options])
    (classifier,) = plan([replace(options, model="MammoCNN")])
    assert (detector.train, detector.val, detector.others) == (12, 12, 24)
    assert (classifier.train, classifier.val, classifier.others) == (24, 12, 12)
    counts = {"train": 24, "val": 12, "test": 12}
    (before, _, _), (fewer, _, _) = (estimates_of(options, counts, n, 64**2) for n in (24, 12))
    assert fewer.seconds < before.seconds
    assert fewer.size == before.size


def test_the_batch_is_the_one_that_training_takes(options_for, tmp_path):
    for weights, batch in (("imagenet", 16), ("none", 8)):
        (planned,) = plan(
            [options_for(tmp_path, model="ResNet18_CFT", weights=weights, batch_size=0)]
        )
        assert planned.batch_size == batch


def test_choosing_the_patches_is_counted_up_to_those_that_are_looked_at(monkeypatch):
    monkeypatch.setattr(budget, "speed", lambda _precision: 1e9)  # what networks compute is free
    assert budget.PATCH_SIDE == PATCH_STRIDE
    few, many, more = (
        training_estimate(Planned("PatchCore", images, 0, size=64, device="cpu", decoded=True))
        for images in (10, 320, 640)
    )
    assert many.seconds - few.seconds > 2 * (more.seconds - many.seconds)


def test_without_torch_bfloat16_is_known_by_the_processor(monkeypatch, options_for, tmp_path):
    (tmp_path / "flags").write_text("flags : fpu avx512f avx512_bf16 sse\n")
    monkeypatch.setattr(machine, "CPU_FACTS", tmp_path / "flags")
    assert [one.precision for one in plan([options_for(tmp_path, precision="auto")])] == ["bf16"]
    monkeypatch.setattr(machine, "CPU_FACTS", tmp_path / "none")
    assert [one.precision for one in plan([options_for(tmp_path, precision="auto")])] == ["fp32"]
    assert [one.precision for one in plan([options_for(tmp_path, precision="bf16")])] == ["bf16"]
    planned = Planned("CAE", 100, 20, device="cpu", precision="bf16")
    assert scoring_seconds(planned, 100) == scoring_seconds(replace(planned, precision="fp32"), 100)


def test_on_a_gpu_the_time_is_left_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    planned = Planned("ResNet18_CFT", 100, 20)
    assert training_estimate(planned).seconds is None
    assert training_estimate(replace(planned, device="mps")).seconds is None
    assert training_estimate(replace(planned, device="cpu")).seconds > 0
    text = sentence([planned])
    assert text.startswith("About 0.2 GB of disk; how long it takes, the first steps will show.")


def test_the_sentence_names_the_longest_models_and_stopping_early():
    planned = [Planned(name, 500, 100, device="cpu") for name in MODELS]
    text = sentence(planned)
    assert text.startswith("About ")
    assert " on this processor (" in text
    assert text.count("_") <= 3  # three models
    assert text.endswith(" GB of disk; stopping early ends it sooner.")
    assert "early" not in sentence([Planned("ResNet18_OPW", 500, 100, device="cpu")])


def test_it_is_said_before_the_first_epoch_and_holds_of_the_disk(options_for, listener, tmp_path):
    data = make_dataset(tmp_path / "data")
    before = bytes_of(data)
    options = options_for(tmp_path / "runs", model="ResNet18_PFT", data=data)
    (planned,) = plan([options])
    train_each(options, listener)
    assert listener.lines[0].startswith("About ")
    assert " on this processor and " in listener.lines[0]
    left = bytes_of(tmp_path / "runs") + bytes_of(data) - before
    checkpoint = 12 * COSTS["ResNet18_PFT"].trained  # which is gone
    assert left / 1.2 < training_estimate(planned).size - checkpoint < left * 1.2


def test_a_queue_says_it_once_for_what_is_left(options_for, few_data, listener, tmp_path):
    quick = {"data": few_data, "model": "MammoCNN", "size": 32}
    options = options_for(tmp_path, seeds=2, **quick)
    train_each(options_for(tmp_path, **quick), listener)
    listener.lines.clear()
    train_each(options, listener)
    assert listener.lines[0].startswith("2 trainings; 1 done before")
    assert [line for line in listener.lines if line.startswith("About")] == [listener.lines[1]]
    listener.lines.clear()
    train_each(options, listener)
    assert not [line for line in listener.lines if line.startswith("About")]


def test_what_is_wrong_with_the_data_is_said_by_the_training(options_for, listener, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        train_each(options_for(tmp_path, data=tmp_path / "none"), listener)
    assert listener.lines == []


def test_the_measurement_draws_no_random_number():
    before = torch.get_rng_state()
    convolution_speed.cache_clear()
    assert convolution_speed() > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_it_needs_no_torch():
    subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, check=True)
