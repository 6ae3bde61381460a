"""Report: all evaluated runs as one self-contained HTML page, and their metrics as CSV."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interface.report_charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Forest,
    charts_of,
    forest,
)
from interface.report_data import Cohort, Dataset, cohort_of, repeat, settings, trace
from interface.report_images import SHEET, Outcome, Thumbnails, jpeg, samples
from interface.report_runs import METRIC_NAMES, NONE, RunView, read_run
from interface.report_shortcuts import shortcuts_of
from pipeline.errors import UserError
from pipeline.progress import Progress, Result, Table
from pipeline.records import (
    close_folder,
    digest,
    file_digest,
    open_folder,
    plain_options,
    write_set_aside,
    write_table,
    write_text,
)
from pipeline.runs import METRICS, Run, list_runs
from pipeline.stages import Report

PAGE, TABLE, TEMPLATE, PREVIEW = "report.html", "metrics.csv", "report.html.j2", "preview.png"
COLUMNS = (
    "run", "model", "fold", "split", "images", "patients", "malignant", "metric", "value", "low",
    "high",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Runs that were tested on the same images, the highest test AUC first.

    Attributes:
        runs: The runs.
        forest: Their test AUCs on one scale.
        overlapping: How many intervals overlap that of the first.
    """

    runs: Sequence[RunView]
    forest: Forest
    overlapping: int


@dataclass(frozen=True)
class Section:
    """What the page shows of one run; `changed` where its dataset is no longer the same."""

    run: RunView
    charts: Sequence[Chart]
    outcomes: Sequence[Outcome]
    commands: Sequence[str]
    settings: Sequence[tuple[str, str]]
    changed: bool


@dataclass(frozen=True)
class FoldLine:
    """What the runs of one fold learnt from and were validated on."""

    name: str
    train: Cohort
    val: Cohort


def report(options: Report, progress: Progress) -> Result:
    """Write one HTML page with the data, the models, their metrics and curves.

    Args:
        options: Where the runs lie and where the report goes.
        progress: Where to report.

    Returns:
        The report's folder: report.html, metrics.csv, set_aside.csv for runs that could not be
        read. Facts: report, metrics, runs, test_auc by run.

    Raises:
        UserError: No run has been evaluated, or none can be read.
    """
    started = time.monotonic()
    finished = list_runs(options.runs)
    evaluated = [run for run in finished if run.evaluated]
    if not evaluated:
        state = "holds no evaluated run" if finished else "holds no finished run"
        needed = "evaluate" if finished else "train"
        raise UserError(f"{options.runs}: {state}", f"run: python main.py {needed}")
    runs, refused = _read_all(evaluated, progress)
    if not runs:
        raise UserError(f"{options.runs}: no run can be read ({refused[0][1]})")
    runs.sort(key=lambda run: -(run.scores["test"].of("auc").value or 0))

    page, thin = _page(runs, len(finished) - len(evaluated), options, progress)
    folder = _new_folder(options.out)
    open_folder(folder, "report", options)
    write_text(folder / PAGE, page)
    write_table(folder / TABLE, COLUMNS, list(_metric_rows(runs)))
    write_set_aside(folder, refused)
    counts = {"runs": len(runs), "not_evaluated": len(finished) - len(evaluated)}
    inputs = digest(*sorted(file_digest(run.folder / METRICS) for run in runs))
    close_folder(folder, "report", options, counts, inputs, time.monotonic() - started)
    return Result(
        folder=folder,
        headline=f"Report of {_count(len(runs), 'run')}: {folder / PAGE}",
        facts={
            "report": str(folder / PAGE),
            "metrics": str(folder / TABLE),
            "runs": len(runs),
            "test_auc": {run.name: run.scores["test"].of("auc").value for run in runs},
        },
        tables=(_terminal_table(runs),),
        notes=tuple(thin),
        set_aside=len(refused),
    )


def _read_all(found: Sequence[Run], progress: Progress) -> tuple[list[RunView], list[Any]]:
    runs, refused = [], []
    with progress.track("Reading runs", len(found), "runs") as advance:
        for run in found:
            try:
                runs.append(read_run(run))
            except UserError as error:
                refused.append((run.name, str(error)))
            advance(1)
    return runs, refused


