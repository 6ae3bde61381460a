"""One DICOM file: the header facts that the tool uses, and its pixels at the full 16-bit range."""

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from images import lookup
from images.archives import ImageFile, inside, open_binary, size_of
from images.identity import guess_kind, identifying_tags, says_burned_in, without_pixels
from images.lookup import WHITE, StoredValues
from pipeline.errors import UserError

MAPPABLE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)  # PS3.5, A.1 and A.2: plain arrays
JPEG_LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
LATERALITIES = {"L": "LEFT", "R": "RIGHT"}
VIEWS = ("CC", "MLO")
ROWS, COLUMNS, PIXEL_DATA = 0x00280010, 0x00280011, 0x7FE00010
SWAPPED_GROUP = 0x0800  # group 0008 with its bytes exchanged; no such group is defined
UNDEFINED_LENGTH = 0xFFFFFFFF  # of pixel data: it comes in fragments (PS3.5, A.4)
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # of fragments (PS3.5, 7.5)
START = 256 * 1024  # bytes of a file inside a zip file that are unpacked for its header
DEFERRED = (1 << 17) + 4096  # bytes; no value that is used is longer: a LUT for every 16 bits


@dataclass(frozen=True, kw_only=True)
class Header(StoredValues):
    """What the header of an image file says (PS3.3, C.7.1 to C.7.6); text is empty where absent."""

    series_uid: str
    study_uid: str
    sop_uid: str
    subject: str  # PatientID. In CBIS-DDSM it is unique for each image and is not the patient
    series_description: str
    laterality: str  # "LEFT", "RIGHT" or empty
    view: str  # "CC", "MLO" or empty; from ViewPosition or PatientOrientation
    rows: int
    columns: int
    frames: int
    transfer_syntax: str
    pixels_at: int  # offset of the pixel data in bytes; 0 where the data set is deflated
    pixels_length: int  # what the header says of its length, in bytes; of fragments, all together
    encapsulated: bool  # whether the pixel data comes in fragments, as compressed images do
    oddity: str  # what is wrong with the header but does no harm; empty where nothing is
    identifying: tuple[str, ...] = ()  # tags with a value that may tell who a person is
    burned_in: bool = False  # whether it says that text is burned into the pixels


def read_header(path: ImageFile) -> Header:
    """Read the header of one file, without its pixels.

    Args:
        path: A DICOM file; it may lie in a zip file (images.archives) or in memory.

    Raises:
        UserError: The file is missing, empty, not DICOM, cut off before its pixel data, or not
            an image.
    """
    if inside(path) and size_of(path) > START:
        # Whatever is missing from the first bytes is looked for in the whole file below.
        with contextlib.suppress(UserError), open_binary(path, START) as file:
            header = _read_header(path, file)
            if not header.encapsulated:
                return header
    with open_binary(path) as file:
        return _read_header(path, file)


def defect(header: Header, size: int) -> str:
    """Return from the header alone why the pixels of a file cannot be read.

    Args:
        header: Of the file.
        size: Of the file in bytes, unpacked its path in a zip file.

    Returns:
        The reason in the words of `read_pixels`; empty where the pixels can be expected to read.
    """
    return _unsupported(header) or _wrong_syntax(header) or _wrong_length(header, size)


def read_pixels(path: ImageFile) -> NDArray[np.uint16]:
    """Read one image as grey values that span the full 16-bit range.

    Stored values become grey values as the standard defines it (`images.lookup.grey_table`; PS3.3,
    C.7.6.3 and C.11); padding becomes black. The range follows from BitsStored, or from the bits
    of a LUT, and not from the pixels, so that a crop and its mammogram keep one grey scale; but
    for an image beside its window (`images.lookup.fitting_table`). Colour becomes BT.601 luma.

    Args:
        path: A DICOM file with one frame of at most 16 bits; it may lie in a zip file.

    Returns:
        (H, W) uint16 in [0, 65535]; black is 0.

    Raises:
        UserError: As `read_header`; or for a `defect`; or the pixels cannot be decoded.
    """
    header, samples = _samples_of(path)
    if header.samples == 3:
        # pydicom's pixel_array has already converted YBR to RGB.
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)
    # A codec gives values alone, without overlays in the bits above.
    if _is_codec(header) and header.samples == 1:
        return to_full_range(samples, lookup.with_enough_bits(header, samples))
    return to_full_range(samples, header)


def colour_spread(path: ImageFile) -> float:
    """Return how far the colours of an image lie apart: highest less lowest, mean over its pixels.

    Args:
        path: As for `read_pixels`, with three samples a pixel; many films are grey all the same.

    Returns:
        A share of the grey range: 0 for grey.

    Raises:
        UserError: As `read_pixels`.
    """
    header, samples = _samples_of(path)
    return float(np.ptp(samples, axis=2).mean()) / header.highest


