"""How quickly films become PNG: this tool on two processes against the plain way on one.

    python -m tests.benchmarks.bench_intake --films 6 --rounds 3

The plain way is pydicom's pixel_array, a float64 minimum-maximum scaling to 8 bits and Pillow's
PNG at its default. Both start from the same full-size DICOM files, in turns, in one process tree;
worker processes are started and have loaded everything before a clock runs. At the end every
image is decoded again and compared with what should be in it.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image

from pipeline.errors import UserError
from pipeline.work import run_all
from sources.cbis_ddsm_files import IMAGE, SourceFile
from sources.cbis_ddsm_images import Job, make
from sources.dicom import read_header
from sources.images import SPREAD
from sources.synthetic_files import plan_files
from sources.synthetic_films import render_film
from sources.synthetic_marks import plan_frame
from sources.synthetic_plan import plan_collection, random_for
from sources.synthetic_writing import dicom_bytes, dicom_dataset, header_fields

WORKERS = 2
SEED, HEIGHT, PIXELS = 3, 5000, 14_800_000
PATIENTS = 60  # planned, to choose the films nearest to that size from
TARGETS = {8: 20, 16: 10}


@dataclass(frozen=True)
class Render:
    """A film to draw and write as DICOM; the number is its place in the order of sizes."""

    number: int
    folder: Path


@dataclass(frozen=True)
class Gate:
    """A place where every worker waits for the others and for the parent's word to go on."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Convert:
    """A film to convert in the way that is measured; the bits are those of the PNG."""

    film: Path
    out: Path
    bits: int


@dataclass(frozen=True)
class Span:
    """When a worker converted one film, by the system's clock, and its peak memory yet in MB."""

    start: float
    end: float
    peak: float


def nearest_listings():
    """Return the listings of the planned films, those of about the wanted size first."""

    def distance(listing):
        frame = plan_frame(
            random_for(SEED, listing.film.film_id, "frame"), HEIGHT, listing.film.laterality
        )
        return abs(frame.height * frame.width - PIXELS)

    listings = plan_files(SEED, plan_collection(SEED, PATIENTS))
    return sorted({one.film.film_id: one for one in listings}.values(), key=distance)


def render(job):
    """Write a film as the synthetic collection does."""
    listing = nearest_listings()[job.number]
    pixels = render_film(listing.film, HEIGHT, SEED).pixels
    facts = {
        "rows": pixels.shape[0], "columns": pixels.shape[1],
        "smallest": int(pixels.min()), "largest": int(pixels.max()),
    }  # fmt: skip
    fields = header_fields(listing.mammogram, listing.film, facts)
    content = dicom_bytes(dicom_dataset(fields, listing.mammogram, pixels))
    path = job.folder / f"{job.number}.dcm"
    path.write_bytes(content)
    return path


def plain(film, out):
    """Convert a film in the plain way, to 8 bits."""
    pixels = pydicom.dcmread(film).pixel_array.astype(np.float64)
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    Image.fromarray(scaled.astype(np.uint8)).save(out)


def ours(film, out, bits):
    """Do what organize does with a film: image of 8 or 16 bits, digest, thumbnail, ledger."""
    header = read_header(film)
    source = SourceFile(
        name=film.name, series=header.series_uid, sop=header.sop_uid, role=IMAGE,
        rows=header.rows, columns=header.columns, description="", laterality="", view="",
        size=film.stat().st_size, changed=0,
    )  # fmt: skip
    job = Job(name=out.name, out=out.parent, source=film.parent, candidates=(source,), depth=bits)
    if "taken" not in make(job):
        raise UserError(f"{film}: was not written")


def work(job):
    """Do what a worker is told: wait at a gate or convert a film."""
    cv2.setNumThreads(1)
    if isinstance(job, Gate):
        (job.folder / f"{job.name}-{os.getpid()}").touch()
        while len(list(job.folder.glob(f"{job.name}-*"))) < WORKERS + 1:
            time.sleep(0.005)
        return None
    start = time.perf_counter()
    ours(job.film, job.out, job.bits)
    return Span(start, time.perf_counter(), peak_memory())


