"""Does ONNX Runtime say of real images what PyTorch says? Held before anything is exported."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from images.files import read_image
from images.square import fit_square
from models.evaluation.calibration import Calibration
from models.evaluation.scoring import mirrored_logits
from models.inference import Compute, TrainedModel, run_over
from models.networks import head_name, split_before
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

    @property
    def seen(self) -> str:
        """What they were compared on, in words."""
        return f"{self.images} {'validation images' if self.real else 'images of noise'}"


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
    images, real = _images(run, model)
    exported, tta = OnnxModel.open(path), str(facts["tta"])
    with progress.track("Comparing with PyTorch", 2 * len(images), "images") as advance:
        found = exported.score(images, advance)
        wanted = mirrored_logits(model, images, FLOAT32, tta, lambda _steps: None)
        body, _ = split_before(model.network, head_name(model.network))
        features = run_over(body, images, model.transform(FLOAT32), advance)
    calibration = Calibration.of(facts["calibration"])
    agreement = Agreement(
        len(images),
        real,
        _apart(*(_probabilities(calibration, logits) for logits in (found[0], wanted))),
        _apart(found[1], features) / max(1e-9, float(np.abs(features).max())),
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


def _images(run: Run, model: TrainedModel) -> tuple[NDArray[np.uint8], bool]:
    """Return (N, S, S) uint8 validation images, and True; noise and False where they are gone."""
    found = []
    for path in _places(run, model):
        try:
            found.append(fit_square(read_image(path), model.size))
        except UserError:
            continue  # the others are enough
    if found:
        return np.stack(found), True
    noise = np.random.default_rng(SEED).integers(0, 256, (MOST // 4, model.size, model.size))
    return noise.astype(np.uint8), False


def _places(run: Run, model: TrainedModel) -> list[Path]:
    """Return where some validation images lie, evenly spread; none where the data is gone."""
    data = from_here(Path(str(model.facts["data"])))
    try:
        rows, _ = read_rows(data, read_record(data, "preprocess", "organize"), run.fold.number)
        places = [inside(data, row.path) for row in rows if row.split == "val"]
    except UserError:
        return []
    spread = np.linspace(0, len(places) - 1, min(MOST, len(places))).round().astype(int)
    return [places[at] for at in spread]
