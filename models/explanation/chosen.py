"""Which test images are drawn: the surest of each outcome, or those that a person names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.evaluation.predictions import read_errors, read_predicted
from pipeline.errors import UserError
from pipeline.labels import KEYS
from pipeline.manifest import POSITIVE
from pipeline.options import nearest, split_several
from pipeline.stages.explanation import ALL_IMAGES, SUREST, Explain

OUTCOMES = {"TP": "true positive", "FP": "false positive", "TN": "true negative",
            "FN": "false negative"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A test image with what the run said of it."""

    image_id: str
    patient_id: str
    laterality: str
    view: str
    label: str  # one of its dataset's two labels
    score: float  # probability of malignancy as evaluation has it; of a detector the error
    threshold: float  # the operating point, of the same kind

    @property
    def malignant(self) -> bool:
        """The truth: whether it has the positive label."""
        return self.label in POSITIVE

    @property
    def called(self) -> str:
        """What the run calls it: "benign" for the negative label, "malignant" for the positive."""
        return KEYS[int(self.score >= self.threshold)]

    @property
    def outcome(self) -> str:
        """A key of OUTCOMES."""
        positive = self.called == KEYS[1]
        correct = positive == self.malignant
        return f"{'T' if correct else 'F'}{'P' if positive else 'N'}"


def read_cases(path: Path, threshold: float, errors: bool = False) -> list[Case]:
    """Read predictions_{val,test}.csv of a run.

    Args:
        path: Of the file.
        threshold: The operating point.
        errors: Whether the run is an anomaly detector's, so that the scores are errors.

    Raises:
        UserError: It is missing or damaged.
    """
    rows, probabilities = read_predicted(path)
    scores = read_errors(path) if errors else probabilities
    return [
        Case(row.image_id, row.patient_id, row.laterality, row.view, row.label, score, threshold)
        for row, score in zip(rows, scores, strict=True)
    ]


def cases_to_draw(cases: Sequence[Case], options: Explain) -> list[Case]:
    """Return the cases that are to be drawn, the surest errors first, then the surest hits.

    Raises:
        UserError: An image is named that is no test image of the run.
    """
    names = split_several(options.images)
    ordered = sorted(cases, key=_errors_first)
    if ALL_IMAGES in names:
        return ordered
    wanted = set(names) - {SUREST}
    known = [case.image_id for case in cases]
    for name in sorted(wanted - set(known)):
        near = f"; did you mean {one}?" if (one := nearest(name, known)) else ""
        raise UserError(
            f"--images {name}: no test image of {options.run} is called so{near}",
            "predictions_test.csv of the run lists them",
        )
    if SUREST in names:
        for outcome in OUTCOMES:
            surest = [case.image_id for case in ordered if case.outcome == outcome]
            wanted |= set(surest[: options.count])
    return [case for case in ordered if case.image_id in wanted]


def _errors_first(case: Case) -> tuple[bool, float, str]:
    return case.outcome[0] == "T", -abs(case.score - case.threshold), case.image_id
