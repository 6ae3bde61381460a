"""Writes the images and masks of a dataset, each noted when it is whole; for every collection."""

import contextlib
import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD, range_note, write_png
from images.thumbnails import thumbnail
from pipeline.errors import UserError
from pipeline.manifest import THUMBNAILS
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.records import digest
from pipeline.work import LEDGER, Ledger, note, run_all, worker_count

PIXELS = "grey values as PS3.3 C.11 defines them"  # a change of it makes every image anew
PLANNED = "planned"  # the ledger's key of an image that was begun
MASKS = "masks"
SMALL = 200_000_000  # bytes below which starting processes takes longer than the work
SAMPLED = 5  # files whose size stands for that of the others
SAME_ASPECT = 0.01  # how far two aspect ratios may differ and be called the same
MASK_IN_PLACE = "holds nothing but a mask"
GREY_IN_PLACE = "is no mask: it is not black and white"
Facts = Mapping[str, Any]


class Candidate(Protocol):
    """A file of a download, or a part of one, that may hold what is to be written."""

    @property
    def name(self) -> str:
        """Its path relative to the download, with forward slashes; of a part, with its number."""

    @property
    def source_id(self) -> str:
        """What the collection calls it: for DICOM files the SeriesInstanceUID."""

    @property
    def size(self) -> int:
        """Bytes that are read for it."""

    @property
    def pixels(self) -> int:
        """How many pixels it has; 0 where that is not known before it is read."""

    @property
    def defect(self) -> str:
        """Why its pixels cannot be read, as far as the header tells."""

    def facts(self) -> Mapping[str, Any]:
        """Return what tells it from any other content, as JSON can hold it."""

    def read(self, source: Path, wants_mask: bool) -> NDArray[np.uint16]:
        """Return its (H, W) uint16 pixels in [0, 65535].

        Raises:
            UserError: It cannot be read, or shows a mask where an image is wanted, or the other
                way round.
        """


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to write."""

    name: str  # of the file, relative to the dataset
    out: Path  # the dataset
    source: Path  # the folder of the download
    candidates: tuple[Candidate, ...]  # files that may hold it; the first that does is taken
    depth: int  # bits of a grey value: 8 or 16; 1 for a mask
    shape: tuple[int, int] | None = None  # of a mask's mammogram, height and width in pixels

    @property
    def key(self) -> str:
        """Digest of what the file is made from."""
        return digest(PIXELS, self.depth, self.shape, [file.facts() for file in self.candidates])

    @property
    def names(self) -> tuple[str, ...]:
        """What it may write, relative to the dataset, without thumbnails; its own name first."""
        return (self.name,)

    @property
    def images(self) -> int:
        """How many images it writes at most."""
        return 1

    def pixels_written(self, pixels: int) -> int:
        """Return how many pixels it writes of an image that has so many."""
        return pixels

    def is_there(self, facts: Facts) -> bool:
        """Return whether the files that it wrote are there, as far as `facts` tells of them."""
        del facts
        return all(path.is_file() for path in self.files())

    def files(self) -> list[Path]:
        """Return what it writes."""
        target = inside(self.out, self.name)
        return [target] if self.depth == 1 else [target, thumbnail_path(self.out, self.name)]

    def write(self, image: NDArray[np.uint16]) -> dict[str, Any]:
        """Write what it is for, from (H, W) grey values; return what was learnt of it."""
        if self.depth == 1:
            return _write_mask(self, image)
        return write_image(self.out, self.name, self.depth, image)


def thumbnail_path(out: Path, name: str) -> Path:
    """Return where a small copy of an image of a dataset lies, for contact sheets."""
    return out / THUMBNAILS / Path(name).name


def make(job: Job) -> Facts:
    """Write the files of a job from the first candidate that holds them, and note it.

    Returns:
        taken (index of the candidate), and what was learnt of it; without taken where none would
        do. skipped: [index, reason] of each candidate that had to be passed over.

    Raises:
        UserError: The file cannot be written (a bad candidate is no reason to stop).
    """
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)  # one for each worker process; the parent's are its own
    image, found = read_first(job)
    if image is None:
        for stale in job.files():
            stale.unlink(missing_ok=True)  # of an earlier run, when the file was still whole
        return found
    facts = job.write(image) | found
    # Noted here and not by the parent: what a killed run has written is not written again.
    note(job.out / LEDGER, [(job.name, job.key, facts)])
    return facts


def read_first(job: Job) -> tuple[NDArray[np.uint16] | None, dict[str, Any]]:
    """Read the first candidate of a job that holds what is to be written.

    Returns:
        Its pixels, None where none would do; and taken and skipped as `make` returns them.
    """
    skipped: list[tuple[int, str]] = []
    for index, file in enumerate(job.candidates):
        try:
            if file.defect:
                raise UserError(file.defect)
            image = file.read(job.source, job.depth == 1)
        except UserError as error:
            path = job.source / file.name
            skipped.append((index, str(error).removeprefix(f"{path}: ")))
            continue
        return image, {"taken": index, "skipped": skipped}
    return None, {"skipped": skipped}


def write_image(out: Path, name: str, depth: int, image: NDArray[np.uint16]) -> dict[str, Any]:
    """Write an image of a dataset, and its thumbnail.

    Args:
        out: The dataset.
        name: Of the file, relative to it.
        depth: Bits of a grey value in the file, 8 or 16.
        image: (H, W) uint16 in [0, 65535].

    Returns:
        height and width in pixels; pixels, a digest of them; note, what is odd about its range.
    """
    shown = image if depth == 16 else cv2.convertScaleAbs(image, alpha=1 / SPREAD)
    write_png(out / name, shown)
    write_png(thumbnail_path(out, name), thumbnail(image))
    height, width = image.shape
    pixels = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:32]
    return {
        "height": height,
        "width": width,
        "pixels": f"{height}x{width} {pixels}",
        "note": range_note(image),
    }


def _write_mask(job: Job, image: NDArray[np.uint16]) -> dict[str, Any]:
    """Fit a mask to its mammogram: those of another size show the whole film all the same."""
    rows, columns = image.shape
    white = fitted_mask(image, job.shape or image.shape)
    write_png(job.out / job.name, white)
    return {"rows": rows, "columns": columns, "area": int(np.count_nonzero(white))}


def fitted_mask(image: NDArray[np.uint16], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask, (H, W) uint16 in [0, 65535], as (height, width) = shape bool."""
    white = image > np.iinfo(np.uint16).max // 2
    if white.shape != shape:
        ones = white.view(np.uint8)  # both views cost no memory
        fitted = cv2.resize(ones, shape[::-1], interpolation=cv2.INTER_NEAREST)
        white = fitted.astype(np.uint8, copy=False).view(np.bool_)
    return white


