"""The questionnaire's part on a trained model that is to be used elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.options import Answers, option, usable_output
from pipeline.runs import LATEST, find_run, run_choices
from pipeline.stages.shared import RUNS, advanced


def _problem(name: str, answers: Answers) -> str | None:
    """Say why a run that was named cannot be exported."""
    try:
        find_run(Path(answers["runs"]), name).metrics()
    except UserError as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an evaluated run as ONNX and for the Hugging Face hub."""

    run: str = option(
        LATEST,
        "Run to export",
        choices=run_choices,
        other="a run folder or a model's name",
        find=_problem,
        remember=False,
    )
    out: Path | None = advanced(
        None,
        "Folder to write to",
        words={"auto": "export, in the run's folder"},
        check=usable_output,
        remember=False,
    )
    runs: Path = RUNS()
