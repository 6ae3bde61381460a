"""Preprocessing thousands of films: what has to be made again, each made whole or not at all."""

import dataclasses
import functools
import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from images import borders, breast, chain, frame, steps
from images.chain import WorkingImage, finish, prepare
from images.files import read_image, write_png
from images.frame import Frame
from pipeline import records
from pipeline.errors import UserError
from pipeline.manifest import MANIFEST, Row, image_path
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.records import UNFINISHED
from pipeline.resources.places import WORKING
from pipeline.stages.data import Preprocess
from pipeline.work import Ledger, run_all, worker_count

# What neither the pixels of an image nor those of its working image depend on.
IRRELEVANT_OPTIONS = (
    "data", "out", "seed", "workers", "cluster", "augment", "copies", "fold", "preview",
)  # fmt: skip
TAIL_OPTIONS = ("blur", "blur_kernel", "clahe", "clahe_clip", "clahe_tiles", "side")
FEW_IMAGES = 6  # files below which starting processes takes longer than the work
Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One image to write, if it is not already there."""

    row: Row  # what it becomes in the manifest, but for what is learnt while making it
    source: Path  # what it is made from; an absolute path, as is the next, for workers elsewhere
    folder: Path  # the dataset that it goes to
    content: str  # digest of the source's bytes; empty where it has not been read yet
    options: Preprocess  # of the stage
    head: Facts | None = None  # frame and side of a working image that is on disk already

    @property
    def target(self) -> Path:
        """The file to write."""
        return inside(self.folder, self.row.path)

    @property
    def working(self) -> tuple[str, str]:
        """Names of the working image, 16 bits, and of the breast in it, 1 bit."""
        stem = f"{WORKING}/{self.row.image_id}"
        return f"{stem}.png", f"{stem}_breast.png"

    @property
    def note(self) -> str:
        """What the ledger calls the source."""
        return f"source of {self.row.image_id}"

    @property
    def key(self) -> str:
        """Digest of all that the image's pixels depend on."""
        return records.digest(self.head_key, _chosen(self.options, tail=True))

    @property
    def head_key(self) -> str:
        """Digest of all that its working image depends on."""
        chosen = _chosen(self.options, tail=False)
        return records.digest(self.content, self.row.unit, chosen, chain_digest())


@dataclass(frozen=True)
class JobResult:
    """What a finished job returns."""

    job: Job  # with the content that was read
    facts: Facts  # what its row says beside what was planned
    notes: tuple[tuple[str, str, Any], ...] = ()  # what to enter in the ledger: (name, key, facts)


def plan_jobs(
    options: Preprocess, rows: Sequence[Row], ledger: Ledger, progress: Progress
) -> list[Job]:
    """Return how each image is made, with what of it is known from an earlier run.

    A source whose time or size changed is read again only where an earlier result could be spared
    by its being the same after all.
    """
    out = options.out.resolve()
    jobs = []
    for row in rows:
        target = dataclasses.replace(row, path=image_path(row.split, row.label, row.image_id))
        job = Job(target, (options.data / row.path).resolve(), out, "", options)
        content = ledger.facts(job.note, stamp(job.source)) or ""
        jobs.append(dataclasses.replace(job, content=content))
    doubtful = [job for job in jobs if not job.content and ledger.has(job.note)]
    contents = {}
    workers = worker_count(options.workers) if len(doubtful) > FEW_IMAGES else 1
    with progress.track("Comparing images", len(doubtful), "images") as advance:
        for job, content in run_all(_content, doubtful, workers):
            if not isinstance(content, UserError):
                contents[job.row.image_id] = content
                ledger.add(job.note, stamp(job.source), content)
            advance(1)
    return [_with_head(job, contents, ledger) for job in jobs]


def run_jobs(
    function: Callable[[Job], JobResult],
    jobs: Sequence[Job],
    ledger: Ledger,
    progress: Progress,
    text: str,
) -> tuple[list[JobResult], list[tuple[str, str]]]:
    """Do the jobs that are not yet done; return what was made, and what was set aside.

    Raises:
        UserError: An image cannot be written.
    """
    done = {job.row.path: known for job in jobs if (known := _known(job, ledger))}
    todo = [job for job in jobs if job.row.path not in done]
    # Their entries are cleared first: after a kill, a file may be the old or the new one.
    ledger.add_all((job.row.path, "", None) for job in todo if job.target.is_file())
    problems = []
    options = jobs[0].options if jobs else Preprocess()
    workers = max(1, min(worker_count(options.workers), len(todo)))
    shared = (options.data.resolve() / MANIFEST, options.out.resolve() / UNFINISHED)
    with (
        closing(run_all(function, todo, workers, options.cluster, shared, chain_digest)) as results,
        progress.track(text, len(jobs), "images", done=len(done)) as advance,
    ):
        for job, made in results:
            if not isinstance(made, UserError):
                ledger.add_all(made.notes)
                done[job.row.path] = made
            elif str(job.folder) in made.problem.removeprefix(str(job.source)):
                raise made  # it cannot be written: the disk is full, not the image broken
            else:
                problems.append((job.row.image_id, str(made)))
            advance(1)
    return [done[job.row.path] for job in jobs if job.row.path in done], problems


