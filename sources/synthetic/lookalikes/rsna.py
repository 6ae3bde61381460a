"""A look-alike of RSNA Screening Mammography: `train.csv`, and DICOM files with headers as it has.

Two sites with two machines each. The machine decides what a header says of pixels: bits, polarity,
window and compression. Neither site nor machine looks at the diagnosis.
"""

import csv
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from images.lookup import WHITE
from pipeline.errors import UserError
from pipeline.records import write_bytes
from pipeline.stages.collections import Synthesize, film_height
from sources.synthetic.films import render_film
from sources.synthetic.plan import random_for
from sources.synthetic.screening import ScreenedFilm, plan_screening
from sources.synthetic.writing import IMPLEMENTATION, IMPLEMENTATION_UID, dicom_bytes

SHARES = {"normal": 0.85, "benign": 0.1, "malignant": 0.05}  # more than the real 2 %, to be seen
COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy",
           "invasive", "BIRADS", "implant", "density", "machine_id",
           "difficult_negative_case")  # fmt: skip
IMPLANT_SHARE, INVASIVE_SHARE, DIFFICULT_SHARE = 0.03, 0.7, 0.14
NO_CALL_BACK = (1, 2)  # BI-RADS assessments that the table keeps; any higher one is its 0
DENSITIES = " ABCD"
ROOT_UID = "1.2.826.0.1.3680043.10.1472"
CODECS = {JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
          JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the headers of a machine say."""

    number: int
    site: int
    bits: int  # stored
    syntax: UID
    darkest: float  # stored value that is shown black, as a share of all
    brightest: float  # and white
    function: str = ""  # of the window; empty where the header does not say
    inverted: bool = False  # MONOCHROME1

    @property
    def top(self) -> int:
        """The highest stored value."""
        return (1 << self.bits) - 1


MACHINES = (
    Machine(number=49, site=1, bits=12, syntax=JPEG2000Lossless, darkest=0, brightest=1,
            function="LINEAR"),
    Machine(number=29, site=2, bits=14, syntax=JPEGLosslessSV1, darkest=0.1, brightest=0.8,
            inverted=True),
    Machine(number=21, site=1, bits=12, syntax=JPEGLosslessSV1, darkest=0.1, brightest=0.9,
            function="SIGMOID"),
    Machine(number=48, site=2, bits=16, syntax=JPEG2000Lossless, darkest=0, brightest=0.0625),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FilmJob:
    """One film to draw."""

    name: str  # of the file
    patient: int
    image: int
    screened: ScreenedFilm
    machine: Machine
    height: int  # typical height of a film in pixels
    seed: int


def plan(options: Synthesize) -> list[FilmJob]:
    """Return the films: both breasts of each woman, CC and MLO."""
    films = plan_screening(options.seed, options.patients, SHARES)
    random = random_for(options.seed, "rsna")
    women = list(dict.fromkeys(one.film.patient_id for one in films))
    numbers = np.sort(random.choice(60_000, len(women), replace=False)) + 3
    who = {name: int(number) for name, number in zip(women, numbers, strict=True)}
    turns = dict(zip(women, random.permutation(len(women)).tolist(), strict=True))
    images = random.choice(2_000_000_000, len(films), replace=False)
    jobs = []
    for one, image in zip(films, images, strict=True):
        patient = who[one.film.patient_id]
        job = FilmJob(
            name=f"train_images/{patient}/{image}.dcm",
            patient=patient,
            image=int(image),
            screened=one,
            machine=MACHINES[turns[one.film.patient_id] % len(MACHINES)],
            height=film_height(options.size),
            seed=options.seed,
        )
        jobs.append(job)
    return jobs


def write(job: FilmJob, out: Path) -> dict[str, Any]:
    """Draw and write one film."""
    film = render_film(job.screened.film, job.height, job.seed)
    machine = job.machine
    span = (machine.brightest - machine.darkest) * machine.top
    values = np.rint(machine.darkest * machine.top + film.pixels / WHITE * span)
    # No film lies in a scanner: there is nothing beside the breast but letters.
    stored = np.where(film.breast | film.marks, values, 0).astype(np.uint16)
    if machine.inverted:
        stored = (machine.top - stored).astype(np.uint16)
    dataset = _header(job, stored)
    dataset.PixelData = _compressed(stored, machine)
    dataset["PixelData"].is_undefined_length = True
    write_bytes(out / job.name, dicom_bytes(dataset))
    return {}


def tables(
    jobs: Sequence[FilmJob], facts: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the table of the images."""
    del facts
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for job in jobs:
        one, film, site = job.screened, job.screened.film, job.machine.site
        of_woman = random_for(job.seed, film.patient_id, "rsna")
        implant = of_woman.random() < IMPLANT_SHARE
        of_breast = random_for(job.seed, film.patient_id, film.laterality, "rsna")
        invasive, difficult = of_breast.random() < INVASIVE_SHARE, of_breast.random()
        cancer = one.diagnosis == "malignant"
        grade = float(one.assessment if one.assessment in NO_CALL_BACK else 0)
        writer.writerow((
            site, job.patient, job.image, film.laterality[0], film.view, float(one.age),
            int(cancer), int(one.diagnosis != "normal"), int(cancer and invasive),
            grade if site == 1 else "", int(implant),
            DENSITIES[film.density] if site == 1 else "", job.machine.number,
            not cancer and difficult < DIFFICULT_SHARE,
        ))  # fmt: skip
    yield "train.csv", text.getvalue().encode()


def _header(job: FilmJob, stored: NDArray[np.uint16]) -> Dataset:
    """Return the header of a film, which tells neither side nor view."""
    machine = job.machine
    ends = machine.darkest * machine.top, machine.brightest * machine.top
    if machine.inverted:
        ends = machine.top - ends[1], machine.top - ends[0]
    study = f"{ROOT_UID}.{job.patient}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{study}.1.{job.image}")
    dataset.file_meta.TransferSyntaxUID = machine.syntax
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION
    left = job.screened.film.laterality == "LEFT"
    fields = {
        "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "ContentDate": "20221118",
        "ContentTime": "180752.000000",
        "PatientID": str(job.patient),
        "StudyInstanceUID": UID(study),
        "SeriesInstanceUID": UID(f"{study}.1"),
        "InstanceNumber": job.image,
        "PatientOrientation": ["A", "R"] if left else ["P", "L"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if machine.inverted else "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": machine.bits,
        "HighBit": machine.bits - 1,
        "PixelRepresentation": 0,
        "WindowCenter": str(round((ends[0] + ends[1]) / 2)),
        "WindowWidth": str(round(ends[1] - ends[0])),
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "LossyImageCompression": "00",
    }
    if machine.function:
        fields["VOILUTFunction"] = machine.function
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def _compressed(stored: NDArray[np.uint16], machine: Machine) -> bytes:
    """Return pixels as the fragments of a compressed file.

    gdcm compresses from file to file alone, and writes no mammogram whose header is as short as
    the collection's: it gets a secondary capture, and its pixel data is taken over.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{ROOT_UID}.1")
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, UID(f"{ROOT_UID}.1")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.PixelRepresentation = 16, 0
    dataset.BitsStored, dataset.HighBit = machine.bits, machine.bits - 1
    dataset.add_new("PixelData", "OW", stored.astype("<u2").tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        path.write_bytes(dicom_bytes(dataset))
        reader, change, writer = (
            gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        )  # fmt: skip
        reader.SetFileName(str(path))
        done = reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(CODECS[machine.syntax]))
        change.SetInput(reader.GetImage())
        done = done and change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not (done and writer.Write()):
            raise UserError(f"{path}: gdcm cannot compress a film as {machine.syntax.name}")
        fragments: bytes = pydicom.dcmread(path).PixelData
    return fragments
