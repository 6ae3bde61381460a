"""The questionnaire's part for the page that takes images of one's own."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.options import between, option
from pipeline.runs import LATEST, evaluated_choices, run_problem
from pipeline.stages.shared import RUNS, advanced

PASSWORD = "MAMMOLAB_PASSWORD"  # the environment variable


@dataclass(frozen=True, kw_only=True)
class App:
    """Show a page that scores mammograms which are dropped on it."""

    run: str = option(
        LATEST,
        "Run that the page begins with",
        choices=evaluated_choices,
        other="a run folder, a model's name or latest",
        find=run_problem,
        remember=False,
    )
    port: int = advanced(8501, "Port of the page", check=between(1, 65535))
    host: str = advanced(
        "127.0.0.1",
        "Address to listen on (127.0.0.1: this machine alone; any other needs a password)",
        remember=False,
    )
    password: str | None = advanced(
        None,
        f"Password that the page asks for; {PASSWORD} in the environment does as well",
        words={"none": "that of the environment, if any"},
        secret=True,
        remember=False,
    )
    runs: Path = RUNS()
