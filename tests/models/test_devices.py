"""Which device is taken, and in which number format; GPUs are pretended to be there."""

import numpy as np
import pytest
import torch

from main import main
from models.data.loading import EvalTransform, to_device
from models.devices import choose_device, choose_precision, device_name, empty_cache, wait_for
from models.failures import is_out_of_memory
from models.inference import Compute, choose_compute, place
from models.networks import build
from models.registry import MODELS
from models.training.checkpoints import random_state, set_random_state
from models.training.estimate import forget_peak
from pipeline.errors import UserError

MPS, CPU, CUDA = (torch.device(kind) for kind in ("mps", "cpu", "cuda"))


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are GPUs, or none."""

    def pretend(cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "taken"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_processor(gpus, cuda, mps, taken):
    gpus(cuda, mps)
    assert choose_device("auto").type == taken
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cuda", "--device cuda: torch finds no GPU; give --device cpu"),
        ("mps", "--device mps: torch finds no Apple GPU; give --device cpu"),
    ],
)
def test_a_gpu_that_is_not_there_is_one_line(gpus, name, told):
    gpus()
    with pytest.raises(UserError, match=f"^{told}$"):
        choose_compute(name, "auto")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
def test_the_flag_is_known_and_refused_without_a_traceback(tiny_data, tmp_path, capsys):
    words = ["train", "--data", str(tiny_data), "--runs", str(tmp_path / "runs"), "--model"]
    assert main([*words, "MammoCNN", "--device", "mps", "--batch"]) == 1
    told = capsys.readouterr().err
    assert told == "main.py: --device mps: torch finds no Apple GPU; give --device cpu\n"


def test_processes_of_torchrun_do_not_share_the_gpu_of_apple(gpus, monkeypatch):
    gpus(mps=True)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0",
                        "LOCAL_WORLD_SIZE": "2"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="several processes cannot share it; give --device cpu"):
        choose_device("mps")


@pytest.mark.parametrize(
    ("asked", "macos", "precision"),
    [("auto", 15, "fp32"), ("fp32", 15, "fp32"), ("bf16", 15, "bf16"), ("bf16", 13, "fp32")],
)
def test_on_the_gpu_of_apple_bfloat16_is_asked_for(gpus, monkeypatch, asked, macos, precision):
    gpus(mps=True)
    newer = lambda major, _minor: macos >= major  # noqa: E731
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", newer)
    assert choose_precision(MPS, asked) == precision
    assert choose_compute("auto", asked).precision == precision


def test_bfloat16_on_other_devices_is_as_it_was(gpus, monkeypatch):
    gpus(cuda=True)
    older = lambda including_emulation=True: including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", older)
    assert choose_precision(CUDA, "auto") == "fp32"
    assert choose_precision(CUDA, "bf16") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_precision(CUDA, "auto") == "bf16"
    assert choose_precision(CPU, "bf16") == "bf16"
    assert choose_precision(CPU, "fp32") == "fp32"


def test_channels_stay_first_on_the_gpu_of_apple(monkeypatch):
    row = MODELS["ResNet18_CFT"]
    network = build(row.architecture, row.head)
    asked = {}
    monkeypatch.setattr(network, "to", lambda device, memory_format: asked.update(
        device=device, layout=memory_format))  # fmt: skip
    place(network, Compute(MPS, None))
    assert asked == {"device": MPS, "layout": torch.contiguous_format}


def test_images_go_to_a_device_that_has_no_pinned_memory():
    values = np.arange(6, dtype=np.float32)[::2]  # not contiguous
    assert to_device(values, CPU).tolist() == [0, 2, 4]
    transform = EvalTransform(0.5, 0.25, torch.device("meta"))
    assert transform(np.zeros((2, 8, 8), np.uint8)).device.type == "meta"


def test_the_processor_is_waited_for_and_named_and_empties_nothing():
    wait_for(CPU)
    empty_cache()
    assert device_name(CPU).endswith(f", {torch.get_num_threads()} thread"
                                     f"{'s' * (torch.get_num_threads() > 1)}")  # fmt: skip


def test_random_numbers_of_checkpoints_from_before_are_read():
    state = random_state()
    drawn = torch.rand(3)
    del state["mps"]
    set_random_state(state)
    assert torch.equal(torch.rand(3), drawn)


def test_the_peak_of_a_gpu_is_that_of_one_training_of_several(monkeypatch):
    forgotten = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    for device in (CPU, MPS, CUDA):
        forget_peak(device)
    assert forgotten == [CUDA]


def test_a_training_on_the_processor_leaves_the_gpu_alone(gpus, monkeypatch):
    gpus(cuda=True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: pytest.fail("the GPU was asked"))
    assert random_state()["cuda"] == []


@pytest.mark.parametrize(
    "told",
    [
        "MPS backend out of memory (MPS allocated: 9 GB)",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation after trying 9 plans.",
    ],
)
def test_memory_that_a_gpu_lacks_is_known_as_such(told):
    assert is_out_of_memory(RuntimeError(told))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
