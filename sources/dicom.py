"""One DICOM file: the header facts that the tool uses, and its pixels at the full 16-bit range."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.errors import UserError

MAPPABLE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)  # PS3.5, A.1 and A.2: plain arrays
LATERALITIES = {"L": "LEFT", "R": "RIGHT"}
VIEWS = ("CC", "MLO")
DEFERRED = 4096  # bytes; a longer value is not read with the header: only pixel data is
WHITE = 65535


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of an image file says (PS3.3, C.7.1 to C.7.6); text is empty where absent.

    Attributes:
        series_uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        sop_uid: SOPInstanceUID.
        subject: PatientID. In CBIS-DDSM it is unique for each image and is not the patient.
        series_description: SeriesDescription.
        laterality: "LEFT", "RIGHT" or empty.
        view: "CC", "MLO" or empty; from ViewPosition or PatientOrientation.
        rows: Height in pixels.
        columns: Width in pixels.
        bits_allocated: Bits that a sample takes in the file.
        bits_stored: Bits of these that hold the grey value.
        signed: Whether samples are two's complement.
        samples: Samples of one pixel: 1 for grey, 3 for colour.
        frames: Images in the file.
        photometric: PhotometricInterpretation.
        transfer_syntax: TransferSyntaxUID.
        pixels_at: Offset of the pixel data in the file, in bytes.
        pixels_length: What the header says of its length, in bytes.
    """

    series_uid: str
    study_uid: str
    sop_uid: str
    subject: str
    series_description: str
    laterality: str
    view: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    samples: int
    frames: int
    photometric: str
    transfer_syntax: str
    pixels_at: int
    pixels_length: int


def read_header(path: Path) -> Header:
    """Read the header of one file, without its pixels.

    Raises:
        UserError: The file is missing, empty, not DICOM, cut off before its pixel data, or not
            an image.
    """
    dataset = _open(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break the standard and are usable
        try:
            return _header(path, dataset)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: its header is damaged ({_first_line(error)})") from None


def read_pixels(path: Path) -> NDArray[np.uint16]:
    """Read one image as grey values that span the full 16-bit range.

    The range follows from BitsStored and never from the values, so that a crop and its mammogram
    keep one grey scale. MONOCHROME1 is inverted (PS3.3, C.7.6.3.1.2), signed samples are moved to
    start at 0, colour becomes ITU-R BT.601 luma.

    Args:
        path: A DICOM file with one frame of at most 16 bits.

    Returns:
        (H, W) uint16 in [0, 65535]; black is 0.

    Raises:
        UserError: As `read_header`; or the pixel data is truncated, cannot be decoded, has
            several frames or a kind of pixel that no mammogram has.
    """
    header = read_header(path)
    if reason := _refusal(header):
        raise UserError(f"{path}: {reason}")
    samples = _map(path, header) if _is_plain(header) else _decode(path)
    if samples.shape[:2] != (header.rows, header.columns):
        raise UserError(f"{path}: decodes to {samples.shape}, not to what its header says")
    if header.samples == 3:
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)
    return to_full_range(samples, header)


