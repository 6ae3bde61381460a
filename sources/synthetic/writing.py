"""What is in the files of the synthetic collection: DICOM header for header, or JPEG.

Headers follow the real collection field by field: Implicit VR Little Endian, Secondary Capture,
no window, spacing or view position, and a PatientID that is unique for each image.
"""

import io
import multiprocessing
import zipfile
from collections.abc import Mapping, Sequence
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
from sources.synthetic.files import COLLECTION, CROP, MASK, ZIP, PlannedFile, file_path, on_disk
from sources.synthetic.films import Film, render_film
from sources.synthetic.plan import CALC, MASS, FilmPlan

IMPLEMENTATION_UID = UID("2.25.196312783915276402389461254871930455716")
IMPLEMENTATION = "MAMMOLAB-0.1"
PRIVATE_CODES = {  # of the archive's software, one for each case description
    (MASS, "train"): b"43352602", (MASS, "test"): b"43372602",
    (CALC, "train"): b"43342602", (CALC, "test"): b"43362602",
}  # fmt: skip
CROP_MARGIN = 0.35  # around a lesion's outline, as a share of its extent
JPEG_QUALITY = 95
ZIP_TIME = (2016, 4, 26, 12, 0, 0)  # of every member
UNIX = 3  # the system that every zip file says that it was made on
ZIP_LEVEL = 1  # film grain hardly packs: more effort costs time and gains nothing
Image = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FilmJob:
    """All files of one film, for a worker process."""

    film: FilmPlan  # what it shows
    # What is to be written; those of a twin stand under both findings.
    files: tuple[PlannedFile, ...]
    out: Path  # folder of the collection
    layout: str  # one of the layouts of the collection
    height: int  # typical height of a film in pixels
    seed: int  # of the collection


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
    together: dict[str, list[PlannedFile]] = {}
    for file in job.files:
        together.setdefault(on_disk(file_path(file, job.layout)), []).append(file)
    facts: dict[str, dict[str, int]] = {}
    for name, files in together.items():
        try:
            with atomic(job.out / name) as temporary:
                facts |= _write(temporary, job, film, files)
        except OSError as error:
            raise UserError(f"{job.out / name}: cannot be written ({error.strerror})") from None
    return facts


def _write(
    target: Path, job: FilmJob, film: Film, files: Sequence[PlannedFile]
) -> dict[str, dict[str, int]]:
    """Write one file, or the files of one series into a zip file; return their facts by path."""
    facts: dict[str, dict[str, int]] = {}
    for file in sorted(files, key=lambda file: file.position):
        image = file_image(film, file)
        path = file_path(file, job.layout)
        facts[path] = {
            "rows": image.shape[0], "columns": image.shape[1],
            "smallest": int(image.min()), "largest": int(image.max()),
        }  # fmt: skip
        if job.layout == "kaggle":
            content = encode_jpeg(image)
        else:
            fields = header_fields(file, job.film, facts[path])
            content = dicom_bytes(dicom_dataset(fields, file, image))
        facts[path]["bytes"] = len(content)
        if target.suffix == ZIP:
            _add_member(target, path.rpartition("/")[2], content)
        else:
            target.write_bytes(content)
    return facts


def _add_member(archive: Path, name: str, content: bytes) -> None:
    """Add a file to a zip file: the same bytes whenever and on whichever system."""
    member = zipfile.ZipInfo(name, ZIP_TIME)
    member.create_system = UNIX
    member.external_attr = 0o644 << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(member, content, zipfile.ZIP_DEFLATED, ZIP_LEVEL)


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


def dicom_bytes(dataset: Dataset) -> bytes:
    """Return a data set as the content of a file (PS3.10)."""
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


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
