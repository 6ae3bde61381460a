"""How quickly and how well films are preprocessed.

    python -m tests.benchmarks.preprocess --films 4 --rounds 3 --truth 60

The first table holds this tool, in one pass on two processes, against the plain way: a pass for
each step (border crop, annotation removal, blur, CLAHE, and resize or only 8 bits), each reading
and writing a PNG at full size with OpenCV's defaults, in one process. The steps are the same
functions, so the full-size results are the same to the pixel, which is checked; those of the
working size are not, since there this tool resizes before it blurs. The plain way keeps the breast
mask in memory, while this tool's time includes digest, working image and their files.

The second table says how much of what surely is label, breast or lesion is left or lost, on
synthetic films whose truth is known.
"""

import functools
import operator
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from images import steps
from images.borders import find_border_box
from images.breast import breast_mask
from images.files import read_image, write_png
from images.jobs import Job, make_image
from pipeline.manifest import Row
from pipeline.stages.data import Preprocess
from pipeline.work import run_all
from sources.synthetic.films import render_film
from tests.benchmarks.films import (
    HEIGHT,
    SEED,
    WORKERS,
    Way,
    command_line,
    done,
    image,
    listings,
    measure,
    nearest_listings,
    peak_memory,
    render_all,
    report,
)

WORKING_SIZE = 1024
LARGEST = (7100, 5432)  # height and width of the largest films of the collection
OPTIONS = Preprocess()


@dataclass(frozen=True)
class Truth:
    """What became of one film; each share is one of the pixels that the renderer drew.

    Attributes:
        film_id: Of the film.
        marks_left: Of letters, labels and tape.
        breast_removed: Of the breast inside the crop.
        breast_cut: Of the breast, by the crop.
        lesion_kept: Of the lesion of which the least is left, after all.
    """

    film_id: str
    marks_left: float
    breast_removed: float
    breast_cut: float
    lesion_kept: float


def render(job):
    """Write a film as an organised PNG."""
    pixels = render_film(nearest_listings()[job.number].film, HEIGHT, SEED).pixels
    path = job.folder / f"{job.number}.png"
    write_png(path, pixels)
    return path


def plain(film, out, size):
    """Preprocess a film in five passes."""
    mask = None

    def crop(pixels):
        return find_border_box(pixels).of(pixels)

    def remove(pixels):
        nonlocal mask
        mask = breast_mask(pixels)
        return steps.remove_annotations(pixels, mask)

    def blur(pixels):
        return steps.blur(pixels, OPTIONS.blur_kernel)

    def enhance(pixels):
        return steps.clahe(pixels, mask, OPTIONS.clahe_clip, OPTIONS.clahe_tiles)

    def finish(pixels):
        if size:
            side = steps.chest_wall_side(pixels)
            pixels, _ = steps.resize_and_pad(pixels, size, side)
        return steps.to_uint8(pixels)

    source = film
    for number, step in enumerate((crop, remove, blur, enhance, finish)):
        target = out if step == finish else out.with_name(f"pass-{number}.png")
        cv2.imwrite(str(target), step(cv2.imread(str(source), cv2.IMREAD_UNCHANGED)))
        source = target


def ours(film, out, size):
    """Do what preprocess does with a film."""
    row = Row(image_id=out.stem, patient_id="P_00001", split="train", label="benign", path=out.name)
    make_image(Job(row, film, out.parent, "", Preprocess(size=size)))


PLAIN_FULL, PLAIN_SMALL = (
    Way(f"plain-{size}", f"plain, {text}, 1 process", functools.partial(plain, size=size))
    for size, text in ((0, "full size"), (WORKING_SIZE, f"{WORKING_SIZE}"))
)
OURS_FULL, OURS_SMALL = (
    Way(
        f"ours-{size}",
        f"{text}, {WORKERS} processes",
        functools.partial(ours, size=size),
        against.name,
        target,
    )
    for size, text, against, target in (
        (0, "full size", PLAIN_FULL, 5),
        (WORKING_SIZE, f"{WORKING_SIZE}", PLAIN_SMALL, 20),
    )
)
WAYS = (PLAIN_FULL, OURS_FULL, PLAIN_SMALL, OURS_SMALL)


def check(films, folder):
    """Compare the full-size images of either way, pixel by pixel; and the others' size."""
    for film in films:
        expected, found = (
            cv2.imread(str(image(film, folder, way)), cv2.IMREAD_UNCHANGED)
            for way in (PLAIN_FULL, OURS_FULL)
        )
        np.testing.assert_array_equal(found, expected)
        for way in (PLAIN_SMALL, OURS_SMALL):
            assert read_image(image(film, folder, way)).shape == (WORKING_SIZE, WORKING_SIZE)


def report_largest(film, folder):
    """Print the peak memory of a process that does one of the largest films."""
    largest = folder / "largest.png"
    write_png(largest, cv2.resize(read_image(film), LARGEST[::-1]))
    print(f"\n{'a film of {} x {} pixels'.format(*LARGEST):<36}{'peak MB':>10}")
    for way in (OURS_FULL, OURS_SMALL):
        job = (way, largest, folder)
        # Of two new processes that one that does it.
        peak = max(done(result) for result in run_all(memory_of, [job], WORKERS))
        print(f"{way.text.partition(',')[0]:<36}{peak:>10.0f}")


def memory_of(job):
    """Return the peak memory of this process after one film, in MB."""
    way, film, folder = job
    way.function(film, image(film, folder, way))
    return peak_memory()


def truth(number):
    """Compare with the truth what crop and annotation removal leave of a film."""
    plan = listings()[number].film
    film = render_film(plan, HEIGHT, SEED)
    box = find_border_box(film.pixels)
    kept = np.zeros(film.pixels.shape, bool)
    box.of(kept)[:] = True
    cut = share(film.breast, ~kept)
    breast = box.of(film.breast)
    mask = breast_mask(box.of(film.pixels))
    box.of(kept)[:] = mask
    return Truth(
        film_id=plan.film_id,
        marks_left=share(film.marks, kept),
        breast_removed=share(breast, ~mask),
        breast_cut=cut,
        lesion_kept=min((share(one, kept) for one in film.lesions if one.any()), default=1.0),
    )


def share(part, mask):
    """Return the share of a part, (H, W) of 0 and 1, that lies in a mask; 0 where there is none."""
    return float((part[mask] > 0).sum() / max(1, (part > 0).sum()))


def report_truth(count):
    """Print the second table."""
    found = [done(result) for result in run_all(truth, range(count), WORKERS)]
    print(f"\n{f'of {len(found)} synthetic films, %':<36}{'mean':>10}{'worst':>10}  in")
    for name, worst in (
        ("marks_left", max),
        ("breast_removed", max),
        ("breast_cut", max),
        ("lesion_kept", min),
    ):
        text, value = name.replace("_", " "), operator.attrgetter(name)
        extreme = worst(found, key=value)
        mean = statistics.mean(value(one) for one in found)
        print(f"{text:<36}{100 * mean:>10.4f}{100 * value(extreme):>10.4f}  {extreme.film_id}")


def main():
    """Draw the films, measure, check and print."""
    parser = command_line(__doc__, films=4)
    parser.add_argument(
        "--truth", type=int, default=60, help="films to compare with their truth (default: 60)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.films:
            films = render_all(render, options.films, folder)
            seconds, worker = measure(WAYS, films, folder, options.rounds)
            check(films, folder)
            report(WAYS, films, folder, seconds, worker)
            report_largest(films[0], folder)
    if options.truth:
        report_truth(min(options.truth, len(listings())))


if __name__ == "__main__":
    main()