def fit_of(rows: int, columns: int, height: int, width: int) -> str:
    """Say how a mask of some size was fitted to a mammogram of height x width."""
    if (rows, columns) == (height, width):
        return "same size"
    stretch = (height / rows) / (width / columns)
    return "scaled" if abs(stretch - 1) <= SAME_ASPECT else "stretched"


class Writer:
    """Writes the files of a dataset, those alone that are not there yet.

    Every name enters the ledger before its file is written, so that no kill leaves a file that
    nobody knows of.
    """

    def __init__(self, out: Path) -> None:
        """Take up what an earlier run left in `out`."""
        self._out = out
        self._ledger = Ledger(out)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove what earlier runs made and this one does not want."""
        for stale in self._ledger.keep_only(names):
            for name in (stale, f"{THUMBNAILS}/{Path(stale).name}"):
                path = inside(self._out, name)
                path.unlink(missing_ok=True)
                self._remove_empty(path.parent)
        self._ledger.rewrite()

    def left(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that are still to be done."""
        found = ((job, self._known(job)) for job in jobs)
        return [job for job, facts in found if not (facts and job.is_there(facts))]

    def write(
        self, jobs: Sequence[Job], workers: int, text: str, unit: str, progress: Progress
    ) -> dict[str, Facts]:
        """Do what is left of the jobs; return what is known of each, by its name."""
        left = self.left(jobs)
        todo = {job.name for job in left}
        made = {job.name: self._known(job) for job in jobs if job.name not in todo}
        self._ledger.add_all((name, PLANNED, None) for job in left for name in job.names)
        size = sum(job.candidates[0].size for job in left)
        processes = 1 if size < SMALL and not workers else worker_count(workers)
        with (
            contextlib.closing(run_all(make, left, processes)) as results,
            progress.track(text, len(jobs), unit, done=len(made)) as advance,
        ):
            for job, facts in results:
                if isinstance(facts, UserError):
                    raise facts
                made[job.name] = facts
                if "taken" in facts:
                    self._ledger.learn(job.name, job.key, facts)
                advance(1)
        return made

    def _known(self, job: Job) -> Any:
        return self._ledger.facts(job.name, job.key)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._out and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def pixels_of(jobs: Sequence[Job]) -> list[int]:
    """Return how many pixels each image has; of what only its file tells, those of a few files."""
    sizes = [job.candidates[0].pixels for job in jobs]
    unknown = [number for number, size in enumerate(sizes) if not size]
    looked_at = []
    for number in unknown[:: max(1, len(unknown) // SAMPLED)][:SAMPLED]:
        with contextlib.suppress(UserError):
            looked_at.append(jobs[number].candidates[0].read(jobs[number].source, False).size)
    usual = sum(looked_at) // max(1, len(looked_at))
    return [size or usual for size in sizes]


def skipped_files(job: Job, facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield (name, reason) of the files that would not do, but for those of another role.

    Damaged ones after the one that was taken are listed as well.
    """
    reasons = {index: file.defect for index, file in enumerate(job.candidates) if file.defect}
    for index, reason in sorted((reasons | dict(facts["skipped"])).items()):
        if reason not in (MASK_IN_PLACE, GREY_IN_PLACE):
            yield job.candidates[index].name, reason
