"""A trained network -> an ONNX file that takes decoded images and carries its own facts."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.inference import TrainedModel
from models.mirrors import MIRRORS
from models.networks import head_name, pooled, split_before
from models.onnx_scorer import INPUT, outputs_of

EXAMPLES = 2  # images that are traced; of one the exporter would make a constant


class ExportedNetwork(nn.Module):
    """What becomes of a network in the file: normalisation, mirror images, score and features."""

    def __init__(self, model: TrainedModel, tta: str) -> None:
        """Take a trained model and how it was evaluated, a key of MIRRORS."""
        super().__init__()
        self._body, self._head = split_before(model.network, head_name(model.network))
        self._mean = float(model.facts["input"]["mean"])
        self._std = float(model.facts["input"]["std"])
        self._mirrors = MIRRORS[tta]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B,) logits or errors, and (B, F) features, float32, of (B, S, S) uint8 images.

        The first is the mean over the mirror images; the features are those of the image itself.
        """
        grey = image.to(torch.float32).div(255).sub(self._mean).div(self._std)
        parts = [self._body(_mirrored(grey, axes).unsqueeze(1)) for axes in self._mirrors]
        scores = [self._head(features).squeeze(1) for features in parts]
        mean = scores[0] if len(scores) == 1 else torch.stack(scores).mean(0)
        return mean, pooled(parts[0])


def _mirrored(images: Tensor, axes: tuple[int, ...]) -> Tensor:
    return images.flip(axes) if axes else images


def write_onnx(model: TrainedModel, tta: str, facts: Mapping[str, Any], path: Path) -> int:
    """Write a network with its facts; the same run gives the same bytes.

    Args:
        model: In eval mode, on the processor, float32.
        tta: How it was evaluated, a key of MIRRORS; the mirror images become part of the graph.
        facts: What the file is to say of it: each value becomes a JSON string of its metadata.
        path: Of the file. It takes "image", (B, S, S) uint8 in [0, 255], B free, and gives
            "logit", (B,) float32, before calibration, or "error" of an anomaly detector, and
            "features", (B, F) float32.

    Returns:
        The version of the operator set that it uses.
    """
    import onnx

    network = ExportedNetwork(model, tta).eval()
    example = torch.zeros((EXAMPLES, model.size, model.size), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter on torch's own code
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=list(outputs_of(facts)),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # paths of this machine, and lines of the source
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in facts.items()})
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return max(int(one.version) for one in proto.opset_import if not one.domain)
