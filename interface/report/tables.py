"""The tables of the cohort and of the runs: metrics, strata, settings of each, cost of all."""

from collections.abc import Iterable, Iterator, Sequence

from interface.report.data import Cohort, Dataset
from interface.report.detectors import measures
from interface.report.reading.runs import RunView
from interface.report.reading.scores import COST_NAMES, METRIC_NAMES, UNITS, Scores
from interface.report.sheets import Cell, Sheet, SheetRow, forest_of, run_row
from models.metrics import WHERE_RARE

STAGES = {"organize": "Organised", "preprocess": "Preprocessed"}
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}


def cohort_sheets(datasets: Sequence[Dataset]) -> list[Sheet]:
    """Return how many images there were after each step, and what each step excluded."""
    sheets = []
    for place, dataset in enumerate(datasets, start=1):
        if not dataset.steps:
            continue
        mark = "" if place == 1 else f"_{place}"
        sheets.append(
            Sheet(
                f"cohort{mark}",
                f"Images and patients after each step, {dataset.folder}",
                ["Step", "Images", "Patients", *_names(dataset), "Augmented copies"],
                list(_counted(dataset)),
            )
        )
        excluded = list(_excluded(dataset))
        if excluded:
            sheets.append(
                Sheet(
                    f"exclusions{mark}",
                    f"What each step could not use or left out by rule, {dataset.folder}",
                    ["Reason", "Number"],
                    excluded,
                )
            )
    return sheets


def _names(dataset: Dataset) -> list[str]:
    return [name.capitalize() for name in dataset.steps[-1].labels.names]


def _counted(dataset: Dataset) -> Iterator[SheetRow]:
    for step in dataset.steps:
        yield SheetRow(STAGES[step.stage], _cells(step.cohort))
    if dataset.final is not None:
        for split, cohort in dataset.final.splits.items():
            yield SheetRow(SPLIT_NAMES[split], _cells(cohort))


def _cells(cohort: Cohort) -> list[Cell]:
    return [cohort.images, cohort.patients, cohort.benign, cohort.malignant, cohort.augmented]


def _excluded(dataset: Dataset) -> Iterator[SheetRow]:
    for step in dataset.steps:
        for part, found in (("set aside", step.set_aside), ("left out by rule", step.left_out)):
            for reason, number in found:
                yield SheetRow(reason, [number], part=f"{STAGES[step.stage]}: {part}")


def metrics_sheet(run: RunView) -> Sheet:
    """Return every metric on validation and on test, by unit on test."""
    columns: list[tuple[str, Scores]] = [
        (f"{SPLIT_NAMES[split]}, images", run.scores[split])
        for split in ("val", "test")
        if split in run.scores
    ]
    columns += [
        (f"Test, {UNITS[unit]}", run.units[unit].splits["test"]) for unit in ("breast", "patient")
    ]
    known = dict.fromkeys(name for _, scores in columns for name in scores.metrics)
    order = WHERE_RARE if run.rare else METRIC_NAMES
    names = {name: METRIC_NAMES[name] for name in measures(order, [run]) if name in known}
    names |= {name: name for name in measures(known, [run]) if name not in METRIC_NAMES}
    rows = [
        SheetRow(
            f"Number, {run.labels.positive}", [f"{s.images:,}, {s.malignant:,}" for _, s in columns]
        ),
        *(SheetRow(text, [s.of(name) for _, s in columns]) for name, text in names.items()),
    ]
    points = "; ".join(f"{unit} {run.threshold_text(unit)}" for unit in UNITS)
    unit = "" if run.anomaly is None else ", in standard deviations (SD) from normal images"
    caption = (
        f"Metrics with 95\u00a0% intervals over patients. Operating points{unit}: {points} "
        f"({run.rule}); since they were chosen there, figures at the threshold flatter validation."
    )  # fmt: skip
    return Sheet(f"{run.slug}/metrics", caption, ["Metric", *(title for title, _ in columns)], rows)


def strata_sheet(run: RunView) -> Sheet | None:
    """Return the AUC of each stratum of the test images; None where there is none."""
    if not run.strata:
        return None
    forest = forest_of("Interval of the AUC", [one.auc for one in run.strata], floor=0.3)
    rows = [
        SheetRow(
            head=one.level,
            cells=[one.auc, one.images, one.patients, one.malignant],
            detail="too few to say anything" if one.small else "",
            part=one.factor,
            kind="small" if one.small else "",
            whisker=forest.whisker(one.auc),
        )
        for one in run.strata
    ]
    caption = (
        "AUC of the test images of each kind. So many intervals are looked at that some lie far "
        f"off by chance; grey rows have too few {run.labels.positive} or {run.labels.names[0]} "
        "images to say anything."
    )
    columns = ["Stratum", "AUC", "Images", "Patients", run.labels.positive.capitalize()]
    return Sheet(f"{run.slug}/strata", caption, columns, rows, forest)


def strata_line(run: RunView) -> str:
    """Say in one line how far the strata lie apart, small ones aside."""
    known = [one for one in run.strata if not one.small and one.auc.value is not None]
    small = sum(one.small for one in run.strata)
    words = f"{len(run.strata)} strata of the test images"
    if len(known) > 1:
        low = min(known, key=lambda one: one.auc.value or 0)
        high = max(known, key=lambda one: one.auc.value or 0)
        words += f": AUC from {low.auc.value_text} ({low.factor.lower()} {low.level}) to "
        words += f"{high.auc.value_text} ({high.factor.lower()} {high.level})"
    which = "all" if small == len(run.strata) else f"{small}"
    return words + (f"; {which} of them too small to say anything" if small else "")


def settings_sheet(name: str, caption: str, rows: Iterable[tuple[str, str]]) -> Sheet:
    """Return options as a table of questions and answers."""
    listed = [SheetRow(question, [answer]) for question, answer in rows]
    return Sheet(name, caption, ["Option", "Answer"], listed)


def cost_sheet(runs: Sequence[RunView]) -> Sheet | None:
    """Return what the runs cost; None where nothing was measured."""
    names = [name for name in COST_NAMES if any(run.cost[name] is not None for run in runs)]
    if not names:
        return None
    rows = [
        run_row(run, [run.trainable or None, *(_cost(run.cost[name]) for name in names)])
        for run in runs
    ]
    columns = ["Run", "Trained parameters", *(COST_NAMES[name] for name in names)]
    caption = (
        "What the runs cost. Speeds are of prediction with the image in memory, and compare only "
        "where the device is the same; an ensemble costs what its members cost together."
    )
    return Sheet("cost", caption, columns, rows)


def _cost(value: object) -> Cell:
    if isinstance(value, bool) or value is None:
        return None
    return value if isinstance(value, (int, float, str)) else str(value)
