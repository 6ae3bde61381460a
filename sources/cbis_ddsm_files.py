"""CBIS-DDSM: which file holds which series, in any layout of folders, and what is a mask."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.work import run_all, worker_count
from sources.dicom import read_header
from sources.images import SUFFIXES, is_dicom

BATCH = 64  # headers read in one job: one alone is too short to be worth sending
FEW = 1000  # files below which starting processes takes longer than reading the headers
UID = re.compile(r"\d+(\.\d+){2,}")  # PS3.5, section 9
TABLES_AND_TEXTS = (".csv", ".txt", ".json", ".xml", ".html", ".pdf", ".lnk", ".tcia", ".zip")
MASK_TOLERANCE = 32  # of 255: how far JPEG moves the black and white of a mask
MASK_GREY = 0.02  # share of pixels between the two that JPEG's ringing may make


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One image file of a download.

    Attributes:
        name: Path relative to the download, with forward slashes.
        series: SeriesInstanceUID: from the header, or for JPEG copies from the folder's name.
        bits: Bits allocated for a sample: 16 in mammograms and crops, 8 in masks and all JPEG.
        size: In bytes.
        changed: Time of the last change in nanoseconds.
    """

    name: str
    series: str
    bits: int
    size: int
    changed: int


@dataclass(frozen=True)
class Index:
    """What a download holds.

    Attributes:
        series: SeriesInstanceUID -> its files, sorted by name.
        unreadable: (relative path, reason) of what should have been an image.
    """

    series: dict[str, tuple[SourceFile, ...]]
    unreadable: tuple[tuple[str, str], ...]

    def candidates(self, series: Iterable[str]) -> tuple[SourceFile, ...]:
        """Return the files of some series, those of 16 bits first: these cannot be masks."""
        files = [file for uid in dict.fromkeys(series) for file in self.series.get(uid, ())]
        return tuple(sorted(files, key=lambda file: file.bits < 16))


def index_files(source: Path, workers: int, progress: Progress) -> Index:
    """Read the header of every image file under a folder, once.

    Files that are no images (tables, licences, links) are passed over.

    Args:
        source: The folder of the download.
        workers: Processes to read with; 0 for one each core where there are enough files for it.
        progress: Where to report.
    """
    files: list[SourceFile] = []
    unreadable: list[tuple[str, str]] = []
    names = sorted(_names(source, unreadable))
    jobs = [(source, names[at : at + BATCH]) for at in range(0, len(names), BATCH)]
    processes = 1 if len(names) < FEW and not workers else worker_count(workers)
    with progress.track("Reading headers", len(names), "files") as advance:
        for (_, batch), found in run_all(_identify_batch, jobs, processes):
            if isinstance(found, UserError):
                raise found
            files += [item for item in found if isinstance(item, SourceFile)]
            unreadable += [item for item in found if isinstance(item, tuple)]
            advance(len(batch))
    series: dict[str, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        series.setdefault(file.series, []).append(file)
    kept = {uid: tuple(members) for uid, members in sorted(series.items())}
    return Index(kept, tuple(sorted(unreadable)))


def is_mask(image: NDArray[np.uint16]) -> bool:
    """Tell whether an image of 8 bits shows a mask: nothing but black and white.

    Args:
        image: (H, W) uint16 in [0, 65535], from a file of 8 bits (values times 257), which JPEG
            may have blurred.
    """
    low, high = MASK_TOLERANCE * 257, (255 - MASK_TOLERANCE) * 257
    grey = np.count_nonzero((image > low) & (image < high))
    return bool(grey < MASK_GREY * image.size)


def _names(source: Path, unreadable: list[tuple[str, str]]) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        name = Path(error.filename).relative_to(source).as_posix()
        unreadable.append((name, f"the folder cannot be read ({error.strerror})"))

    for parent, folders, names in os.walk(source, onerror=refuse):
        # Hidden files and __MACOSX hold what the Mac's archiver adds: "._1-1.dcm" is no image.
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        for name in names:
            if name[0] != "." and not name.lower().endswith(TABLES_AND_TEXTS):
                yield Path(parent, name).relative_to(source).as_posix()


def _identify_batch(
    job: tuple[Path, list[str]],
) -> list[SourceFile | tuple[str, str] | None]:
    source, names = job
    return [_identify(source, name) for name in names]


def _identify(source: Path, name: str) -> SourceFile | tuple[str, str] | None:
    """Return the facts of one file, why it cannot be read, or None where it is no image."""
    path = source / name
    try:
        if path.suffix.lower() in SUFFIXES:
            series, bits = path.parent.name, 8
            if not UID.fullmatch(series):
                return None
        elif is_dicom(path):
            header = read_header(path)
            series, bits = header.series_uid, header.bits_allocated
            if not series:
                return name, "its header has no SeriesInstanceUID"
        else:
            return None
        status = path.stat()
    except UserError as error:
        return name, str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return name, f"cannot be read ({error.strerror})"
    return SourceFile(
        name=name, series=series, bits=bits, size=status.st_size, changed=status.st_mtime_ns
    )