def _samples_of(path: ImageFile) -> tuple[Header, NDArray[Any]]:
    """Return the header, and the samples, (H, W) or (H, W, 3) in RGB, as they are stored."""
    with open_binary(path) as file:
        header = _read_header(path, file)
        if reason := defect(header, file.seek(0, io.SEEK_END)):
            raise UserError(f"{path}: {reason}")
        samples = _map(file, header) if _is_plain(header) else _decode(path, file, header)
    if samples.shape[:2] != (header.rows, header.columns):
        raise UserError(f"{path}: decodes to {samples.shape}, not to what its header says")
    return header, samples


def to_full_range(samples: NDArray[Any], header: StoredValues) -> NDArray[np.uint16]:
    """Map stored samples to [0, 65535].

    Args:
        samples: (H, W), uint8, int8, uint16 or int16, as stored.
        header: Of the same file.

    Returns:
        (H, W) uint16 in [0, 65535], 0 for black; never a view of `samples`.
    """
    # A table of every bit pattern takes less time and memory than arithmetic on 15 megapixels.
    table = lookup.grey_table(header, 8 * samples.dtype.itemsize)
    patterns = samples.view(np.uint8 if samples.dtype.itemsize == 1 else np.uint16)
    if header.voi or header.window:
        table = lookup.fitting_table(header, table, patterns)
    # Full 16 bits, MONOCHROME2: a copy is faster than the look-up.
    if len(table) > WHITE and np.array_equal(table, np.arange(len(table), dtype=np.uint16)):
        return np.array(patterns, dtype=np.uint16)
    grey: NDArray[np.uint16] = table[patterns]
    return grey


def _read_header(path: ImageFile, file: BinaryIO) -> Header:
    """Read the header of an open file; `path` is for messages."""
    pixels: tuple[int, int] | None = None

    def at_pixel_data(tag: int, _: str | None, length: int) -> bool:
        nonlocal pixels
        if int(tag) != PIXEL_DATA:  # int: pydicom compares tags more slowly
            return False
        pixels = file.tell(), length
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break the standard and are usable
        try:
            dataset = read_partial(file, at_pixel_data, defer_size=DEFERRED)
            if pixels and ROWS in dataset and COLUMNS in dataset:
                return _header(path, file, dataset, *pixels)
        except UserError:
            raise
        except InvalidDicomError:
            raise UserError(f"{path}: {guess_kind(file)}") from None
        except zlib.error:
            raise UserError(f"{path}: its header claims deflated data, but it is not") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except Exception as error:  # pydicom's parsers raise anything when bytes are damaged
            raise UserError(f"{path}: its header is damaged ({_first_line(error)})") from None
    if any(tag.group == SWAPPED_GROUP for tag in dataset.keys()):
        name = _uid(_syntax(dataset)).name
        raise UserError(f"{path}: its header claims {name}, but its bytes are in the other order")
    raise UserError(f"{path}: {without_pixels(dataset)}")


