"""Stage 2: crop borders, remove annotations, blur, enhance contrast, resize, augment.

The chain of array functions, `preprocess_image`, serves the stage and prediction, so that an
uploaded image passes through exactly what the training images passed through.
"""

import dataclasses
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from images import augmentation, steps
from images.chain import preprocess_image, preprocessing_steps
from images.files import read_image, write_png
from images.jobs import (
    FEW_IMAGES,
    Job,
    JobResult,
    code_digest,
    make_image,
    plan_jobs,
    run_jobs,
    use_one_thread,
)
from images.preview import Panel, PreviewImage, draw_row, write_sheet
from models.shortcuts.stage import probed
from pipeline import records
from pipeline.errors import UserError
from pipeline.folds import FOLDS, Fold, carry_folds, read_rows
from pipeline.holding import release
from pipeline.labels import Labels
from pipeline.manifest import MANIFEST, SPLITS, Row, image_path, labels_of, write_manifest
from pipeline.paths import inside
from pipeline.progress import Cell, Progress, Result, Table
from pipeline.provenance import made_from, pixels_digest
from pipeline.resources.places import WORKING
from pipeline.stages.data import Preprocess
from pipeline.work import Ledger, run_all, worker_count

__all__ = ["preprocess", "preprocess_image", "preprocessing_steps"]

PREVIEW, TRIAL, PREVIEWED = "preview.png", "preview_trial.png", 4


def preprocess(options: Preprocess, progress: Progress) -> Result:
    """Preprocess an organised dataset, or show on a few images what that would do.

    Returns:
        The result, with the folder of the preprocessed dataset.

    Raises:
        UserError: The dataset is missing, incomplete or empty or has not the fold, the output
            folder is not usable, or not one image can be read.
    """
    started = time.monotonic()
    _check_options(options)
    record = records.read_record(options.data, "organize")
    rows, fold = read_rows(options.data, record, options.fold)
    if not rows:
        raise UserError(f"{options.data / MANIFEST}: lists no image", "organise a collection first")
    if options.preview:
        return _write_trial_preview(options, rows, progress)
    source = made_from(options.data, options.out, record)
    records.open_folder(options.out, "preprocess", options)
    (options.out / TRIAL).unlink(missing_ok=True)
    carry_folds(options.data, options.out, fold)
    ledger = Ledger(options.out)
    jobs = plan_jobs(options, rows, ledger, progress)
    made, problems = run_jobs(make_image, jobs, ledger, progress, "Preprocessing")
    if not made:
        raise UserError(f"{options.data}: not one image can be used ({problems[0][1]})")
    copies, more = run_jobs(_make_copy, _copy_jobs(options, made), ledger, progress, "Augmenting")
    problems += more
    _update_preview(options, made, ledger)
    _remove_stale(options.out, ledger, made, copies)
    written = [dataclasses.replace(one.job.row, **one.facts) for one in [*made, *copies]]
    write_manifest(options.out, written)
    records.write_set_aside(options.out, problems)
    result = _result(options, written, len(problems), fold)
    result = probed(result, options, written, progress)
    files = (options.data / MANIFEST, options.data / FOLDS)
    inputs = records.digest(*(records.file_digest(file) for file in files if file.is_file()))
    seconds = time.monotonic() - started
    pixels = pixels_digest((one.job.row.image_id, one.job.key) for one in [*made, *copies])
    records.close_folder(
        options.out,
        "preprocess",
        options,
        result.facts,
        inputs,
        seconds,
        pixels=pixels,
        source=source,
    )
    return result


def _check_options(options: Preprocess) -> None:
    data, out = options.data.resolve(), options.out.resolve()
    if out == data or data in out.parents:
        raise UserError(
            f"{options.out}: lies in the dataset {options.data}", "choose another --out"
        )
    if options.blur == "median" and options.blur_kernel not in steps.MEDIANS:
        raise UserError(
            f"--blur-kernel {options.blur_kernel}: a median of 16-bit values takes 3 or 5",
            "choose another kernel or --blur",
        )


def _copy_jobs(options: Preprocess, made: Sequence[JobResult]) -> list[Job]:
    if options.augment == "none":
        return []
    recipe = [
        options.augment,
        augmentation.RECIPES[options.augment],
        code_digest(augmentation.__file__),
    ]
    jobs = []
    for parent in made:
        # A copy's pixels are not where its parent's are, so it gets no crop box.
        size = {name: parent.facts[name] for name in ("height", "width")}
        row = dataclasses.replace(parent.job.row, **size)
        for number in range(1, options.copies * (row.split == "train") + 1):
            name = f"{row.image_id}_aug{number}"
            path = image_path(row.split, row.label, name)
            copy = dataclasses.replace(row, image_id=name, path=path, parent=row.image_id)
            content = records.digest(parent.job.key, name, options.seed, recipe)
            jobs.append(Job(copy, parent.job.target, parent.job.folder, content, options))
    return jobs


def _make_copy(job: Job) -> JobResult:
    """Write an augmented copy, one that differs from its parent where the recipe can."""
    use_one_thread()
    image = steps.to_uint8(read_image(job.source))
    augment = augmentation.Augmenter(job.options.augment)
    copy = image
    # Flips alone leave an image as it is one time in four; a duplicate would only weigh it twice.
    for turn in range(20):
        if not np.array_equal(copy, image):
            break
        copy = augment(image, augmentation.seed_for(job.options.seed, job.row.image_id, turn))
    write_png(job.target, copy)
    return JobResult(job, {}, ((job.row.path, job.key, {}),))


