"""The page: what its templates are filled with."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interface.report.beside import beside_of
from interface.report.claim import Study, claim_sheet
from interface.report.commands import commands_after, repeat, settings, stages_before
from interface.report.data import (
    Cohort,
    Dataset,
    cohort_of,
    description_of,
    masks_of,
    shortcuts_of,
    trace,
)
from interface.report.detectors import normal_text, rule_text, threshold_sheet
from interface.report.groups import Group, groups_of
from interface.report.heat_maps import Explanations, explanations_of
from interface.report.methods import methods
from interface.report.pictures import (
    RUN_FIGURES,
    SHEET,
    Outcome,
    Picture,
    Thumbnails,
    jpeg,
    pictures_of,
    samples,
)
from interface.report.published import LEAK, published_sheet
from interface.report.reading.runs import STRATEGIES, RunView
from interface.report.reading.scores import NONE
from interface.report.reading.words import count
from interface.report.repeats import repeats_of, repeats_sheet
from interface.report.searches import Search, searches_of
from interface.report.sheets import Sheet, cell_text
from interface.report.tables import (
    cohort_sheets,
    cost_sheet,
    metrics_sheet,
    settings_sheet,
    strata_line,
    strata_sheet,
)
from interface.report.verdicts import alarms_of, result_of
from pipeline.labels import Labels
from pipeline.progress import Progress
from pipeline.records import plain_options
from pipeline.stages.collections import CBIS_DDSM, collection_name
from pipeline.stages.evaluation import Report

TEMPLATE, PREVIEW = "report.html.j2", "preview.png"


@dataclass(frozen=True)
class Section:
    """What the page shows of one run; `changed` says how its data have changed since."""

    run: RunView
    figures: Sequence[Picture]
    outcomes: Sequence[Outcome]
    legend: str  # of the outlines in its sample images; empty where there is none
    metrics: Sheet
    strata: Sheet | None
    strata_line: str
    settings: Sheet | None
    changed: str
    explanations: Explanations | None
    normal: Sequence[str]  # of a detector what normal was and how the threshold was set, or empty
    threshold: Sheet | None  # of a detector


@dataclass(frozen=True)
class FoldLine:
    """What the runs of one fold learnt from and were validated on."""

    name: str
    train: Cohort
    val: Cohort


@dataclass(frozen=True)
class Page:
    """A page and what is written beside it."""

    text: str
    methods: Sequence[str]
    sheets: Sequence[Sheet]
    sections: Sequence[Section]
    searches: Sequence[Search]
    problems: Sequence[str]


def make_page(runs: Sequence[RunView], waiting: int, options: Report, progress: Progress) -> Page:
    """Fill the page."""
    folders = dict.fromkeys(run.data for run in runs if run.data is not None)
    datasets = {folder: trace(folder) for folder in folders}
    with progress.track("Comparing runs", 1, "steps") as advance:
        groups = groups_of(runs, options.runs)
        advance(1)
    sections = _sections(runs, datasets, progress)
    searches, unread = searches_of(options.runs, runs)
    versions = _versions(runs, datasets.values())
    shortcuts = {str(folder): shortcuts_of(dataset) for folder, dataset in datasets.items()}
    main = groups[0]
    dataset = datasets.get(main.best.data) if main.best.data else None
    written = methods(main, dataset, versions)
    whole = {
        "folds_sheet": repeats_sheet(repeats_of(runs)),
        "cost": cost_sheet(runs),
        "published": published_sheet(main.runs) if _of_published(dataset, main.best) else None,
        "claim": claim_sheet(Study(main, dataset, versions)),
    }
    preprocessing = {
        str(folder): _preprocessing([run for run in runs if run.data == folder], place)
        for place, folder in enumerate(datasets, start=1)
    }
    context = {
        "best": main.best,
        "result": result_of(main),
        "alarms": alarms_of(groups, shortcuts, [one.synthetic for one in datasets.values()]),
        "groups": groups,
        "beside": (beside := beside_of(runs, options)),
        "sections": sections,
        "searches": searches,
        "datasets": list(datasets.values()),
        "synthetic": bool(dataset and dataset.synthetic),
        "sourced": bool(dataset and dataset.step("organize") and not dataset.problems),
        "methods": written,
        "shortcuts": shortcuts,
        "descriptions": {str(folder): description_of(one) for folder, one in datasets.items()},
        "folds": {str(folder): _folds(one, runs) for folder, one in datasets.items()},
        "preprocessing": preprocessing,
        "versions": versions,
        "strategies": STRATEGIES,
        "chain": (chain := stages_before(datasets.values())),
        "commands": [
            *(step["command"] for step in chain),
            *commands_after(runs, searches),
            repeat("report", plain_options(options)),
        ],
        **whole,
    }
    text = _render(context, runs, waiting)
    sheets = [
        *_of_groups(groups), *whole.values(), *cohort_sheets(list(datasets.values())),
        *(sheet for one in sections for sheet in (one.metrics, one.threshold, one.strata,
                                           one.settings)),
        *(sheet for one in sections if one.explanations
          for sheet in (one.explanations.sheet, one.explanations.strata)),
        *preprocessing.values(), *(one.sheet for one in searches),
    ]  # fmt: skip
    problems = [problem for one in datasets.values() for problem in one.problems] + unread
    shown = [one for one in (*sheets, *([beside.sheet] if beside else ())) if one is not None]
    return Page(text, written, shown, sections, searches, problems)


def _render(context: Mapping[str, Any], runs: Sequence[RunView], waiting: int) -> str:
    datasets: Sequence[Dataset] = context["datasets"]
    text = _environment().get_template(TEMPLATE).render(
        date=time.strftime("%Y-%m-%d %H:%M"),
        none=NONE,
        leak=LEAK,
        waiting=waiting,
        pictures={str(one.folder): _sheet(one) for one in datasets},
        trained={str(run.data) for run in runs if not run.elsewhere},
        plain={str(run.data) for run in runs if not run.fold.number},
        **context,
    )  # fmt: skip
    return text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell_text, "count": count, "share": _share, "minutes": _minutes}
    return environment


def _of_groups(groups: Iterable[Group]) -> list[Sheet | None]:
    sheets: list[Sheet | None] = []
    for group in groups:
        sheets += [*group.tables.values(), group.against, group.confusion]
        if group.significance is not None:
            sheets.append(group.significance.sheet)
    return sheets


def _of_published(dataset: Dataset | None, run: RunView) -> bool:
    """Return whether the images are known to be those that published results are on: CBIS-DDSM."""
    if dataset is None or dataset.problems or dataset.synthetic or run.labels != Labels():
        return False
    organised = dataset.step("organize")
    return organised is None or collection_name(organised.record) == CBIS_DDSM


def _sections(
    runs: Sequence[RunView], datasets: Mapping[Path, Dataset], progress: Progress
) -> list[Section]:
    thumbnails = {folder: _thumbnails(dataset) for folder, dataset in datasets.items()}
    sections = []
    with progress.track("Drawing runs", len(runs), "runs") as advance:
        for run in runs:
            dataset = datasets[run.data] if run.data else None
            pictures = thumbnails[run.data] if run.data else Thumbnails(Path(), (), {})
            sections.append(_section(run, dataset, pictures))
            advance(1)
    return sections


def _thumbnails(dataset: Dataset) -> Thumbnails:
    rows = dataset.final.rows if dataset.final else ()
    return Thumbnails(dataset.folder, rows, masks_of(dataset))


def _section(run: RunView, dataset: Dataset | None, thumbnails: Thumbnails) -> Section:
    caption = f"Options of training {run.title}: all but folders and workers"
    outcomes = samples(run, thumbnails)
    organised = dataset.step("organize") if dataset else None
    collection = collection_name(organised.record) if organised else CBIS_DDSM
    shown = None
    if run.record["stage"] == "train":
        used = settings("train", run.options, ("hyperparameters",))
        shown = settings_sheet(f"{run.slug}/training", caption, used)
    return Section(
        run=run,
        figures=pictures_of(run.folder, RUN_FIGURES),
        outcomes=outcomes,
        legend=_legend(outcomes, bool(dataset and dataset.synthetic), collection),
        metrics=metrics_sheet(run),
        strata=strata_sheet(run),
        strata_line=strata_line(run),
        settings=shown,
        changed=_changed(dataset, run) if dataset and dataset.steps else "",
        explanations=explanations_of(run),
        normal=(normal_text(run, dataset), rule_text(run)) if run.anomaly else (),
        threshold=threshold_sheet(run) if run.anomaly else None,
    )


def _legend(outcomes: Sequence[Outcome], synthetic: bool, collection: str) -> str:
    """Say what the outlines in sample images are; empty where there is none."""
    shown = [sample.picture for outcome in outcomes for sample in outcome.samples]
    if not any(picture.outlined for picture in shown):
        return ""
    by = "the mask that the program drew" if synthetic else (
        "the radiologist's mark in the collection, which for masses an algorithm refined (Lee et "
        "al. 2017)" if collection == CBIS_DDSM else "as the collection marks it"
    )  # fmt: skip
    bare = "" if all(picture.outlined for picture in shown) else " Without a line there is no mask."
    return f"Outline of a lesion: {by}; the models do not see it.{bare}"


def _changed(dataset: Dataset, run: RunView) -> str:
    """Return how the data of a run have changed since it was evaluated; empty for not at all."""
    if dataset.hash != run.data_hash:
        return f"{dataset.folder} was made anew"
    return dataset.out_of_date


def _folds(dataset: Dataset, runs: Sequence[RunView]) -> list[FoldLine]:
    """Count, by what each run recorded, the folds of a dataset: its folder knows only one split."""
    rows = dataset.final.rows if dataset.final else ()
    labels = Labels.of(rows)
    lines: dict[tuple[str, frozenset[str]], FoldLine] = {}
    for run in sorted(runs, key=lambda run: run.fold.number):
        if run.data != dataset.folder or not run.fold.number:
            continue
        scored = {prediction.image_id for prediction in run.predictions["val"]}
        lines[run.fold.name, run.trained_patients] = FoldLine(
            run.fold.name,
            cohort_of([row for row in rows if row.patient_id in run.trained_patients], labels),
            cohort_of([row for row in rows if row.image_id in scored], labels),
        )
    return list(lines.values())


def _preprocessing(runs: Sequence[RunView], place: int) -> Sheet | None:
    """Return what the images went through; a run knows it even where its dataset is gone."""
    given = next((run.preprocessing for run in runs if not run.elsewhere), None)
    if given is None:
        return None
    rows = settings("preprocess", given)
    name = "preprocessing" if place == 1 else f"preprocessing_{place}"
    return settings_sheet(name, "Options of preprocessing", rows)


def _sheet(dataset: Dataset) -> str:
    step = dataset.step("preprocess")
    return jpeg(step.folder / PREVIEW, SHEET) if step else ""


def _versions(runs: Iterable[RunView], datasets: Iterable[Dataset]) -> dict[str, str]:
    """Return every version that a figure rests on; several where the stages differ."""
    records: list[Mapping[str, Any]] = [run.record for run in runs]
    records += [step.record for dataset in datasets for step in dataset.steps]
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in record.get("versions", {}).items():
            found.setdefault(package, {})[str(version)] = None
    return {package: ", ".join(versions) for package, versions in found.items()}


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
