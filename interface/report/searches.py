"""The searches for hyper-parameters behind the runs, as studies leave them in their folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.pictures import Picture, pictures_of
from interface.report.reading.runs import RunView
from interface.report.reading.words import count
from interface.report.sheets import Cell, Note, Sheet, SheetRow
from pipeline.errors import UserError
from pipeline.records import read_json
from pipeline.runs import STUDIES
from pipeline.tables import read_table

BEST, TRIALS = "best.json", "trials.csv"
SHOWN = 10  # trials on the page; the file beside it lists all
# What `trials.csv` says of a trial beside its hyper-parameters.
OF_A_TRIAL = {"trial", "state", "val_auc", "epochs", "seconds", "own_values", "reason",
              "number_in_study"}  # fmt: skip
FIGURES = {
    "tuning-history": "Each trial in turn",
    "tuning-importance": "What mattered",
    "tuning-slices": "Validation AUC against each hyper-parameter",
    "tuning-parallel": "The trials as lines across all hyper-parameters",
}


@dataclass(frozen=True)
class Search:
    """A study with a complete trial."""

    name: str
    anchor: str
    folder: Path
    facts: Mapping[str, Any]
    seconds: float
    sheet: Sheet
    figures: Sequence[Picture]
    runs: Sequence[RunView]

    @property
    def result(self) -> str:
        """Its result, in a sentence or two."""
        facts = self.facts
        text = (
            f"{count(facts['trials'], 'trial')} ({facts['pruned']} ended early, "
            f"{facts['failed']} failed) on the validation images; "
            f"the best is trial {facts['best_trial']} with an AUC of "
            f"{facts['best_val_auc']:.3f} there"
        )
        if facts["defaults_val_auc"] is not None:
            text += f", against {facts['defaults_val_auc']:.3f} with the model's own values"
        return f"{text}."


def searches_of(root: Path, runs: Sequence[RunView]) -> tuple[list[Search], list[str]]:
    """Read the studies among the runs.

    Returns:
        The studies with a complete trial on a dataset of the runs, and one line for each that
        cannot be read.
    """
    found, problems = [], []
    datasets = {run.data_hash for run in runs}
    for path in sorted((root / STUDIES).glob(f"*/{BEST}")):
        try:
            facts = read_json(path)
            if facts["data_hash"] in datasets:
                found.append(_search(path.parent, facts, runs))
        except UserError as error:
            problems.append(str(error))
        except (KeyError, TypeError, ValueError, OSError) as error:
            problems.append(f"{path.parent}: is no study as tune leaves it ({error!r})")
    return found, problems


def _search(folder: Path, facts: Mapping[str, Any], runs: Sequence[RunView]) -> Search:
    name = str(facts["study"])
    trials = [line.cells for line in read_table(folder / TRIALS, sorted(OF_A_TRIAL)).lines]
    return Search(
        name=name,
        anchor="study-" + "".join(c if c.isalnum() else "-" for c in name),
        folder=folder,
        facts=facts,
        seconds=sum(float(one["seconds"]) for one in trials),
        sheet=_sheet(name, trials),
        figures=pictures_of(folder, FIGURES),
        runs=[run for run in runs if run.tuning is not None and run.tuning["study"] == name],
    )


def _sheet(name: str, trials: Sequence[Mapping[str, str]]) -> Sheet:
    """Return the best trials and, wherever they stand, those with the model's own values."""
    complete = [one for one in trials if one["state"] == "complete"]
    complete.sort(key=lambda one: -float(one["val_auc"]))
    shown = [one for place, one in enumerate(complete)
             if place < SHOWN or one["own_values"] == "yes"]  # fmt: skip
    names = [key for key in trials[0] if key not in OF_A_TRIAL] if trials else []
    learns = any(one["epochs"] != "0" for one in trials)
    rows = [
        SheetRow(
            head=f"Trial {one['trial']}",
            cells=[
                float(one["val_auc"]),
                *((int(one["epochs"]),) if learns else ()),
                *(_value(one[key]) for key in names),
            ],
            detail="the model's own values" if one["own_values"] == "yes" else "",
        )
        for one in shown
    ]
    caption = (
        f"The best trials of {name}. The AUC is that of validation, and the highest of several is "
        "too high, by selection; what the test images say stands with the run."
    )
    columns = ["Trial", "Validation AUC", *(("Epochs",) if learns else ()), *map(_title, names)]
    return Sheet(f"searches/{name}", caption, columns, rows)


def _title(name: str) -> str:
    """Return a hyper-parameter's name in words: "Head depth" of head_depth."""
    text = name.replace("_", " ")
    return text.replace("sgd", "SGD") if text.startswith("sgd") else text[:1].upper() + text[1:]


def _value(text: str) -> Cell:
    """Return a value as the table shows it: three digits are enough to read, not to repeat."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return text if value.is_integer() else Note(f"{value:.3g}")