def _remove_stale(
    out: Path, ledger: Ledger, made: Sequence[JobResult], copies: Sequence[JobResult]
) -> None:
    """Remove what earlier runs made and this one does not want."""
    wanted = {PREVIEW, *(one.job.note for one in made)}
    wanted |= {one.job.row.path for one in [*made, *copies]}
    wanted |= {name for one in made for name in one.job.working if one.job.options.size}
    for gone in ledger.keep_only(wanted):
        inside(out, gone).unlink(missing_ok=True)
    ledger.rewrite()
    working = out / WORKING
    for stale in {*working.glob("*.png")} - {out / name for name in wanted}:
        stale.unlink()
    if working.is_dir() and not any(working.iterdir()):
        working.rmdir()


def _examples(options: Preprocess, rows: Sequence[Row], number: int) -> list[PreviewImage]:
    """Return some images to show, of both labels in turn, one of each patient at first."""
    train = [row for row in rows if row.split == "train"] or list(rows)
    seen: dict[str, int] = {}
    ranked = []
    for row in sorted(train, key=lambda row: row.image_id):
        turn = seen.setdefault(f"{row.patient_id} {row.label}", 0)
        seen[f"{row.patient_id} {row.label}"] += 1
        ranked.append((turn, row))
    by_label = [
        [row for _, row in sorted(ranked, key=lambda entry: entry[0]) if row.label == label]
        for label in labels_of(rows)
    ]
    most = max(map(len, by_label))
    mingled = [rows[at] for at in range(most) for rows in by_label if at < len(rows)]
    return [
        PreviewImage(options.data / row.path, row.unit, f"{row.image_id}, {row.label}", options)
        for row in sorted(mingled[:number], key=lambda row: (row.label, row.image_id))
    ]


def _write_trial_preview(options: Preprocess, rows: Sequence[Row], progress: Progress) -> Result:
    """Show the steps on some images, and leave the rest of the folder as it is."""
    records.claim_folder(options.out, "preprocess", options)
    panels: dict[Path, Panel] = {}
    notes = []
    examples = _examples(options, rows, options.preview)
    workers = worker_count(options.workers) if len(examples) > FEW_IMAGES else 1
    with progress.track("Drawing", len(examples), "images") as advance:
        for shown, drawn in run_all(draw_row, examples, workers):
            if isinstance(drawn, UserError):
                notes.append(f"not shown: {drawn}")
            else:
                panels[shown.path] = drawn
            advance(1)
    if not panels:
        raise UserError(f"{options.data}: not one image can be shown ({notes[0]})")
    sheet = options.out / TRIAL
    write_sheet(sheet, [panels[shown.path] for shown in examples if shown.path in panels])
    release(options.out)
    return Result(
        folder=options.out,
        headline=f"The steps on {len(panels)} images: {sheet}",
        facts={"preview": str(sheet), "images": len(panels)},
        notes=tuple(notes),
        next_stage="preprocess",
        next_options=dataclasses.asdict(options) | {"preview": 0},
    )


def _update_preview(options: Preprocess, made: Sequence[JobResult], ledger: Ledger) -> None:
    """Keep a sheet of the steps beside the dataset, for the report."""
    organised = [dataclasses.replace(one.job.row, path=one.job.source.as_posix()) for one in made]
    examples = _examples(options, organised, PREVIEWED)
    keys = {one.job.source: one.job.key for one in made}
    key = records.digest([keys[shown.path] for shown in examples])
    if ledger.facts(PREVIEW, key) is None or not (options.out / PREVIEW).is_file():
        write_sheet(options.out / PREVIEW, [draw_row(shown) for shown in examples])
        ledger.add(PREVIEW, key, {})


def _result(options: Preprocess, rows: Sequence[Row], set_aside: int, fold: Fold) -> Result:
    """Summarise the rows that the stage has written."""
    both, lines = labels_of(rows), list[tuple[Cell, ...]]()
    names = ("split", "images", *Labels(*both).names, "augmented")
    for split in SPLITS:
        here = [row for row in rows if row.split == split]
        labels = [row.label for row in here if not row.parent]
        counts = (len(labels), *(labels.count(label) for label in both))
        lines.append((split, *counts, len(here) - len(labels)))
    augmented = sum(bool(row.parent) for row in rows)
    images = len(rows) - augmented
    size = f"{options.size} x {options.size} pixels" if options.size else "full size"
    headline = f"{images} images preprocessed to {size}"
    if augmented:
        headline += f", with {augmented} augmented copies"
    columns = ("split", "images", *both, "augmented")
    title = "Preprocessed images" + (f", val is {fold.name}" if fold.number else "")
    return Result(
        folder=options.out,
        headline=headline,
        facts={
            "images": images,
            "augmented": augmented,
            "set_aside": set_aside,
            "splits": {line[0]: dict(zip(columns[1:], line[1:], strict=True)) for line in lines},
            "preview": str(options.out / PREVIEW),
            **fold.facts,
        },
        tables=(Table(title, names, tuple(lines)),),
        set_aside=set_aside,
        next_stage="train",
        next_options={"data": options.out},
    )


if __name__ == "__main__":
    sys.argv.insert(1, "preprocess")
    runpy.run_path(str(Path(__file__).with_name("main.py")), run_name="__main__")
