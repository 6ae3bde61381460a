"""What an exported model says of its run: no patient, and no path of this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.jobs import pixel_options
from models.onnx_scorer import TOOL
from models.registry import IMAGENET, NO_WEIGHTS
from pipeline.errors import UserError
from pipeline.labels import Labels, is_rare
from pipeline.records import read_json, tool_version, versions
from pipeline.runs import ELSEWHERE, MODEL_FILE, Run, is_detector

FORMAT = 1  # of these facts; another number where an older reader would misunderstand them
WORTH, WHERE_RARE = ("auc",), ("pr_auc", "pf1")  # of the measures of the test images
KEPT = (
    "model", "architecture", "strategy", "trained_from", "untrained_head", "head", "input",
    "weights_hash", "precision", "parameters", "trainable", "unit", "depth", "data_hash", "fold",
    "folds", "recipe", "labels",
)  # fmt: skip


def model_facts_of(run: Run) -> dict[str, Any]:
    """Return model.json of a run that has one network.

    Raises:
        UserError: It is an ensemble, was not made here, or its file is missing or damaged.
    """
    facts: dict[str, Any] = read_json(run.folder / MODEL_FILE)
    if facts["strategy"] == ELSEWHERE:
        raise UserError(
            f"{run.name}: was not made here, so there is no network", "name a trained run"
        )
    if facts.get("members") is not None:
        raise UserError(
            f"{run.name}: is an ensemble, which is several networks",
            "export its members, one at a time",
        )
    return facts


def exported_facts(
    run: Run, model: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata of model.onnx, as `pipeline.schemas.Exported` has it.

    Args:
        run: That is exported.
        model: Its model.json.
        measured: Its metrics.json.
    """
    kept = {name: model[name] for name in KEPT if name in model}
    kept["weights"] = weights_name(model)
    kept["preprocess"] = made if (made := model["preprocess"]) is None else pixel_options(made)
    return {
        TOOL: {"format": FORMAT, "version": tool_version(), "versions": dict(versions())},
        "run": run.name,
        "model": kept,
        "calibration": measured["calibration"],
        "operating_point": _point(measured["operating_point"]),
        "units": {unit: _point(found) for unit, found in measured["units"].items()},
        "aggregate": measured["aggregate"],
        "tta": measured["tta"],
        **Labels.recorded(measured).record,
        "splits": {"test": _worth(measured["splits"]["test"])},
        **({"anomaly": measured["anomaly"]} if is_detector(model) else {}),
    }


def weights_name(model: Mapping[str, Any]) -> str:
    """Return what a training started from: "imagenet", "none", or a file's name without folder."""
    weights = str(model["weights"])
    return weights if weights in (IMAGENET, NO_WEIGHTS) else Path(weights).name


def _worth(test: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said beside each prediction: how good the run was, and on how many."""
    told = [*WORTH, *(WHERE_RARE if is_rare(test["malignant"], test["images"]) else ())]
    kept = {name: test["metrics"][name] for name in told if name in test["metrics"]}
    return {**test, "metrics": kept}


def _point(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"threshold": found["threshold"], "rule": found["rule"]}
