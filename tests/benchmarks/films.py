"""Full-size films to measure with, and ways of working on them, measured in turns in one run."""

import argparse
import functools
import itertools
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from pipeline.errors import UserError
from pipeline.work import run_all
from sources.synthetic.files import plan_files
from sources.synthetic.marks import plan_frame
from sources.synthetic.plan import plan_collection, random_for

WORKERS = 2
SEED, HEIGHT, PIXELS = 3, 5000, 14_800_000
PATIENTS = 60  # planned, to choose the films nearest to that size from


@dataclass(frozen=True)
class Way:
    """A way of making an image of a film.

    Attributes:
        name: Its images are called FILM-NAME.png.
        text: What the table calls it.
        function: Takes the film's path and the image's.
        against: The plain way to hold it against; empty for such a way itself, which runs in one
            process, the parent's, while the others run in WORKERS.
        target: How many times as fast it should be.
    """

    name: str
    text: str
    function: Callable[[Path, Path], object]
    against: str = ""
    target: int = 1


@dataclass(frozen=True)
class Render:
    """A film to draw and write; the number is its place in the order of sizes."""

    number: int
    folder: Path


@dataclass(frozen=True)
class Gate:
    """A place where every worker waits for the others and for the parent's word to go on."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Task:
    """A film for a worker to work on in the way that is measured."""

    function: Callable[[Path, Path], object]
    film: Path
    out: Path


@dataclass(frozen=True)
class Span:
    """When a worker worked on one film, by the system's clock, and its peak memory yet in MB."""

    start: float
    end: float
    peak: float


@functools.cache
def listings():
    """Return the listings of the planned films, one for each."""
    planned = plan_files(SEED, plan_collection(SEED, PATIENTS))
    return list({one.film.film_id: one for one in planned}.values())


def nearest_listings():
    """Return the listings of the planned films, those of about the wanted size first."""

    def distance(listing):
        frame = plan_frame(
            random_for(SEED, listing.film.film_id, "frame"), HEIGHT, listing.film.laterality
        )
        return abs(frame.height * frame.width - PIXELS)

    return sorted(listings(), key=distance)


def render_all(render, count, folder):
    """Let workers draw and write so many films of about the wanted size; return their paths."""
    jobs = [Render(number, folder) for number in range(count)]
    return sorted(done(result) for result in run_all(render, jobs, WORKERS))


def peak_memory():
    """Return the largest memory that this process has held, in MB (on Linux it counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def command_line(doc, films):
    """Return the parser of a benchmark's flags."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--films", type=int, default=films, help=f"films (default: {films})")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    return parser


def work(job):
    """Do what a worker is told: wait at a gate or work on a film."""
    cv2.setNumThreads(1)
    if isinstance(job, Gate):
        (job.folder / f"{job.name}-{os.getpid()}").touch()
        while len(list(job.folder.glob(f"{job.name}-*"))) < WORKERS + 1:
            time.sleep(0.005)
        return None
    start = time.perf_counter()
    job.function(job.film, job.out)
    return Span(start, time.perf_counter(), peak_memory())


def measure(ways, films, folder, rounds):
    """Let every way work on every film in each round, after a first one that is not counted.

    Returns:
        Seconds a film by way and round; and the peak memory of a worker in MB.
    """
    plain = [way for way in ways if not way.against]
    shared = [way for way in ways if way.against]
    turns = range(-1, rounds)
    seconds = {way.name: [] for way in ways}

    def jobs():
        for turn, way in itertools.product(turns, shared):
            yield from [Gate(f"{turn}-{way.name}", folder)] * WORKERS
            yield from (Task(way.function, film, image(film, folder, way)) for film in films)

    peak = 0.0
    results = run_all(work, jobs(), WORKERS)
    for turn in turns:
        for way in plain * (turn >= 0):
            seconds[way.name].append(time_plain(way, films, folder))
        for way in shared:
            (folder / f"{turn}-{way.name}-go").touch()
            spans = [done(next(results)) for _ in range(WORKERS + len(films))]
            spans = [span for span in spans if span]
            peak = max(peak, *(span.peak for span in spans))
            if turn >= 0:
                elapsed = max(span.end for span in spans) - min(span.start for span in spans)
                seconds[way.name].append(elapsed / len(films))
    results.close()
    return seconds, peak


def done(result):
    """Return what `run_all` yields for a job that must not fail."""
    _, found = result
    if isinstance(found, UserError):
        raise found
    return found


def time_plain(way, films, folder):
    """Return the seconds a film of a plain way."""
    start = time.perf_counter()
    for film in films:
        way.function(film, image(film, folder, way))
    return (time.perf_counter() - start) / len(films)


def image(film, folder, way):
    """Return where the image of a film goes that a way makes."""
    return folder / f"{film.stem}-{way.name}.png"


def report(ways, films, folder, seconds, peak):
    """Print a line for each way."""
    print(f"{'way':<36}{'s a film':>10}{'ratio':>8}{'target':>8}{'MB':>8}{'peak MB':>9}")
    for way in ways:
        took, than = seconds[way.name], seconds[way.against or way.name]
        ratio = statistics.median(one / own for one, own in zip(than, took, strict=True))
        size = statistics.mean(image(film, folder, way).stat().st_size for film in films) / 1e6
        print(
            f"{way.text:<36}{statistics.median(took):>10.3f}{f'x{ratio:.1f}':>8}"
            f"{f'x{way.target}' if way.against else '':>8}{size:>8.1f}"
            f"{peak if way.against else peak_memory():>9.0f}"
        )
