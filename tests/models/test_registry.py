import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
from huggingface_hub import constants

from models import pretrained, registry
from models.pretrained import suggested_weights
from models.registry import MODELS, find_model, model_choices, takes_weights
from pipeline.errors import UserError
from pipeline.options import items_of, parse
from pipeline.stages.training import Train

ARCHITECTURES = ("ResNet18", "DenseNet121", "EfficientNetB3")
NAMES = [f"{name}_{how}" for name in ARCHITECTURES for how in ("OPW", "PFT", "CFT")]
RESNET = {"model": "ResNet18_CFT"}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A web server in place of the hub."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.server.asked += 1
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.asked = 200, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def put_in_cache(home, architecture):
    folder = home / "hub" / f"models--timm--{architecture}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")


def test_all_names_that_people_type_exist():
    own = {"EfficientNetB3_Optuna", "MammoCNN"}
    assert set(MODELS) == {*NAMES, *own, "CAE", "CAE_Wide", "VAE", "VAE_Wide", "PatchCore"}


def test_a_duplicate_name_raises():
    row = MODELS["MammoCNN"]
    with pytest.raises(ValueError, match="two models are called MammoCNN"):
        registry.table([row, row])


def test_an_unknown_model_is_refused_with_those_that_exist():
    with pytest.raises(UserError, match=r"ResNet19: no such model; there are: ResNet18_OPW, "):
        find_model("ResNet19")


def test_choices_are_short_and_complete():
    choices = model_choices({})
    assert list(choices) == [*MODELS, "all", "anomaly"]
    assert all(0 < len(text) < 70 for text in choices.values())


def test_only_networks_of_our_own_take_no_weights():
    own = ["MammoCNN", "CAE", "CAE_Wide", "VAE", "VAE_Wide"]
    assert [name for name in MODELS if not takes_weights({"model": name})] == own


def test_cached_weights_are_suggested_and_said(empty_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert suggested_weights(RESNET) == "none"
    choices = pretrained.weights_choices(RESNET)
    assert choices["imagenet"] == "trained on ImageNet (not on this machine; HF_HUB_OFFLINE is set)"
    assert choices["none"] == "start from random weights; ImageNet's cannot be had here"
    put_in_cache(empty_cache, "resnet18.a1_in1k")
    assert suggested_weights(RESNET) == "imagenet"
    choices = pretrained.weights_choices(RESNET)
    assert choices["imagenet"] == "trained on ImageNet (on this machine)"
    assert choices["none"] == "start from random weights"
    assert suggested_weights({"model": "DenseNet121_PFT"}) == "none"


@pytest.mark.usefixtures("empty_cache", "hub")
def test_imagenet_is_suggested_where_the_hub_answers():
    assert suggested_weights(RESNET) == "imagenet"
    assert suggested_weights({"model": "MammoCNN"}) == "none"


def test_the_hub_is_asked_once_for_all_models_and_sizes_are_said(hub, empty_cache):
    put_in_cache(empty_cache, "densenet121.ra_in1k")
    host = f"127.0.0.1:{hub.server_port}"
    every = pretrained.weights_choices({"model": "all"})
    assert every["imagenet"] == f"trained on ImageNet (from {host}, once, 96 MB)"
    assert "once, 47 MB" in pretrained.weights_choices(RESNET)["imagenet"]
    assert suggested_weights({"model": "ResNet18_CFT,EfficientNetB3_PFT"}) == "imagenet"
    pretrained.refuse_missing(["resnet18.a1_in1k", "efficientnet_b3.ra2_in1k"])
    assert hub.asked == 1


def test_every_pretrained_network_says_its_size():
    own = {registry.MAMMO_CNN, *registry.AUTOENCODERS}
    assert {row.architecture for row in MODELS.values()} - own == set(registry.MEGABYTES)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone.pth", "gone.pth: no such file; give an existing file, imagenet or none"),
        ("folder.pth", "folder.pth: is a folder, not a file; give"),
        ("notes.txt", r"notes.txt: is not a weights file; give one of .safetensors, .pth, .pt"),
        ("None", "None: no such file"),
    ],
)
def test_a_file_that_is_none_of_weights_is_refused_at_the_question(tmp_path, name, problem):
    (tmp_path / "folder.pth").mkdir()
    for existing in ("notes.txt", "right.PTH"):
        (tmp_path / existing).write_text("")
    (item,) = (one for one in items_of(Train) if one.name == "weights")
    with pytest.raises(UserError, match=re.escape(problem)):
        parse(item, str(tmp_path / name))
    for right in ("imagenet", "none", str(tmp_path / "right.PTH")):
        assert parse(item, right) == right


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(("status", "suggested"), [(404, "imagenet"), (401, "imagenet"),
                                                   (405, "imagenet"), (502, "none")])  # fmt: skip
def test_a_mirror_whose_root_is_nothing_answers_all_the_same(hub, status, suggested):
    hub.status = status
    assert suggested_weights(RESNET) == suggested


def test_the_cache_is_where_the_hub_s_library_says(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    code = "import models.pretrained as r; print(r.cached_weights('resnet18.a1_in1k'))"
    put_in_cache(tmp_path / "huggingface", "resnet18.a1_in1k")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(tmp_path / "huggingface" / "hub"))


@pytest.mark.usefixtures("empty_cache", "hub")
def test_offline_means_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert suggested_weights(RESNET) == "none"


@pytest.mark.usefixtures("empty_cache")
def test_none_is_suggested_where_nobody_answers(monkeypatch):
    # The discard port: refused at once.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert suggested_weights(RESNET) == "none"


def test_the_registry_loads_nothing_heavy():
    code = (
        "import sys, models.registry as r; r.model_choices({});"
        "print(*{'torch', 'timm', 'numpy', 'cv2', 'sklearn', 'urllib.request'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
