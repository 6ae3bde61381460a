"""An exported model.onnx: what its file says of it, and its scores. No torch is imported.

The file holds all that predicting needs, so a process that scores images with it starts in a
fraction of the time that loading torch takes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.resources.machine import cores
from pipeline.runs import is_detector

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL = "model.onnx"
TOOL = "mammolab"  # the key of its metadata by which a file of ours is known
INPUT = "image"
SCORED_PIXELS = 8 * 224**2  # of a batch: larger ones are no faster, and take memory
FEW = 8  # images that are scored before a session that is optimised further has paid
FATAL = 4  # the least severe of ONNX Runtime's own lines that are shown
AGAIN = "export the run again with: python main.py export"
Advance = Callable[[int], None]


@dataclass(frozen=True)
class OnnxModel:
    """A model.onnx that `export` wrote, ready to score."""

    # What the file says of itself (`pipeline.schemas.Exported`): "model" (facts of model.json),
    # "calibration", "operating_point", "units", "aggregate", "tta", "splits", "run", "mammolab",
    # and "anomaly" of an anomaly detector.
    facts: Mapping[str, Any]
    path: Path  # of the file
    _session: "InferenceSession"  # quick to open

    @classmethod
    def open(cls, path: Path) -> "OnnxModel":
        """Open a file.

        Raises:
            UserError: It is missing, damaged or not written by `export`, or ONNX Runtime is not
                installed.
        """
        if not path.is_file():
            raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}", AGAIN)
        session = _session(path, thorough=False)
        try:
            facts = _facts(path, session.get_modelmeta().custom_metadata_map)
            found = [(one.name, one.type, list(one.shape[1:])) for one in session.get_inputs()]
            outputs = tuple(one.name for one in session.get_outputs())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is damaged ({error.reason} in a text)", AGAIN) from None
        model = cls(facts, path, session)
        if found != [(INPUT, "tensor(uint8)", [model.size] * 2)] or outputs != outputs_of(facts):
            raise UserError(f"{path}: does not take or give what its metadata says", AGAIN)
        return model

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return int(self.facts["model"]["input"]["size"])

    def score(
        self, images: NDArray[np.uint8], advance: Advance = lambda _images: None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score images; normalisation and mirror images (`tta`) are part of the model.

        Args:
            images: (N, S, S) uint8 in [0, 255], preprocessed as those of the training and brought
                to `size` by `images.square.fit_square`.
            advance: Called with the number of images done.

        Returns:
            (N,) float32 logits of malignancy, before calibration, or errors of an anomaly detector;
            (N, F) float32 features, which the network pools before its head.
        """
        session = self._session if len(images) <= FEW else self._thorough
        width = session.get_outputs()[1].shape[1]
        scores, names = np.empty(len(images), np.float32), outputs_of(self.facts)
        features = np.empty((len(images), width), np.float32)
        batch = max(1, SCORED_PIXELS // self.size**2)
        for start in range(0, len(images), batch):
            part = np.ascontiguousarray(images[start : start + batch])
            place = slice(start, start + len(part))
            scores[place], features[place] = session.run(names, {INPUT: part})
            advance(len(part))
        return scores, features

    @cached_property
    def _thorough(self) -> "InferenceSession":
        """A session that takes longer to open and scores an image in three quarters of the time."""
        return _session(self.path, thorough=True)


def outputs_of(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of what a file gives: "logit", or a detector's "error", and "features"."""
    return "error" if is_detector(facts["model"]) else "logit", "features"


def _session(path: Path, thorough: bool) -> "InferenceSession":
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(
            f"{path}: ONNX Runtime, which runs it, is not installed", "run: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = FATAL
    # Threads that spin while they wait take the core that another program needs (see main.py).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not thorough:  # weights in their plain order
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        # The fallback, to the same provider, prints on stdout.
        return onnxruntime.InferenceSession(
            str(path), options, ["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # its errors have no class in common but this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: is no ONNX model, or is damaged ({reason})", AGAIN) from None


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if TOOL not in metadata:
        raise UserError(f"{path}: is an ONNX model that `export` did not write", AGAIN)
    import msgspec

    from pipeline.schemas import SCHEMAS

    try:
        facts = {key: json.loads(value) for key, value in metadata.items()}
        msgspec.convert(facts, SCHEMAS[MODEL])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error})", AGAIN) from None
    return facts
