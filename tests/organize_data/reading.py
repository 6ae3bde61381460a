"""What the tests of organising read for themselves, without the code under test."""

import csv
from pathlib import Path

import pydicom
import pytest

from organize_data import organize
from pipeline.manifest import DESCRIPTION
from pipeline.progress import Silent
from pipeline.stages.data import Organize

REAL = Path(__file__).parents[3] / "shared" / "real_cbis_ddsm"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real download is not here")


def run(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def set_aside(out):
    path = out / "set_aside.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def pictures(folder):
    """The images and masks of a dataset, each with the time it was written."""
    return {
        path: path.stat().st_mtime_ns
        for part in ("train", "val", "test", "masks")
        for path in (folder / part).rglob("[!.]*.png")
    }


def contents(folder):
    """All files that make up the dataset, without what tells of the run.

    The description is drawn by programs alone here: see `tests.conftest.without_descriptions`.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.name in ("manifest.csv", "set_aside.csv")
        or (path.suffix == ".png" and path.name != DESCRIPTION)
    }


def case_rows(source, finding):
    """The rows of a finding as a plain CSV reader sees them, with the official split."""
    rows = []
    for split in ("train", "test"):
        (path,) = source.rglob(f"{finding}_case_description_{split}_set.csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows += [
                {name: text.strip() for name, text in line.items()} | {"split": split}
                for line in csv.DictReader(file)
            ]
    return rows


def film_of(line):
    return f"{line['patient_id']}_{line['left or right breast']}_{line['image view']}"


def series_of(line, column):
    return line[column].split("/")[2]


def dicom_of(source, series, bits=16):
    """The one file of a series, or of some series, with that many bits."""
    series = {series} if isinstance(series, str) else series
    ends = tuple(one[-5:] for one in series)  # as folders mostly do: to read fewer headers
    for path in sorted(source.rglob("*.dcm"), key=lambda path: not path.parent.name.endswith(ends)):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.SeriesInstanceUID in series and header.BitsAllocated == bits:
            return path
    raise LookupError(series)
