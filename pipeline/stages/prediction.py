"""The questionnaire's part for images of one's own: prediction."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.options import between, named, option, usable_output
from pipeline.runs import LATEST, evaluated_choices
from pipeline.stages.shared import FOLD, RUNS, Common, advanced


@dataclass(frozen=True, kw_only=True)
class Predict(Common):
    """Score images of your own with trained models."""

    paths: str = option(
        "",
        "Images, folders or zip files; quote spaces",
        check=named("models.prediction.inputs:paths_problem"),
        positional=True,
        remember=False,
    )
    run: str = option(
        LATEST,
        "Run that scores them",
        choices=evaluated_choices,
        other="run folders, models' names, latest, or folders of exported models",
        find=named("models.prediction.predictor:predictor_problem"),
        several=True,
        remember=False,
    )
    out: Path = option(
        Path("predictions"), "Folder to write the predictions to", check=usable_output
    )
    heat_maps: int = advanced(
        10,
        "Images to draw heat-maps of, those of the highest scores",
        words={"none": "no heat-maps"},
        check=between(1, 100_000),
    )
    fold: int = FOLD(
        "Fold of the run, where latest or a model's name is given", words={"none": "any"}
    )
    runs: Path = RUNS()
