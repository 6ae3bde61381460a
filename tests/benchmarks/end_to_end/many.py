"""A collection of many small films, made quickly: a few drawn ones again under other names.

Drawing is what takes long, so a small collection is drawn once. Each copy of it has patients, UIDs
and grain of its own, so that no two films are the same to the tool, and the tables list them all.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.work import run_all
from tests.benchmarks.films import WORKERS, done

SPACING = 500  # patient numbers for each copy; their names have five digits
MOST_COPIES = 99_999 // SPACING
PATIENT = re.compile(rb"P_(\d{5})")
UID = re.compile(rb"2\.25\.(\d)\d{4}(\d{16,})")  # free ones, which are hashes: any digit may go
FILM = re.compile(rb"P_\d{5}_[A-Z]+_[A-Z]+")
PIXELS = b"\xe0\x7f\x10\x00"  # tag (7FE0,0010), little endian; four bytes of length follow
SIXTEEN_BITS = b"\x28\x00\x00\x01\x02\x00\x00\x00\x10"  # (0028,0100) with its value
DARKEST = 0.9  # grain takes at most a tenth, and nothing where the film is black


@dataclass(frozen=True)
class Copy:
    """A DICOM file to write again; copy 0 has other UIDs than its source, too."""

    source: Path  # folder of the drawn collection
    name: str  # of the file, below it
    out: Path  # folder of the large collection
    number: int


def rename(content, number):
    """Return text or a header with the patients and UIDs of a copy, its length unchanged."""
    content = PATIENT.sub(lambda found: b"P_%05d" % (int(found[1]) + SPACING * number), content)
    return UID.sub(lambda found: b"2.25.%b%04d%b" % (found[1], number, found[2]), content)


def write_copy(job):
    """Write a file again; a film listed for both findings gets the same grain in both."""
    content = (job.source / job.name).read_bytes()
    at = content.index(PIXELS) + len(PIXELS) + 4
    header, pixels = rename(content[:at], job.number), content[at:]
    if SIXTEEN_BITS in header:  # the others are masks
        grey = np.frombuffer(pixels, "<u2")
        film = FILM.search(header)[0]
        grain = np.random.default_rng(zlib.crc32(film)).uniform(DARKEST, 1, len(grey))
        pixels = (grey * grain).astype("<u2").tobytes()
    target = job.out / rename(job.name.encode(), job.number).decode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(header + pixels)


def multiply(source, out, copies):
    """Write so many copies of a collection as one collection."""
    if copies > MOST_COPIES:
        raise SystemExit(f"{copies} copies: no more than {MOST_COPIES} can be named")
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.dcm"))
    jobs = (Copy(source, name, out, number) for number in range(copies) for name in names)
    for result in run_all(write_copy, jobs, WORKERS):
        done(result)
    for table in sorted(source.glob("*.csv")):
        head, _, rows = table.read_bytes().partition(b"\n")
        parts = [head + b"\n", *(rename(rows, number) for number in range(copies))]
        (out / table.name).write_bytes(b"".join(parts))
