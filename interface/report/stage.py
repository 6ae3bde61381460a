"""Report: all evaluated runs as one self-contained HTML page, with its tables and figures."""

import contextlib
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interface.report.beside import COMPARISON
from interface.report.page import Page, make_page
from interface.report.pictures import FOLDER, copy_figures, draw_forest
from interface.report.reading.runs import RunView, read_run
from interface.report.reading.words import count
from interface.report.sheets import write_sheet
from models.evaluation.tested import identified
from pipeline.errors import UserError
from pipeline.holding import hold, release
from pipeline.progress import Progress, Result, Table
from pipeline.records import (
    UNFINISHED,
    close_folder,
    digest,
    file_digest,
    open_folder,
    read_json,
    write_json,
    write_set_aside,
    write_table,
    write_text,
)
from pipeline.runs import METRICS, Run, list_runs
from pipeline.stages.evaluation import Report

PAGE, TABLE, METHODS, TABLES = "report.html", "metrics.csv", "methods.txt", "tables"
COLUMNS = (
    "run", "model", "fold", "unit", "split", "images", "patients", "malignant", "metric", "value",
    "low", "high",
)  # fmt: skip


def report(options: Report, progress: Progress) -> Result:
    """Write one HTML page with the data, the models, their metrics and curves.

    Returns:
        The report's folder: report.html, metrics.csv and metrics.json with all figures,
        methods.txt, tables as CSV and LaTeX, figures as SVG and PNG, set_aside.csv for runs that
        could not be read. Facts: report, metrics, runs, test_auc by run.

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
    runs.sort(key=lambda run: -(run.test.of("auc").value or 0))

    page = make_page(runs, len(finished) - len(evaluated), options, progress)
    _remove_unfinished(options.out)
    folder = _new_folder(options.out)
    open_folder(folder, "report", options)
    _write(folder, page, runs, progress)
    write_set_aside(folder, refused)
    counts = {"runs": len(runs), "not_evaluated": len(finished) - len(evaluated)}
    inputs = digest(*sorted(file_digest(run.folder / METRICS) for run in runs))
    close_folder(folder, "report", options, counts, inputs, time.monotonic() - started)
    return Result(
        folder=folder,
        headline=f"Report of {count(len(runs), 'run')}: {folder / PAGE}",
        facts={
            "report": str(folder / PAGE),
            "metrics": str(folder / TABLE),
            "runs": len(runs),
            "test_auc": {run.name: run.test.of("auc").value for run in runs},
        },
        tables=(_terminal_table(runs),),
        notes=tuple(page.problems),
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
    tested = identified([run.tested for run in runs])
    return [replace(run, tested=of) for run, of in zip(runs, tested, strict=True)], refused


def _remove_unfinished(out: Path) -> None:
    """Remove the reports that killed runs left; none can be continued."""
    for begun in out.glob(f"*/{UNFINISHED}"):
        with contextlib.suppress(UserError, OSError):  # another run may be at work on it
            if read_json(begun)["stage"] == "report":
                hold(begun.parent, "report")
                shutil.rmtree(begun.parent)
        release(begun.parent)


def _new_folder(out: Path) -> Path:
    """Return a folder name that is not taken: two reports may be made in one second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder, attempt = out / stamp, 0
    while folder.exists():
        attempt += 1
        folder = out / f"{stamp}.{attempt}"
    return folder


def _write(folder: Path, page: Page, runs: Sequence[RunView], progress: Progress) -> None:
    """Write the page and what lies beside it."""
    write_text(folder / PAGE, page.text)
    write_text(folder / METHODS, "\n\n".join(page.methods) + "\n")
    write_table(folder / TABLE, COLUMNS, list(_metric_rows(runs)))
    write_json(folder / METRICS, {run.name: Run(run.folder).metrics() for run in runs})
    # Where every breast or patient has a lesion, none of a table's rows has a figure to draw.
    forests = [sheet for sheet in page.sheets
               if sheet.forest is not None and any(row.whisker for row in sheet.rows)]  # fmt: skip
    total = len(runs) + len(forests) + len(page.searches)
    with progress.track("Writing figures", total, "figures") as advance:
        for sheet in page.sheets:
            write_sheet(folder / TABLES, sheet)
        if any(sheet.name == "anomaly" for sheet in page.sheets):
            copy_figures(folder.parent / COMPARISON, folder / FOLDER / COMPARISON)
        for section in page.sections:
            copy_figures(section.run.folder, folder / FOLDER / section.run.slug)
            advance(1)
        for sheet in forests:
            draw_forest(sheet, folder / FOLDER / sheet.name)
            advance(1)
        for search in page.searches:
            copy_figures(search.folder, folder / FOLDER / "searches" / search.name)
            advance(1)


def _metric_rows(runs: Iterable[RunView]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        for unit, found in run.units.items():
            for split, scores in found.splits.items():
                for name, figure in scores.metrics.items():
                    yield (
                        run.name, run.model, run.fold.number, unit, split, scores.images,
                        scores.patients, scores.malignant, name, figure.value, figure.low,
                        figure.high,
                    )  # fmt: skip


def _terminal_table(runs: Sequence[RunView]) -> Table:
    """Return the test AUC of each run, with its fold where any run has one."""
    rows, folds = [], any(run.fold.number for run in runs)
    if any(run.rare for run in runs):
        return _rare_table(runs)
    for run in runs:
        fold = (run.fold.number or "-",) if folds else ()
        area = run.test.of("auc")
        rows.append((run.name, *fold, run.test.images, area.value, area.range_text))
    columns = ("run", *(("fold",) if folds else ()), "images", "AUC", "95 % interval")
    return Table("Test AUC", columns, tuple(rows))


def _rare_table(runs: Sequence[RunView]) -> Table:
    """Return the test PR AUC of each run, where of some few images are positive."""
    rows = []
    for run in runs:
        area, chance = run.test.of("pr_auc"), run.test.base_rate
        soft = run.test.of("pf1").value  # not measured where more of them are
        rows.append((run.title, run.test.images, area.value, area.range_text, chance, soft,
                     run.test.of("auc").value))  # fmt: skip
    columns = ("run", "images", "PR AUC", "95 % interval", "chance", "pF1", "AUC")
    return Table("Test PR AUC", columns, tuple(rows))
