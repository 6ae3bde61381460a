"""Does ONNX Runtime say of real images what PyTorch says? Held before anything is exported."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from images.files import read_image
from images.square import fit_square
from models.evaluation.calibration import Calibration
from models.evaluation.predictions import read_predicted
from models.evaluation.scoring import mirrored_logits
from models.inference import Compute, TrainedModel, run_over
from models.networks import head_name, pooled, split_before
from models.onnx_scorer import OnnxModel
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.paths import from_here, inside
from pipeline.progress import Progress
from pipeline.records import read_record
from pipeline.runs import Run

MOST = 32  # images
TOLERANCE = 1e-3  # in probability; of features, as a share of the largest
SEED = 42
FLOAT32 = Compute(torch.device("cpu"), None)


@dataclass(frozen=True)
class Agreement:
    """How far the two are apart at most."""

    images: int  # on how many images
    real: bool  # whether they are validation images; else noise
    probability: float  # in probability of malignancy
    features: float  # in a feature, as a share of the largest one
    # In probability from what the evaluation said of the same images, in its own arithmetic; None
    # where it did not score them.
    evaluation: float | None = None

    @property
    def seen(self) -> str:
        """What they were compared on, in words."""
        return f"{self.images} {'validation images' if self.real else 'images of noise'}"

    @property
    def in_words(self) -> str:
        """How near they are: a clause."""
        return (
            "probabilities of ONNX Runtime and PyTorch differ by at most "
            f"{self.probability:.1g} on {self.seen}"
        )

    def from_evaluation(self, precision: str) -> str:
        """Say that the evaluation's own figures are of other probabilities; empty if they are not.

        Args:
            precision: Of the arithmetic of the evaluation, "fp32" or "bf16".
        """
        if self.evaluation is None or self.evaluation <= TOLERANCE:
            return ""
        return (
            f"the figures are those of the evaluation, whose probabilities, computed in "
            f"{precision}, differ from the exported model's by up to {self.evaluation:.2g} on "
            f"{self.seen}"
        )


def check_agreement(
    run: Run, model: TrainedModel, facts: Mapping[str, Any], path: Path, progress: Progress
) -> Agreement:
    """Score images with the exported file and with the network that it was made of.

    Args:
        run: That is exported.
        model: Its network, float32, on the processor.
        facts: Of the exported model.
        path: Of the exported file.
        progress: Where it reports.

    Raises:
        UserError: The two differ by more than the tolerance, or a score is no number.
    """
    image_ids, images = _images(run, model)
    exported, tta = OnnxModel.open(path), str(facts["tta"])
    with progress.track("Comparing with PyTorch", 2 * len(images), "images") as advance:
        found = exported.score(images, advance)
        wanted = mirrored_logits(model, images, FLOAT32, tta, lambda _steps: None)
        body, _ = split_before(model.network, head_name(model.network))
        features = run_over(
            lambda some: pooled(body(some)), images, model.transform(FLOAT32), advance
        )
    calibration = Calibration.of(facts["calibration"])
    agreement = Agreement(
        len(images),
        bool(image_ids),
        _apart(*(_probabilities(calibration, logits) for logits in (found[0], wanted))),
        _apart(found[1], features) / max(1e-9, float(np.abs(features).max())),
        _from_evaluation(run, image_ids, calibration.apply(found[0])),
    )
    refuse_difference(run.name, agreement)
    return agreement


def refuse_difference(name: str, agreement: Agreement) -> None:
    """Refuse a file whose answers are not those of the network.

    Raises:
        UserError: They differ by more than the tolerance, or one of them is no number.
    """
    near = [apart <= TOLERANCE for apart in (agreement.probability, agreement.features)]
    if not all(near):  # NaN is not near either
        raise UserError(
            f"{name}: ONNX Runtime does not give what PyTorch gives (probabilities up to "
            f"{agreement.probability:.2g} apart on {agreement.seen}, features up to "
            f"{agreement.features:.2g} of the largest)",
            "install what requirements.txt names, and check that the run was trained well",
        )


def _probabilities(calibration: Calibration, logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities of logits; before isotonic steps, which make much of a last digit."""
    if calibration.method == "isotonic":
        calibration = dataclasses.replace(calibration, method="none")
    return calibration.apply(logits)


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def _from_evaluation(
    run: Run, image_ids: Sequence[str], found: NDArray[np.float64]
) -> float | None:
    """Return how far probabilities are at most from those that evaluation wrote down."""
    try:
        rows, scores = read_predicted(run.folder / "predictions_val.csv")
    except UserError:
        return None
    known = {row.image_id: score for row, score in zip(rows, scores, strict=True)}
    apart = [
        abs(score - known[one])
        for one, score in zip(image_ids, found.tolist(), strict=False)
        if one in known
    ]
    return max(apart, default=None)


def _images(run: Run, model: TrainedModel) -> tuple[list[str], NDArray[np.uint8]]:
    """Return ids and (N, S, S) uint8 of some validation images; noise without ids without them."""
    found = {}
    for image_id, path in _places(run, model):
        try:
            found[image_id] = fit_square(read_image(path), model.size)
        except UserError:
            continue  # the others are enough
    if found:
        return list(found), np.stack(list(found.values()))
    noise = np.random.default_rng(SEED).integers(0, 256, (MOST // 4, model.size, model.size))
    return [], noise.astype(np.uint8)


def _places(run: Run, model: TrainedModel) -> list[tuple[str, Path]]:
    """Return ids and places of validation images, evenly spread; none where the data is gone."""
    data = from_here(Path(str(model.facts["data"])))
    try:
        rows, _ = read_rows(data, read_record(data, "preprocess", "organize"), run.fold.number)
        places = [(row.image_id, inside(data, row.path)) for row in rows if row.split == "val"]
    except UserError:
        return []
    spread = np.linspace(0, len(places) - 1, min(MOST, len(places))).round().astype(int)
    return [places[at] for at in spread]