def to_full_range(samples: NDArray[Any], header: Header) -> NDArray[np.uint16]:
    """Map stored samples to [0, 65535] by BitsStored, sign and photometric interpretation.

    Args:
        samples: (H, W), uint8, int8, uint16 or int16, as stored.
        header: Of the same file.

    Returns:
        (H, W) uint16 in [0, 65535], 0 for black; never a view of `samples`.
    """
    codes = np.arange(1 << 8 * samples.dtype.itemsize, dtype=np.int64)  # every bit pattern
    highest = (1 << header.bits_stored) - 1
    values = codes & highest
    if header.signed:
        values ^= 1 << (header.bits_stored - 1)  # two's complement to offset binary
    table: NDArray[np.uint16] = ((values * WHITE + highest // 2) // highest).astype(np.uint16)
    if header.photometric == "MONOCHROME1":
        table = np.subtract(WHITE, table, dtype=np.uint16)
    patterns = samples.view(np.uint8 if samples.dtype.itemsize == 1 else np.uint16)
    if patterns.dtype == np.uint16 and np.array_equal(table, codes):
        return np.array(patterns, dtype=np.uint16)
    grey: NDArray[np.uint16] = table[patterns]
    return grey


def _open(path: Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path, defer_size=DEFERRED)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except InvalidDicomError:
            raise UserError(f"{path}: {_what_it_is(path)}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except Exception as error:  # pydicom's parsers raise anything when bytes are damaged
            raise UserError(f"{path}: its header is damaged ({_first_line(error)})") from None


def _what_it_is(path: Path) -> str:
    """Say what a file without the DICOM prefix seems to be."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "is a text file, not DICOM"
    return "is not DICOM (the prefix DICM is missing)"


def _header(path: Path, dataset: pydicom.Dataset) -> Header:
    def text(name: str) -> str:
        return str(dataset.get(name) or "").strip()

    element: Any = dataset.get_item("PixelData", keep_deferred=True)
    if not isinstance(element, RawDataElement) or "Rows" not in dataset or "Columns" not in dataset:
        raise UserError(f"{path}: is cut off before its pixel data, or is no image")
    side = text("Laterality") or text("ImageLaterality")
    views = (text("ViewPosition"), text("PatientOrientation"))
    allocated = int(dataset.get("BitsAllocated", 16))
    return Header(
        series_uid=text("SeriesInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        sop_uid=text("SOPInstanceUID"),
        subject=text("PatientID"),
        series_description=text("SeriesDescription"),
        laterality=LATERALITIES.get(side, ""),
        view=next((view for view in views if view in VIEWS), ""),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=allocated,
        bits_stored=int(dataset.get("BitsStored", allocated)),
        signed=bool(dataset.get("PixelRepresentation", 0)),
        samples=int(dataset.get("SamplesPerPixel", 1)),
        frames=int(dataset.get("NumberOfFrames") or 1),
        photometric=text("PhotometricInterpretation"),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        pixels_at=element.value_tell,
        pixels_length=element.length,
    )


def _refusal(header: Header) -> str:
    """Return why a file holds no mammogram, or nothing."""
    if header.frames > 1:
        return f"holds {header.frames} frames; only single images are read"
    if header.bits_allocated not in (1, 8, 16):
        return f"has {header.bits_allocated} bits allocated; 1, 8 and 16 are read"
    if not 1 <= header.bits_stored <= header.bits_allocated:
        return f"has {header.bits_stored} bits stored in {header.bits_allocated} allocated"
    if header.rows < 1 or header.columns < 1:
        return f"says that it has {header.rows} rows and {header.columns} columns"
    if header.samples not in (1, 3) or header.photometric == "PALETTE COLOR":
        return f"is {header.photometric} with {header.samples} samples; grey and RGB are read"
    return ""


def _is_plain(header: Header) -> bool:
    return (
        header.transfer_syntax in MAPPABLE
        and header.samples == 1
        and header.bits_allocated in (8, 16)
    )


def _map(path: Path, header: Header) -> NDArray[Any]:
    """Map the pixels of an uncompressed file: no copy, no second parse."""
    dtype = np.dtype(np.uint8 if header.bits_allocated == 8 else "<u2")
    wanted = header.rows * header.columns * dtype.itemsize
    there = min(header.pixels_length, path.stat().st_size - header.pixels_at)
    if there < wanted:
        raise UserError(f"{path}: its pixel data is truncated ({there:,} of {wanted:,} bytes)")
    shape = (header.rows, header.columns)
    mapped = np.memmap(path, dtype, mode="r", offset=header.pixels_at, shape=shape)
    return np.asarray(mapped, dtype=dtype.newbyteorder("="))


def _decode(path: Path) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of excess bytes, which do no harm
        try:
            samples = pixel_array(pydicom.dcmread(path))
        except Exception as error:  # whatever the codec of the transfer syntax raises
            raise UserError(f"{path}: cannot be decoded ({_first_line(error)})") from None
    return np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("="))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
