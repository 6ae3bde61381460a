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
from models.evaluation.predictions import ERROR
from models.evaluation.scoring import mirrored_logits
from models.inference import Compute, TrainedModel, run_over
from models.networks import head_name, pooled, split_before
from models.onnx_scorer import OnnxModel
from pipeline.errors import UserError
from pipeline.folds import read_rows
from pipeline.paths import from_here, inside
from pipeline.progress import Progress
from pipeline.provenance import dataset_hash
from pipeline.records import read_record
from pipeline.runs import Run
from pipeline.tables import read_table

MOST = 32  # images
TOLERANCE = 1e-3  # in probability, or as a share of an error; of features, of the largest
SEED = 42
TINY = 1e-12  # of an error: where it is 0, so is the other
FLOAT32 = Compute(torch.device("cpu"), None)


@dataclass(frozen=True)
class Agreement:
    """How far the two are apart at most."""

    images: int  # on how many images
    real: bool  # whether they are validation images; else noise
    score: float  # in probability of malignancy; of an anomaly detector, as a share of the error
    features: float  # in a feature, as a share of the largest one
    # Likewise from what the evaluation said of the same images, in its own arithmetic; None where
    # it did not score them.
    evaluation: float | None = None
    errors: bool = False  # whether scores are errors of an anomaly detector

    @property
    def seen(self) -> str:
        """What they were compared on, in words."""
        return f"{self.images} {'validation images' if self.real else 'images of noise'}"

    @property
    def in_words(self) -> str:
        """How near they are: a clause."""
        return (
            f"{self.kind} of ONNX Runtime and PyTorch differ by at most {self.score:.1g}"
            f"{self.unit} on {self.seen}"
        )

    @property
    def kind(self) -> str:
        """What the scores are, in words."""
        return "errors" if self.errors else "probabilities"

    @property
    def unit(self) -> str:
        """What follows a difference, in words; nothing in probability."""
        return " of their size" if self.errors else ""

    def from_evaluation(self, precision: str) -> str:
        """Say that the evaluation's own figures are of other scores; empty if they are not.

        Args:
            precision: Of the arithmetic of the evaluation, "fp32" or "bf16".
        """
        if self.evaluation is None or self.evaluation <= TOLERANCE:
            return ""
        return (
            f"the figures are those of the evaluation, whose {self.kind}, computed in {precision}, "
            f"differ from the exported model's by up to {self.evaluation:.2g}{self.unit} on "
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
    detector = calibration.normal is not None
    ours, theirs = (_compared(calibration, scores) for scores in (found[0], wanted))
    said = ours if detector else calibration.apply(found[0])
    agreement = Agreement(
        len(images),
        bool(image_ids),
        _apart(ours, theirs, detector),
        _apart(found[1], features) / max(1e-9, float(np.abs(features).max())),
        _from_evaluation(run, image_ids, said, detector),
        detector,
    )
    refuse_difference(run.name, agreement)
    return agreement


def refuse_difference(name: str, agreement: Agreement) -> None:
    """Refuse a file whose answers are not those of the network.

    Raises:
        UserError: They differ by more than the tolerance, or one of them is no number.
    """
    near = [apart <= TOLERANCE for apart in (agreement.score, agreement.features)]
    if not all(near):  # NaN is not near either
        raise UserError(
            f"{name}: ONNX Runtime does not give what PyTorch gives ({agreement.kind} up to "
            f"{agreement.score:.2g}{agreement.unit} apart on {agreement.seen}, features up to "
            f"{agreement.features:.2g} of the largest)",
            "install what requirements.txt names, and check that the run was trained well",
        )


def _compared(calibration: Calibration, logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities of logits; before isotonic steps, which make much of a last digit.

    Of an anomaly detector they are its errors.
    """
    if calibration.normal is not None:
        return logits.astype(np.float64)
    if calibration.method == "isotonic":
        calibration = dataclasses.replace(calibration, method="none")
    return calibration.apply(logits)


def _apart(one: NDArray[Any], other: NDArray[Any], of_size: bool = False) -> float:
    """Return how far two are at most, or as a share of the other one."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    apart = np.abs(first - second)
    return float((apart / np.maximum(second, TINY) if of_size else apart).max())


def _from_evaluation(
    run: Run, image_ids: Sequence[str], found: NDArray[Any], detector: bool
) -> float | None:
    """Return how far scores are at most from those that evaluation wrote down; see `_apart`."""
    name = ERROR if detector else "probability"
    try:
        table = read_table(run.folder / "predictions_val.csv", ("image_id", name))
        known = {line.cells["image_id"]: table.number(line.cells[name]) for line in table.lines}
    except (UserError, ValueError):
        return None
    pairs = [(score, known[one]) for one, score in zip(image_ids, found.tolist(), strict=False)
             if one in known]  # fmt: skip
    ours, theirs = np.array(pairs).reshape(-1, 2).T
    return _apart(ours, theirs, detector) if pairs else None


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
    """Return ids and places of validation images, evenly spread; none where they are gone.

    Those of a dataset that was made anew are no images of the run.
    """
    data = from_here(Path(str(model.facts["data"])))
    try:
        if dataset_hash(data) != model.facts["data_hash"]:
            return []
        rows, _ = read_rows(data, read_record(data, "preprocess", "organize"), run.fold.number)
        places = [(row.image_id, inside(data, row.path)) for row in rows if row.split == "val"]
    except UserError:
        return []
    spread = np.linspace(0, len(places) - 1, min(MOST, len(places))).round().astype(int)
    return [places[at] for at in spread]