def _header(
    path: ImageFile, file: BinaryIO, dataset: pydicom.FileDataset, pixels_at: int, length: int
) -> Header:
    def text(name: str) -> str:
        return str(dataset.get(name) or "").strip()

    rows: Any = dataset.get_item(ROWS)  # as read: pydicom has not converted it yet
    syntax = _syntax(dataset)
    encapsulated = length == UNDEFINED_LENGTH
    if encapsulated:
        length = _fragments_length(path, file, pixels_at)
    # Laterality is of a series, ImageLaterality of an image (PS3.3, C.7.3.1 and C.8.11.7).
    # Mammography objects state ImageLaterality; secondary captures, as in CBIS-DDSM, Laterality,
    # and put the view into PatientOrientation.
    side = text("Laterality") or text("ImageLaterality")
    # CBIS-DDSM puts the view into PatientOrientation, where the standard has directions.
    views = (text("ViewPosition"), text("PatientOrientation"))
    stored = lookup.read_stored_values(dataset)
    oddities = _oddity(syntax, rows.is_implicit_VR), lookup.oddity(stored)
    return Header(
        **vars(stored),
        series_uid=text("SeriesInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        sop_uid=text("SOPInstanceUID"),
        subject=text("PatientID"),
        series_description=text("SeriesDescription"),
        laterality=LATERALITIES.get(side, ""),
        view=next((view for view in views if view in VIEWS), ""),
        rows=int(dataset[ROWS].value),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        transfer_syntax=syntax,
        pixels_at=0 if syntax == DeflatedExplicitVRLittleEndian else pixels_at,
        pixels_length=length,
        encapsulated=encapsulated,
        oddity="; ".join(filter(None, oddities)),
        identifying=tuple(identifying_tags(dataset)),
        burned_in=says_burned_in(dataset),
    )


def _syntax(dataset: pydicom.FileDataset) -> str:
    return str(dataset.file_meta.get("TransferSyntaxUID", ""))


def _uid(syntax: str) -> UID:
    return UID(syntax, pydicom.config.IGNORE)  # or pydicom warns of a damaged one


def _oddity(syntax: str, implicit: bool) -> str:
    """Return how the value representations differ from the header's claim; empty where not."""
    if not syntax or implicit == (syntax == ImplicitVRLittleEndian):
        return ""
    found = "implicit" if implicit else "explicit"
    return f"its header claims {_uid(syntax).name}, but its data is {found} VR"


def _fragments_length(path: ImageFile, file: BinaryIO, pixels_at: int) -> int:
    """Return how many bytes the fragments of compressed pixels say that they take."""
    at = pixels_at
    while True:
        file.seek(at)
        start = file.read(8)
        at += 8
        if len(start) < 8 or start[:4] == DELIMITER:
            return at - pixels_at
        if start[:4] != ITEM:
            raise UserError(f"{path}: its pixel data is damaged (a fragment is out of place)")
        (length,) = struct.unpack_from("<I", start, 4)
        at += length


def _unsupported(header: Header) -> str:
    """Return why the kind of image is not supported; empty where it is."""
    if header.frames > 1:
        return f"holds {header.frames} frames; only single images are read"
    if header.bits_allocated not in (1, 8, 16):
        return f"has {header.bits_allocated} bits allocated; 1, 8 and 16 are read"
    if header.rows < 1 or header.columns < 1:
        return f"says that it has {header.rows} rows and {header.columns} columns"
    if reason := lookup.fault(header):
        return reason
    if _is_codec(header) and header.unused_low_bits:
        return (
            f"is compressed, but has the high bit {header.high_bit} for {header.bits_stored} bits"
        )
    return ""


def _is_codec(header: Header) -> bool:
    # RLE keeps the cells of 16 bits; any other codec gives values alone, without unused bits.
    return header.encapsulated and header.transfer_syntax != RLELossless


def _wrong_syntax(header: Header) -> str:
    """Return why the claimed transfer syntax cannot be that of the pixels, or nothing."""
    if not header.transfer_syntax:
        return "does not say its transfer syntax"
    syntax = _uid(header.transfer_syntax)
    if not syntax.is_transfer_syntax:
        return f"has the unknown transfer syntax {header.transfer_syntax!r}"
    if syntax.is_encapsulated and not header.encapsulated:
        return f"its header claims {syntax.name}, but its pixels are not compressed"
    if header.encapsulated and not syntax.is_encapsulated:
        return f"its header claims {syntax.name}, but its pixels are compressed"
    if header.encapsulated and not _has_decoder(syntax):
        return f"is compressed as {syntax.name}, which is not read"
    return ""


def _has_decoder(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _wrong_length(header: Header, size: int) -> str:
    """Return how the length of the pixel data contradicts the header or the file, or nothing."""
    bits = header.rows * header.columns * header.samples * header.bits_allocated
    if header.photometric == "YBR_FULL_422":  # two pixels share their colour
        bits = bits * 2 // 3
    wanted = header.pixels_length if header.encapsulated else -(-bits // 8)
    there = header.pixels_length
    if header.pixels_at:
        there = min(there, max(0, size - header.pixels_at))
    if there < wanted:
        return f"its pixel data is truncated ({there:,} of {wanted:,} bytes)"
    if header.pixels_length > wanted + 1:  # one byte makes an odd length even (PS3.5, 8.1.1)
        return (
            f"its pixel data has the wrong size ({header.pixels_length:,} bytes, where its "
            f"{header.rows} x {header.columns} pixels take {wanted:,})"
        )
    return ""


def _is_plain(header: Header) -> bool:
    return (
        header.transfer_syntax in MAPPABLE
        and header.samples == 1
        and header.bits_allocated in (8, 16)
    )


def _map(file: BinaryIO, header: Header) -> NDArray[Any]:
    """Map the pixels of an uncompressed file, (H, W): no copy, no second parse."""
    dtype = np.dtype(np.uint8 if header.bits_allocated == 8 else "<u2")
    shape = (header.rows, header.columns)
    mapped: NDArray[Any]
    # Sign is dealt with by to_full_range, so two's complement is read as unsigned.
    if isinstance(file, io.BytesIO):
        count = header.rows * header.columns
        mapped = np.frombuffer(file.getvalue(), dtype, count, header.pixels_at).reshape(shape)
    else:
        mapped = np.memmap(file, dtype, mode="r", offset=header.pixels_at, shape=shape)
    return np.asarray(mapped, dtype=dtype.newbyteorder("="))


def _decode(path: ImageFile, file: BinaryIO, header: Header) -> NDArray[Any]:
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what pydicom can live with
        try:
            dataset, grey = pydicom.dcmread(file), header.samples == 1
            if header.transfer_syntax in JPEG_LOSSLESS and grey and not header.signed:
                # Or gdcm cuts off what is higher than the header allows.
                dataset.BitsStored = header.bits_allocated
            # The cells of grey are wanted whole: pydicom takes the grey value for the low bits.
            samples = pixel_array(dataset, correct_unused_bits=not grey)
        except Exception as error:  # whatever the codec of the transfer syntax raises
            name = _uid(header.transfer_syntax).name
            why = f"as {name}" if header.encapsulated else f"({_first_line(error)})"
            raise UserError(f"{path}: cannot be decoded {why}") from None
    return np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("="))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
