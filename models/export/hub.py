"""A trained network in timm's own format for the Hugging Face hub: config.json and weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.inference import TrainedModel
from models.registry import MAMMO_CNN
from models.without_compiler import timm
from pipeline.labels import Labels
from pipeline.runs import is_detector

FILES = ("config.json", "model.safetensors")
# What timm says of the weights that it gives, and is not true of these.
OF_OTHERS = ("tag", "license", "origin_url", "paper_ids", "paper_name", "notes", "description",
             "test_input_size", "test_crop_pct", "label_names", "label_descriptions")  # fmt: skip


def timm_problem(facts: Mapping[str, Any]) -> str:
    """Say why timm cannot load a run's network by its name; empty where it can.

    Args:
        facts: model.json of the run.
    """
    if facts["architecture"] == MAMMO_CNN or is_detector(facts):
        return f"{facts['model']} is no architecture of timm"
    if facts["head"]["widths"] or facts["head"]["dropout"]:
        return "timm has no architecture with a head of several layers"
    return ""


def write_timm(model: TrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors, for `timm.create_model("local-dir:FOLDER")`.

    After an upload to the hub that is `timm.create_model("hf-hub:USER/NAME", pretrained=True)`. It
    takes (B, 1, S, S) float32 images, normalised by the mean and std of config.json, and gives
    (B, 1) logits of the positive label.

    Args:
        model: Whose `timm_problem` is none, on the processor.
        folder: That is there.
    """
    expected = model.facts["input"]
    network: Any = model.network
    # Not as an argument, which timm 1.0.20 takes for the whole of it and 1.0.31 for a part.
    network.pretrained_cfg = {
        name: value for name, value in network.pretrained_cfg.items() if name not in OF_OTHERS
    } | {
        "input_size": (1, model.size, model.size),
        "mean": (float(expected["mean"]),),
        "std": (float(expected["std"]),),
        "crop_pct": 1.0,
        "interpolation": "bilinear",  # the nearest that timm has to a mean over area
        "num_classes": 1,
        "pool_size": None,
    }
    timm.models.save_for_hf(
        network,
        str(folder),
        model_config={"label_names": [Labels.recorded(model.facts).positive]},
        model_args={"in_chans": 1},
        safe_serialization=True,
    )
