"""Stage 2: crop borders, remove annotations, blur, enhance contrast, resize, augment.

`preprocess_image` is the chain of array functions for the stage and for prediction alike, so that
an uploaded image passes through exactly what the training images passed through.
"""

import dataclasses
import functools
import runpy
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models import augmentation, shortcuts
from pipeline import records
from pipeline.errors import UserError
from pipeline.folds import FOLDS, Fold, carry_folds, read_rows
from pipeline.manifest import LABELS, MANIFEST, SPLITS, Row, image_path, write_manifest
from pipeline.progress import Cell, Progress, Result, Table
from pipeline.stages import Preprocess
from pipeline.work import Ledger, run_all, worker_count
from sources import film_frame, film_parts, film_steps
from sources.film_frame import CENTRE, Box, Frame
from sources.film_steps import Grey
from sources.images import read_image, write_png

PREVIEW = "preview.png"
PREVIEWED, PANEL, LINE, GUTTER, PAPER = 2, 256, 20, 6, 64  # images of each label; pixels; grey
# What the pixels of a preprocessed image do not depend on.
INDIFFERENT = ("data", "out", "seed", "workers", "augment", "copies", "fold")


def preprocess_image(
    image: Grey, options: Preprocess, unit: str = "mammogram"
) -> tuple[NDArray[np.uint8], Frame]:
    """Run the chain that the options switch on.

    Args:
        image: (H, W) uint16 in [0, 65535], as `sources.images.read_image` gives it.
        options: Of the stage; paths, seed and augmentation do not matter here.
        unit: "mammogram", or "crop" for a lesion crop, which has neither borders nor background.

    Returns:
        (size, size) uint8 in [0, 255], and where it lies in `image`.

    Raises:
        UserError: There is no breast in the image.
    """
    steps, frame = preprocessing_steps(image, options, unit)
    return film_steps.to_uint8(steps[-1][1]), frame


