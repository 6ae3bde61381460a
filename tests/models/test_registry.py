import http.server
import subprocess
import sys
import threading

import pytest

from models import registry
from models.registry import MODELS, find_model, model_choices, suggested_weights, takes_weights
from pipeline.errors import UserError

ARCHITECTURES = ("ResNet18", "DenseNet121", "EfficientNetB3")
NAMES = [f"{name}_{how}" for name in ARCHITECTURES for how in ("OPW", "PFT", "CFT")]
RESNET = {"model": "ResNet18_CFT"}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A web server in place of the hub."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def put_in_cache(home, architecture):
    folder = home / "hub" / f"models--timm--{architecture}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")


def test_all_names_that_people_type_exist():
    assert set(MODELS) == {*NAMES, "EfficientNetB3_Optuna", "MammoCNN"}


def test_a_duplicate_name_raises():
    row = MODELS["MammoCNN"]
    with pytest.raises(ValueError, match="two models are called MammoCNN"):
        registry.table([row, row])


def test_an_unknown_model_is_refused_with_those_that_exist():
    with pytest.raises(UserError, match=r"ResNet19: no such model; there are: ResNet18_OPW, "):
        find_model("ResNet19")


def test_choices_are_short_and_complete():
    choices = model_choices({})
    assert list(choices) == [*MODELS, "all"]
    assert all(0 < len(text) < 60 for text in choices.values())


def test_only_mammocnn_takes_no_weights():
    assert [name for name in MODELS if not takes_weights({"model": name})] == ["MammoCNN"]


def test_cached_weights_are_suggested_and_said(empty_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert suggested_weights(RESNET) == "none"
    assert "huggingface.co" in registry.weights_choices(RESNET)["imagenet"]
    put_in_cache(empty_cache, "resnet18.a1_in1k")
    assert suggested_weights(RESNET) == "imagenet"
    assert "on this machine" in registry.weights_choices(RESNET)["imagenet"]
    assert suggested_weights({"model": "DenseNet121_PFT"}) == "none"


@pytest.mark.usefixtures("empty_cache", "hub")
def test_imagenet_is_suggested_where_the_hub_answers():
    assert suggested_weights(RESNET) == "imagenet"
    assert suggested_weights({"model": "MammoCNN"}) == "none"


@pytest.mark.usefixtures("empty_cache", "hub")
def test_offline_means_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert suggested_weights(RESNET) == "none"


@pytest.mark.usefixtures("empty_cache")
def test_none_is_suggested_where_nobody_answers(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused at once
    assert suggested_weights(RESNET) == "none"


def test_the_registry_loads_nothing_heavy():
    code = (
        "import sys, models.registry as r; r.model_choices({});"
        "print(*{'torch', 'timm', 'numpy', 'cv2', 'sklearn', 'urllib.request'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
