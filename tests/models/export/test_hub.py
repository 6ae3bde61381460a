import json
import stat

import numpy as np
import pytest
import timm
import torch

from models.export.hub import timm_problem
from models.onnx_scorer import OnnxModel
from tests.models.export.reading import images_of, predicted


def test_timm_loads_it_in_one_line_with_the_same_logits(exported_resnet, resnet18, tiny_data):
    folder = exported_resnet.folder
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model = OnnxModel.open(folder / "model.onnx")
    images = images_of(tiny_data, predicted(resnet18, "test", "target"), model.size)
    config = timm.data.resolve_data_config(model=network)
    assert config["input_size"] == (1, model.size, model.size)
    assert config["crop_pct"] == 1
    batch = torch.from_numpy(images).float().div(255).sub(config["mean"][0]).div(config["std"][0])
    with torch.inference_mode():
        logits = network(batch.unsqueeze(1))  # (N, 1)
    np.testing.assert_allclose(logits[:, 0], model.score(images)[0], atol=1e-4)


def test_timm_s_description_claims_nothing_of_other_weights(exported_resnet):
    config = json.loads((exported_resnet.folder / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    assert config["num_classes"] == 1
    assert config["label_names"] == ["malignant"]
    others = {"tag", "license", "url", "hf_hub_id", "paper_ids", "file", "test_input_size"}
    assert others & config["pretrained_cfg"].keys() == set()


def test_others_may_read_the_files(exported_resnet):
    for name in exported_resnet.facts["files"]:
        mode = (exported_resnet.folder / name).stat().st_mode
        assert stat.S_IMODE(mode) & 0o444 == 0o444, name


@pytest.mark.parametrize(
    ("architecture", "head", "problem"),
    [
        ("mammo_cnn", {"widths": [], "dropout": 0.0}, "X is no architecture of timm"),
        (
            "resnet18.a1_in1k",
            {"widths": [], "dropout": 0.0, "error": "patches"},
            "X is no architecture of timm",
        ),
        ("efficientnet_b3.ra2_in1k", {"widths": [256], "dropout": 0.3}, "several layers"),
        ("efficientnet_b3.ra2_in1k", {"widths": [], "dropout": 0.3}, "several layers"),
    ],
)
def test_what_timm_has_no_architecture_of_is_said(architecture, head, problem):
    assert problem in timm_problem({"model": "X", "architecture": architecture, "head": head})
    assert not timm_problem({"architecture": "resnet18", "head": {"widths": [], "dropout": 0.0}})