def preprocessing_steps(
    image: Grey, options: Preprocess, unit: str
) -> tuple[list[tuple[str, Grey]], Frame]:
    """Run the chain and keep what each step made; see `preprocess_image`.

    The film is shrunk by a whole factor as soon as it is cropped, to no less than the working
    size and than what finding the breast needs, and to the working size before the blur: grain,
    kernel and tiles then mean the same on films of any size, and each step costs a fraction.

    Returns:
        The steps' names and images, from the original to the result, and the frame.
    """
    film, steps = unit != "crop", [("original", image)]
    box = _film_box(image, options) if film else Box(0, 0, image.shape[1], image.shape[0])
    longer = max(box.width, box.height)
    least = max(options.size, film_parts.MASK_DETAIL)
    factor = max(1, min(longer // least, box.width, box.height))
    result = film_steps.reduce_by_area(box.of(image), factor)
    box = Box(box.x, box.y, result.shape[1] * factor, result.shape[0] * factor)
    if film and options.crop != "none":
        steps.append(("borders cropped", result))
    mask = np.ones(result.shape, np.bool_)
    if film and options.annotations:
        mask = film_parts.breast_mask(result)
        if not mask.any():
            raise UserError("no breast can be found in it")
        result = film_steps.remove_annotations(result, mask)
        steps.append(("annotations removed", result))
    place = film_steps.chest_wall_side(result) if film else CENTRE
    result, _ = film_steps.resize_and_pad(result, options.size, place)
    inside, _ = film_steps.resize_and_pad(mask.astype(np.uint16), options.size, place)
    steps.append(("resized", result))
    if options.blur == "gaussian":
        result = film_steps.blur(result, options.blur_kernel)
        steps.append(("blurred", result))
    if options.clahe:
        clip, tiles = options.clahe_clip, options.clahe_tiles
        result = film_steps.clahe(result, inside > 0, clip, tiles)
        steps.append(("contrast enhanced", result))
    return steps, Frame.around(box, options.size, place)


def _film_box(image: Grey, options: Preprocess) -> Box:
    if options.crop == "auto":
        return film_parts.find_border_box(image)
    return film_parts.fixed_border_box(image.shape, options.margin * (options.crop == "fixed"))


@dataclass(frozen=True)
class Job:
    """One image to write, if it is not already there.

    Attributes:
        row: What it becomes in the manifest, but for what is learnt while making it.
        source: What it is made from.
        folder: The dataset that it goes to.
        key: Digest of all that its pixels depend on.
        options: Of the stage.
    """

    row: Row
    source: Path
    folder: Path
    key: str
    options: Preprocess

    @property
    def target(self) -> Path:
        """The file to write."""
        return self.folder / self.row.path


def preprocess(options: Preprocess, progress: Progress) -> Result:
    """Preprocess an organised dataset.

    A stopped run continues where it was; with other options, only what they change is made again.

    Args:
        options: Of the stage.
        progress: Where to report.

    Returns:
        The result, with the folder of the preprocessed dataset.

    Raises:
        UserError: The dataset is missing, incomplete or empty or has not the fold, the output
            folder is not usable, or not one image can be read.
    """
    started = time.monotonic()
    _refuse_overlap(options)
    record = records.read_record(options.data, "organize")
    rows, fold = read_rows(options.data, record, options.fold)
    if not rows:
        raise UserError(f"{options.data / MANIFEST}: lists no image", "organise a collection first")
    records.open_folder(options.out, "preprocess", options)
    carry_folds(options.data, options.out, fold)
    ledger = Ledger(options.out)
    jobs = _image_jobs(options, rows)
    made, problems = _run(_make_image, jobs, ledger, options, progress, "Preprocessing")
    if not made:
        raise UserError(f"{options.data}: not one image can be used ({problems[0][1]})")
    copies, more = _run(
        _make_copy, _copy_jobs(options, made), ledger, options, progress, "Augmenting"
    )
    problems += more
    sheet = _preview(options, made, ledger)
    for gone in ledger.keep_only([job.row.path for job, _ in made + copies] + [sheet]):
        (options.out / gone).unlink(missing_ok=True)
    written = [dataclasses.replace(job.row, **facts) for job, facts in made + copies]
    write_manifest(options.out, written)
    records.write_set_aside(options.out, problems)
    result = _result(options, written, len(problems), fold)
    result = shortcuts.probed(result, options, written, progress)
    files = (options.data / MANIFEST, options.data / FOLDS)
    inputs = records.digest(*(records.file_digest(file) for file in files if file.is_file()))
    seconds = time.monotonic() - started
    records.close_folder(options.out, "preprocess", options, result.facts, inputs, seconds)
    return result


def _refuse_overlap(options: Preprocess) -> None:
    data, out = options.data.resolve(), options.out.resolve()
    if out == data or data in out.parents:
        raise UserError(
            f"{options.out}: lies in the dataset {options.data}", "choose another --out"
        )


def _image_jobs(options: Preprocess, rows: Iterable[Row]) -> list[Job]:
    chosen = {
        name: value
        for name, value in records.plain_options(options).items()
        if name not in INDIFFERENT
    }
    code = _code_digest(__file__, film_frame.__file__, film_parts.__file__, film_steps.__file__)
    jobs = []
    for row in rows:
        source = options.data / row.path
        target = image_path(row.split, row.label, row.image_id)
        key = records.digest(row.path, _identity(source), row.unit, chosen, code)
        row = dataclasses.replace(row, path=target, height=options.size, width=options.size)
        jobs.append(Job(row, source, options.out, key, options))
    return jobs


def _copy_jobs(options: Preprocess, made: Iterable[tuple[Job, Any]]) -> list[Job]:
    if options.augment == "none":
        return []
    recipe = [
        options.augment,
        augmentation.RECIPES[options.augment],
        _code_digest(augmentation.__file__),
    ]
    jobs = []
    for parent, _ in made:
        row = parent.row
        for number in range(1, options.copies * (row.split == "train") + 1):
            name = f"{row.image_id}_aug{number}"
            path = image_path(row.split, row.label, name)
            copy = dataclasses.replace(row, image_id=name, path=path, parent=row.image_id)
            key = records.digest(parent.key, name, options.seed, recipe)
            jobs.append(Job(copy, parent.target, options.out, key, options))
    return jobs


def _identity(path: Path) -> list[Any]:
    """Return what tells that a file has not changed, without reading all of it."""
    try:
        facts = path.stat()
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns]


@functools.cache
def _code_digest(*files: str) -> str:
    """Return a digest of the code that makes the pixels: an older version's are made again."""
    return records.digest(cv2.__version__, [records.file_digest(Path(file)) for file in files])


def _run(
    function: Callable[[Job], dict[str, Any]],
    jobs: Sequence[Job],
    ledger: Ledger,
    options: Preprocess,
    progress: Progress,
    text: str,
) -> tuple[list[tuple[Job, dict[str, Any]]], list[tuple[str, str]]]:
    """Do the jobs that are not yet done; return each with its facts, and what was set aside."""
    facts = {job.row.path: ledger.facts(job.row.path, job.key) for job in jobs}
    todo = [job for job in jobs if facts[job.row.path] is None or not job.target.is_file()]
    for job in todo:
        facts[job.row.path] = None
        if job.target.is_file():  # from now on it may be either the old one or the new one
            ledger.add(job.row.path, "", None)
    workers = max(1, min(worker_count(options.workers), len(todo)))
    problems = []
    with progress.track(text, len(jobs), "images", done=len(jobs) - len(todo)) as advance:
        for job, value in run_all(function, todo, workers):
            if not isinstance(value, UserError):
                ledger.add(job.row.path, job.key, value)
                facts[job.row.path] = value
            elif str(job.target) in value.problem:
                raise value  # it cannot be written: the disk is full, not the image broken
            else:
                problems.append((job.row.image_id, str(value)))
            advance(1)
    made = [(job, known) for job in jobs if (known := facts[job.row.path]) is not None]
    return made, problems


def _make_image(job: Job) -> dict[str, Any]:
    """Write a preprocessed image; return where it lies in its original, as manifest columns."""
    cv2.setNumThreads(1)  # the other cores have their own process
    image = read_image(job.source)
    try:
        result, frame = preprocess_image(image, job.options, job.row.unit)
    except UserError as error:
        raise UserError(f"{job.source}: {error.problem}") from None
    write_png(job.target, result)
    return {
        "crop_x": frame.x,
        "crop_y": frame.y,
        "crop_width": frame.side,
        "crop_height": frame.side,
        "scale": frame.scale,
    }


def _make_copy(job: Job) -> dict[str, Any]:
    """Write an augmented copy, one that differs from its parent where the recipe can."""
    cv2.setNumThreads(1)
    image = film_steps.to_uint8(read_image(job.source))
    augment = augmentation.Augmenter(job.options.augment)
    copy = image
    for turn in range(20):
        if not np.array_equal(copy, image):
            break
        copy = augment(image, augmentation.seed_for(job.options.seed, job.row.image_id, turn))
    write_png(job.target, copy)
    return {}


def _preview(options: Preprocess, made: Sequence[tuple[Job, Any]], ledger: Ledger) -> str:
    """Write a sheet with a few images as rows and the steps as columns; return its name."""
    train = [job for job, _ in made if job.row.split == "train"] or [job for job, _ in made]
    shown = []
    for label in LABELS:
        patients = {job.row.patient_id: job for job in train if job.row.label == label}
        shown += [patients[name] for name in sorted(patients)[:PREVIEWED]]
    key = records.digest([job.key for job in shown])
    target = options.out / PREVIEW
    if ledger.facts(PREVIEW, key) is None or not target.is_file():
        strips = [_strip(job, first=not number) for number, job in enumerate(shown)]
        wide = max(strip.shape[1] for strip in strips)
        write_png(target, np.vstack([_on_paper(strip, right=wide) for strip in strips]))
        ledger.add(PREVIEW, key, {})
    return PREVIEW


def _strip(job: Job, first: bool) -> NDArray[np.uint8]:
    """Return one image's steps side by side, (H, W) uint8, captioned if it is the first."""
    steps, _ = preprocessing_steps(read_image(job.source), job.options, job.row.unit)
    head = (1 + first) * LINE
    panels = []
    for name, image in steps:
        small, _ = film_steps.resize_and_pad(image, PANEL, CENTRE)
        panel = _on_paper(film_steps.to_uint8(small), head, PANEL + GUTTER)
        if first:
            _write(panel, name, 0)
        panels.append(panel)
    strip = np.hstack(panels)
    _write(strip, f"{job.row.image_id}, {job.row.label}", head - LINE)
    return strip


def _on_paper(image: NDArray[np.uint8], top: int = 0, right: int = 0) -> NDArray[np.uint8]:
    """Return the image with `top` rows above it and filled to the width `right`."""
    return np.pad(image, ((top, 0), (0, right - image.shape[1])), constant_values=PAPER)


def _write(image: NDArray[np.uint8], text: str, y: int) -> None:
    place = (2, y + LINE - 6)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1, cv2.LINE_AA)


def _result(options: Preprocess, rows: Sequence[Row], set_aside: int, fold: Fold) -> Result:
    """Return what the stage tells of the rows it has written."""
    lines: list[tuple[Cell, ...]] = []
    for split in SPLITS:
        here = [row for row in rows if row.split == split]
        labels = [row.label for row in here if not row.parent]
        counts = (len(labels), *(labels.count(label) for label in LABELS))
        lines.append((split, *counts, len(here) - len(labels)))
    augmented = sum(bool(row.parent) for row in rows)
    images = len(rows) - augmented
    headline = f"{images} images preprocessed to {options.size} x {options.size} pixels"
    if augmented:
        headline += f", with {augmented} augmented copies"
    columns = ("split", "images", *LABELS, "augmented")
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
        tables=(Table(title, columns, tuple(lines)),),
        set_aside=set_aside,
        next_stage="train",
        next_options={"data": options.out},
    )


if __name__ == "__main__":
    sys.argv.insert(1, "preprocess")
    runpy.run_path(str(Path(__file__).with_name("main.py")), run_name="__main__")