def _new_folder(out: Path) -> Path:
    """Return a folder name that is not taken: two reports may be made in one second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder, attempt = out / stamp, 0
    while folder.exists():
        attempt += 1
        folder = out / f"{stamp}.{attempt}"
    return folder


def _page(
    runs: Sequence[RunView], waiting: int, options: Report, progress: Progress
) -> tuple[str, list[str]]:
    """Return the page, and what it had to leave out."""
    datasets = {folder: trace(folder) for folder in dict.fromkeys(run.data for run in runs)}
    thumbnails = {folder: Thumbnails(_files(dataset)) for folder, dataset in datasets.items()}
    sections = []
    with progress.track("Drawing runs", len(runs), "runs") as advance:
        for run in runs:
            sections.append(_section(run, datasets[run.data], thumbnails[run.data]))
            advance(1)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "share": _share, "minutes": _minutes}
    page = environment.get_template(TEMPLATE).render(
        area={"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        drawing={"width": WIDTH, "height": HEIGHT},
        date=time.strftime("%Y-%m-%d %H:%M"),
        none=NONE,
        best=runs[0],
        waiting=waiting,
        groups=_groups(runs),
        sections=sections,
        datasets=list(datasets.values()),
        shortcuts={str(folder): shortcuts_of(dataset) for folder, dataset in datasets.items()},
        sheets={str(folder): _sheet(dataset) for folder, dataset in datasets.items()},
        folds={str(folder): _folds(dataset, runs) for folder, dataset in datasets.items()},
        plain={str(run.data) for run in runs if not run.fold.number},
        preprocessing={str(run.data): _preprocessing(run) for run in runs},
        synthetic=[dataset.synthetic for dataset in datasets.values()],
        metric_names=_metric_names(runs),
        versions=_versions(runs, datasets.values()),
        chain=_chain(datasets.values()),
        again=repeat("report", plain_options(options)),
    )
    return page, [problem for dataset in datasets.values() for problem in dataset.problems]


def _files(dataset: Dataset) -> dict[str, Path]:
    rows = dataset.final.rows if dataset.final else ()
    return {row.image_id: dataset.folder / row.path for row in rows}


def _folds(dataset: Dataset, runs: Sequence[RunView]) -> list[FoldLine]:
    """Count, by what each run recorded, the folds of a dataset: its folder knows only one split."""
    rows = dataset.final.rows if dataset.final else ()
    lines: dict[tuple[str, frozenset[str]], FoldLine] = {}
    for run in sorted(runs, key=lambda run: run.fold.number):
        if run.data != dataset.folder or not run.fold.number:
            continue
        scored = {prediction.image_id for prediction in run.predictions["val"]}
        lines[run.fold.name, run.trained_patients] = FoldLine(
            run.fold.name,
            cohort_of([row for row in rows if row.patient_id in run.trained_patients]),
            cohort_of([row for row in rows if row.image_id in scored]),
        )
    return list(lines.values())


def _section(run: RunView, dataset: Dataset, thumbnails: Thumbnails) -> Section:
    trained = run.record.get("options", {})
    evaluation = {
        "run": str(run.folder), "data": None if run.data == run.trained_on else str(run.data),
        "runs": trained.get("runs", "runs"),
        "replicates": run.replicates, "seed": run.seed,
    }  # fmt: skip
    commands = [
        repeat("train", trained),
        repeat("evaluate", evaluation),
    ]
    return Section(
        run=run,
        charts=charts_of(run),
        outcomes=samples(run, thumbnails),
        commands=commands,
        settings=settings("train", trained),
        changed=bool(dataset.steps) and dataset.hash != run.data_hash,
    )


def _groups(runs: Sequence[RunView]) -> list[Group]:
    """Part the runs by the images they were tested on, since only such figures compare."""
    alike: dict[Any, list[RunView]] = {}
    for run in runs:
        alike.setdefault(run.test_set, []).append(run)
    groups = []
    for group in alike.values():
        first = group[0].scores["test"].of("auc")
        overlapping = sum(
            first.low is None or high is None or high >= first.low
            for high in (run.scores["test"].of("auc").high for run in group[1:])
        )
        groups.append(Group(group, forest(group), overlapping))
    return groups


def _preprocessing(run: RunView) -> list[tuple[str, str]]:
    """Return what the images went through; a run knows it even where its dataset is gone."""
    return settings("preprocess", run.preprocessing) if run.preprocessing else []


def _sheet(dataset: Dataset) -> str:
    step = dataset.step("preprocess")
    return jpeg(step.folder / PREVIEW, SHEET) if step else ""


def _metric_names(runs: Sequence[RunView]) -> dict[str, str]:
    """Name every metric that a run has, the known ones first."""
    found = dict.fromkeys(name for run in runs for name in run.scores["test"].metrics)
    return {name: text for name, text in METRIC_NAMES.items() if name in found} | {
        name: name for name in found if name not in METRIC_NAMES
    }


def _versions(runs: Iterable[RunView], datasets: Iterable[Dataset]) -> dict[str, str]:
    """Return every version that a figure rests on; several where the stages differ."""
    records: list[Mapping[str, Any]] = [run.record for run in runs]
    records += [step.record for dataset in datasets for step in dataset.steps]
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in record.get("versions", {}).items():
            found.setdefault(package, {})[str(version)] = None
    return {package: ", ".join(versions) for package, versions in found.items()}


def _chain(datasets: Iterable[Dataset]) -> list[dict[str, Any]]:
    """Return the stages before training: folder, seed, duration and the command."""
    chain: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        made = [(step.stage, step.folder, step.record) for step in dataset.steps]
        if dataset.collection is not None and dataset.source is not None:
            made.insert(0, ("synthesize", dataset.source, dataset.collection))
        for stage, folder, record in made:
            chain[str(folder)] = {
                "stage": stage, "folder": str(folder), "seed": record["options"].get("seed", NONE),
                "seconds": record.get("seconds", 0), "command": repeat(stage, record["options"]),
            }  # fmt: skip
    return list(chain.values())


def _metric_rows(runs: Iterable[RunView]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for split, scores in run.scores.items():
            for name, found in scores.metrics.items():
                yield (
                    run.name, run.model, run.fold.number, split, scores.images, scores.patients,
                    scores.malignant, name, found.value, found.low, found.high,
                )  # fmt: skip


def _terminal_table(runs: Sequence[RunView]) -> Table:
    """Return the test AUC of each run, with its fold where any run has one."""
    rows, folds = [], any(run.fold.number for run in runs)
    for run in runs:
        test, fold = run.scores["test"], (run.fold.number or "-",) if folds else ()
        area = test.of("auc")
        rows.append((run.name, *fold, test.images, area.value, area.range_text))
    columns = ("run", *(("fold",) if folds else ()), "images", "AUC", "95 % interval")
    return Table("Test AUC", columns, tuple(rows))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