def make_image(job: Job) -> JobResult:
    """Write a preprocessed image, and its working image for another time.

    Raises:
        UserError: The film cannot be read, or shows no breast; or nothing can be written.
    """
    use_one_thread()
    seen = stamp(job.source)  # before reading: a later change must not go unnoticed
    job = dataclasses.replace(job, content=job.content or _content(job))
    prepared, notes = _read_head(job) if job.head else _make_head(job)
    result, frame = finish(prepared, job.options)
    write_png(job.target, result)
    facts = {
        "height": result.shape[0],
        "width": result.shape[1],
        "crop_x": frame.x,
        "crop_y": frame.y,
        "crop_width": frame.width,
        "crop_height": frame.height,
        "scale": frame.scale,
        "mirrored": int(frame.mirrored),
        "turned": frame.turns,
    }
    source = (job.note, seen, job.content)
    return JobResult(job, facts, (source, *notes, (job.row.path, job.key, facts)))


def use_one_thread() -> None:
    """Keep OpenCV to one thread in a worker; the other cores have their own."""
    main = threading.current_thread() is threading.main_thread()  # a cluster works in threads
    if multiprocessing.parent_process() is not None or not main:
        cv2.setNumThreads(1)


def stamp(path: Path) -> str:
    """Return what changes when a file does, without reading it; empty where it is gone."""
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns}"


def code_digest(*files: str | None) -> str:
    """Return a digest of the code that makes the pixels: an older version's are made again."""
    return records.digest(cv2.__version__, [records.file_digest(Path(str(file))) for file in files])


def pixel_options(options: Mapping[str, Any]) -> Facts:
    """Return those options of a preprocessing that decide what one image looks like."""
    return {name: value for name, value in options.items() if name not in IRRELEVANT_OPTIONS}


def _chosen(options: Preprocess, tail: bool) -> Facts:
    found = pixel_options(records.plain_options(options))
    return {name: value for name, value in found.items() if (name in TAIL_OPTIONS) == tail}


@functools.cache
def chain_digest() -> str:
    """Return a digest of the code of the chain of steps."""
    parts = (borders, breast, chain, frame, steps)
    return code_digest(*(part.__file__ for part in parts))


def _content(job: Job) -> str:
    try:
        return records.file_digest(job.source)
    except FileNotFoundError:
        raise UserError(f"{job.source}: no such file") from None
    except OSError as error:
        raise UserError(f"{job.source}: cannot be read ({error.strerror})") from None


def _with_head(job: Job, contents: dict[str, str], ledger: Ledger) -> Job:
    job = dataclasses.replace(job, content=job.content or contents.get(job.row.image_id, ""))
    if not job.content or not job.options.size:
        return job
    there = all((job.folder / name).is_file() for name in job.working)
    head = ledger.facts(job.working[0], job.head_key) if there else None
    return dataclasses.replace(job, head=head)


def _known(job: Job, ledger: Ledger) -> JobResult | None:
    facts = ledger.facts(job.row.path, job.key) if job.content else None
    return JobResult(job, facts) if facts is not None and job.target.is_file() else None


def _make_head(job: Job) -> tuple[WorkingImage, list[tuple[str, str, Any]]]:
    image = read_image(job.source)
    try:
        prepared = prepare(image, job.options, job.row.unit)
    except UserError as error:
        raise UserError(f"{job.source}: {error.problem}") from None
    if not job.options.size:  # at full size it would take as long to read as the film
        return prepared, []
    working, breast = job.working
    write_png(job.folder / working, prepared.image)
    write_png(job.folder / breast, prepared.inside)
    facts = {"frame": dataclasses.asdict(prepared.frame), "side": prepared.side}
    return prepared, [(working, job.head_key, facts)]


def _read_head(job: Job) -> tuple[WorkingImage, list[tuple[str, str, Any]]]:
    facts = job.head or {}
    image, breast = (read_image(job.folder / name) for name in job.working)
    return WorkingImage(image, breast > 0, Frame(**facts["frame"]), facts["side"]), []