def peak_memory():
    """Return the largest memory that this process has held, in MB (on Linux it counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(films, folder, rounds):
    """Convert every film in each way in each round.

    Returns:
        Seconds a film of the plain way, of 8 and of 16 bits, by round; and the peak memory of a
        worker in MB.
    """
    phases = [(turn, bits) for turn in range(-1, rounds) for bits in TARGETS]  # -1: to warm up
    seconds = {name: [] for name in ("plain", *TARGETS)}

    def jobs():
        for turn, bits in phases:
            yield from [Gate(f"{turn}-{bits}", folder)] * WORKERS
            for film in films:
                yield Convert(film, folder / f"{film.stem}-{bits}.png", bits)

    peak = 0.0
    results = run_all(work, jobs(), WORKERS)
    for turn, bits in phases:
        if turn >= 0 and bits == 8:
            seconds["plain"].append(time_plain(films, folder))
        (folder / f"{turn}-{bits}-go").touch()
        spans = []
        while len(spans) < len(films):
            _, found = next(results)
            if isinstance(found, UserError):
                raise found
            spans += [found] if found else []
        if turn >= 0:
            elapsed = max(span.end for span in spans) - min(span.start for span in spans)
            seconds[bits].append(elapsed / len(films))
        peak = max(peak, *(span.peak for span in spans))
    results.close()
    return seconds, peak


def time_plain(films, folder):
    """Return the seconds a film of the plain way."""
    start = time.perf_counter()
    for film in films:
        plain(film, folder / f"{film.stem}-plain.png")
    return (time.perf_counter() - start) / len(films)


def check(films, folder):
    """Compare every image, decoded by Pillow, with the pixels that pydicom reads."""
    for film in films:
        expected = pydicom.dcmread(film).pixel_array
        with Image.open(folder / f"{film.stem}-16.png") as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
        with Image.open(folder / f"{film.stem}-8.png") as image:
            rounded = (expected.astype(np.uint32) + SPREAD // 2) // SPREAD
            np.testing.assert_array_equal(np.asarray(image), rounded)
        with Image.open(folder / f"{film.stem}-plain.png") as image:
            # It cuts where ours rounds, and stretches what does not begin at 0.
            assert np.abs(np.asarray(image, dtype=int) - rounded).max() <= 3


def megabytes(films, folder, name):
    """Return the mean size of the images of one way in MB."""
    sizes = [(folder / f"{film.stem}-{name}.png").stat().st_size for film in films]
    return statistics.mean(sizes) / 1e6


def report(films, folder, seconds, peaks):
    """Print the table."""
    print(f"{'way':<28}{'s a film':>10}{'ratio':>8}{'target':>8}{'MB':>8}{'peak MB':>9}")
    ways = {
        "plain": "plain, 8 bits, 1 process",
        8: f"8 bits, {WORKERS} processes",
        16: f"16 bits, {WORKERS} processes",
    }
    for name, text in ways.items():
        pairs = zip(seconds["plain"], seconds[name], strict=True)
        ratio = statistics.median(first / second for first, second in pairs)
        target = f"x{TARGETS[name]}" if name in TARGETS else ""
        size, peak = megabytes(films, folder, name), peaks["plain" if name == "plain" else "ours"]
        print(
            f"{text:<28}{statistics.median(seconds[name]):>10.3f}{'x' + format(ratio, '.1f'):>8}"
            f"{target:>8}{size:>8.1f}{peak:>9.0f}"
        )


def main():
    """Draw the films, measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=6, help="films (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [Render(number, folder) for number in range(options.films)]
        films = sorted(path for _, path in run_all(render, jobs, WORKERS))
        seconds, worker = measure(films, folder, options.rounds)
        peaks = {"plain": peak_memory(), "ours": worker}
        check(films, folder)
        report(films, folder, seconds, peaks)


if __name__ == "__main__":
    main()
