"""What is in the files of the synthetic collection: DICOM header for header, or JPEG.

Headers follow the real collection field by field: Implicit VR Little Endian, Secondary Capture,
no window, spacing or view position, and a PatientID that is unique for each image.
"""

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from pipeline.errors import UserError
from pipeline.records import atomic
from sources.synthetic_files import COLLECTION, CROP, MASK, PlannedFile, file_path
from sources.synthetic_films import Film, render_film
from sources.synthetic_plan import CALC, MASS, FilmPlan

IMPLEMENTATION_UID = UID("2.25.196312783915276402389461254871930455716")
IMPLEMENTATION = "MAMMOLAB-0.1"
PRIVATE_CODES = {  # of the archive's software, one for each case description
    (MASS, "train"): b"43352602", (MASS, "test"): b"43372602",
    (CALC, "train"): b"43342602", (CALC, "test"): b"43362602",
}  # fmt: skip
CROP_MARGIN = 0.35  # around a lesion's outline, as a share of its extent
JPEG_QUALITY = 95
Image = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FilmJob:
    """All files of one film, for a worker process.

    Attributes:
        film: What it shows.
        files: What is to be written; those of a twin stand under both findings.
        out: Folder of the collection.
        layout: One of the layouts of the collection.
        height: Typical height of a film in pixels.
        seed: Of the collection.
    """

    film: FilmPlan
    files: tuple[PlannedFile, ...]
    out: Path
    layout: str
    height: int
    seed: int


def write_film(job: FilmJob) -> dict[str, dict[str, int]]:
    """Render a film and write its files.

    Returns:
        For each path: bytes, rows, columns, smallest and largest pixel value.

    Raises:
        UserError: A file cannot be written.
    """
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)  # one thread for each worker process; the parent's are its own
    film = render_film(job.film, job.height, job.seed)
    facts: dict[str, dict[str, int]] = {}
    for file in job.files:
        image = file_image(film, file)
        path = file_path(file, job.layout)
        facts[path] = {
            "rows": image.shape[0], "columns": image.shape[1],
            "smallest": int(image.min()), "largest": int(image.max()),
        }  # fmt: skip
        try:
            with atomic(job.out / path) as temporary:
                if job.layout == "kaggle":
                    temporary.write_bytes(encode_jpeg(image))
                else:
                    fields = header_fields(file, job.film, facts[path])
                    dicom_dataset(fields, file, image).save_as(temporary, enforce_file_format=True)
                facts[path]["bytes"] = temporary.stat().st_size
        except OSError as error:
            raise UserError(f"{job.out / path}: cannot be written ({error.strerror})") from None
    return facts


def file_image(film: Film, file: PlannedFile) -> Image:
    """Return the pixels of one file of a film: (H, W) uint16, for a mask uint8 of 0 and 255."""
    if file.lesion is None:
        return film.pixels
    mask = film.lesions[file.lesion]
    if file.kind == CROP:
        return film.pixels[crop_box(mask, film.clear)]
    down, across = file.mask_stretch
    if file.mask_stretch != (1.0, 1.0):
        size = round(across * mask.shape[1]), round(down * mask.shape[0])
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return mask * np.uint8(255)


def crop_box(mask: npt.NDArray[np.uint8], clear: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return where a lesion's crop lies: its outline and a margin, without the scanner's border."""
    slices = []
    for axis, limits in enumerate(clear):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        margin = max(4, round(CROP_MARGIN * (found[-1] - found[0])))
        low = max(int(found[0]) - margin, limits.start)
        slices.append(slice(low, min(int(found[-1]) + margin + 1, limits.stop)))
    return slices[0], slices[1]


def encode_jpeg(image: Image) -> bytes:
    """Return an image as an 8-bit JPEG, as the Kaggle copy holds it."""
    shallow = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    _, data = cv2.imencode(".jpg", shallow, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def dicom_dataset(fields: Mapping[str, Any], file: PlannedFile, image: Image) -> Dataset:
    """Return a file of the collection as a data set, Implicit VR Little Endian (PS3.10).

    Args:
        fields: Its header, by keyword.
        file: The file.
        image: Its pixels, (H, W), uint16 or for a mask uint8.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(file.instance_uid)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    block = dataset.private_block(0x0013, "CTP", create=True)
    block.add_new(0x10, "UN", COLLECTION.encode().ljust(10))
    block.add_new(0x13, "UN", PRIVATE_CODES[file.finding, file.split])
    pixels = image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.add_new("PixelData", "OW", pixels + b"\0" if len(pixels) % 2 else pixels)
    return dataset


def header_fields(file: PlannedFile, film: FilmPlan, facts: Mapping[str, int]) -> dict[str, Any]:
    """Return the header of a file by keyword, without its private block and pixels.

    Args:
        file: The file.
        film: The film that it shows.
        facts: Its rows, columns, smallest and largest pixel value.
    """
    bits = 8 if file.kind == MASK else 16
    clock = f"{file.clock // 3600:02d}{file.clock // 60 % 60:02d}{file.clock % 60:02d}"
    written = 43_200 + file.clock // 12  # the files were made over two hours at noon
    fields: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": UID(file.instance_uid),
        "StudyDate": f"{file.study_date:%Y%m%d}",
        "ContentDate": "20160426",
        "StudyTime": clock,
        "ContentTime": f"{written // 3600:02d}{written // 60 % 60:02d}{written % 60:02d}"
        f".{file.clock % 1000:03d}000",
        "AccessionNumber": "",
        "Modality": "MG",
        "ConversionType": "WSD",
        "ReferringPhysicianName": "",
        "SeriesDescription": file.description,
        "PatientName": file.subject,
        "PatientID": file.subject,
        "PatientBirthDate": "",
        "PatientSex": "",
        "BodyPartExamined": "BREAST",
        "SecondaryCaptureDeviceManufacturer": "Mammolab",
        "SecondaryCaptureDeviceManufacturerModelName": "SYNTHETIC",
        "StudyInstanceUID": UID(file.study_uid),
        "SeriesInstanceUID": UID(file.series_uid),
        "StudyID": "DDSM",
        "SeriesNumber": 1,
        "InstanceNumber": 2 if file.kind == MASK else 1,
        "PatientOrientation": film.view,
        "Laterality": film.laterality[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": facts["rows"],
        "Columns": facts["columns"],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "SmallestImagePixelValue": facts["smallest"],
        "LargestImagePixelValue": facts["largest"],
    }
    if not file.description:
        del fields["SeriesDescription"]
    return fields
