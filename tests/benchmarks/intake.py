"""How quickly films become PNG: this tool on two processes against the plain way on one.

    python -m tests.benchmarks.intake --films 6 --rounds 3

The plain way is pydicom's pixel_array, a float64 minimum-maximum scaling to 8 bits and Pillow's
PNG at its default. Both start from the same full-size DICOM files, in turns, in one process tree;
worker processes are started and have loaded everything before a clock runs. At the end every
image is decoded again and compared with what should be in it.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from images.dicom import read_header
from images.files import SPREAD
from pipeline.errors import UserError
from sources.cbis_ddsm.files import IMAGE, SourceFile
from sources.synthetic.films import render_film
from sources.synthetic.writing import dicom_bytes, dicom_dataset, header_fields
from sources.writing import Job, make
from tests.benchmarks.films import (
    HEIGHT,
    SEED,
    WORKERS,
    Way,
    command_line,
    image,
    measure,
    nearest_listings,
    render_all,
    report,
)


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


PLAIN = Way("plain", "plain, 8 bits, 1 process", plain)
OURS_8, OURS_16 = (
    Way(
        f"{bits}",
        f"{bits} bits, {WORKERS} processes",
        functools.partial(ours, bits=bits),
        PLAIN.name,
        target,
    )
    for bits, target in ((8, 20), (16, 10))
)
WAYS = (PLAIN, OURS_8, OURS_16)


def check(films, folder):
    """Compare every image, decoded by Pillow, with the pixels that pydicom reads."""
    for film in films:
        expected = pydicom.dcmread(film).pixel_array
        with Image.open(image(film, folder, OURS_16)) as written:
            np.testing.assert_array_equal(np.asarray(written), expected)
        with Image.open(image(film, folder, OURS_8)) as written:
            rounded = (expected.astype(np.uint32) + SPREAD // 2) // SPREAD
            np.testing.assert_array_equal(np.asarray(written), rounded)
        with Image.open(image(film, folder, PLAIN)) as written:
            # It cuts where ours rounds, and stretches what does not begin at 0.
            assert np.abs(np.asarray(written, dtype=int) - rounded).max() <= 3


def main():
    """Draw the films, measure, check and print."""
    parser = command_line(__doc__, films=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = render_all(render, options.films, folder)
        seconds, worker = measure(WAYS, films, folder, options.rounds)
        check(films, folder)
        report(WAYS, films, folder, seconds, worker)


if __name__ == "__main__":
    main()
