"""What a DICOM header says of stored values, and the table that makes them grey values.

The order is that of PS3.4, N.2: stored value, modality look-up table or rescale, VOI look-up table
or window of an image that is made to be seen through it (images.voi), presentation look-up table,
polarity.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement

from images.files import NARROW
from images.voi import Window, is_seen_through_voi, read_window

WHITE = 65535
DESCRIPTOR, DATA = 0x00283002, 0x00283006  # of a look-up table
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
IDENTITY, INVERSE = "IDENTITY", "INVERSE"  # presentation LUT shapes (PS3.3, C.11.6.1.2)


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """One look-up table (PS3.3, C.11.1.1 and C.11.6.1.1)."""

    first: int = 0  # the value that the first entry is for; lower ones share it
    bits: int = 16  # of an entry
    entries: bytes = b""  # (N,) little-endian uint16
    fault: str = ""  # why it cannot be used; empty where it can

    def apply(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Look values up, (N,); those below and above the table take its ends."""
        entries = np.frombuffer(self.entries, "<u2")
        found = entries[np.clip(values - self.first, 0, len(entries) - 1)]
        return found.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """What the header says of stored values (PS3.3, C.7.6.3, C.7.5.1.1.2 and C.11)."""

    bits_allocated: int  # bits that a sample takes in the file
    bits_stored: int  # bits of these that hold the grey value
    high_bit: int  # the most significant of them, counted from 0
    representation: int  # 0 where samples are unsigned, 1 where they are two's complement
    samples: int  # samples of one pixel: 1 for grey, 3 for colour
    photometric: str
    slope: float  # of the rescale; 1 where absent, not finite where it is no number
    intercept: float  # of the rescale; 0 where absent
    modality: LookupTable | None
    presentation: LookupTable | None
    shape: str  # of the presentation look-up table: IDENTITY, INVERSE or empty
    padding: tuple[int, int] | None  # lowest and highest stored value that is no part of the film
    # Of an image that is made to be seen through it; the table goes before the window.
    voi: LookupTable | None = None
    window: Window | None = None

    @property
    def signed(self) -> bool:
        """Whether samples are two's complement."""
        return self.representation == 1

    @property
    def lowest(self) -> int:
        """The lowest value that can be stored."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest value that can be stored."""
        return self.lowest + (1 << self.bits_stored) - 1

    @property
    def unused_low_bits(self) -> int:
        """How many bits below the grey value are not part of it."""
        return self.high_bit + 1 - self.bits_stored

    @property
    def negative(self) -> bool:
        """Whether the lowest value is white, once the look-up tables are applied.

        In an image INVERSE repeats MONOCHROME1 (PS3.3, C.7.6.1): together they invert once.
        """
        return self.photometric == "MONOCHROME1" or self.shape == INVERSE


def read_stored_values(dataset: pydicom.Dataset) -> StoredValues:
    """Read what a header says of its stored values; `fault` and `oddity` judge it."""
    allocated = int(dataset.get("BitsAllocated", 16))
    stored = int(dataset.get("BitsStored", allocated))
    representation = int(dataset.get("PixelRepresentation", 0))
    signed = representation == 1
    slope, intercept = _number(dataset, "RescaleSlope", 1), _number(dataset, "RescaleIntercept", 0)
    seen = is_seen_through_voi(dataset)
    return StoredValues(
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=int(dataset.get("HighBit", stored - 1)),
        representation=representation,
        samples=int(dataset.get("SamplesPerPixel", 1)),
        photometric=_text(dataset, "PhotometricInterpretation"),
        slope=slope,
        intercept=intercept,
        modality=_table(dataset, "ModalityLUTSequence", signed),
        presentation=_table(dataset, "PresentationLUTSequence", False),
        shape=_text(dataset, "PresentationLUTShape"),
        padding=_padding(dataset, signed),
        voi=_voi(dataset, signed or intercept < 0) if seen else None,
        window=read_window(dataset) if seen else None,
    )


def fault(values: StoredValues) -> str:
    """Return why stored values cannot be made grey values; empty where they can."""
    return _contradiction(values) or _unreadable(values) or _undefined(values)


def oddity(values: StoredValues) -> str:
    """Return what contradicts itself in the header but leaves one reading; empty where nothing."""
    if values.samples == 1 and values.shape:
        if (values.photometric == "MONOCHROME1") != (values.shape == INVERSE):
            kind = f"{values.photometric} with presentation LUT shape {values.shape}"
            return f"its header claims {kind}; it is read with its lowest value as white"
    if values.padding and (values.padding[1] < values.lowest or values.padding[0] > values.highest):
        padding = " to ".join(f"{end:,}" for end in dict.fromkeys(values.padding))
        return f"its pixel padding value {padding} is none of its {values.bits_stored} stored bits"
    return ""


def grey_table(values: StoredValues, bits: int) -> NDArray[np.uint16]:
    """Return the grey value of every bit pattern.

    The full range of the last step, by its bits and never by the pixels, becomes [0, 65535]. The
    rescale is linear: it moves every value and the range alike, so only the sign of its slope
    changes grey values, where no window is in units of what it gives.

    Args:
        values: Of a header without `fault`.
        bits: Of a pattern: 8 or 16.

    Returns:
        (2 ** bits,) uint16 in [0, 65535], 0 for black and for padding.
    """
    stored = _stored_of(values, 1 << bits)
    found, top = stored - values.lowest, values.highest - values.lowest
    if values.modality:
        found, top = values.modality.apply(stored), (1 << values.modality.bits) - 1
    elif values.slope < 0:
        found = top - found
    if values.voi or values.window:
        found, top = _seen(values, found if values.modality else None, stored)
    if values.presentation:
        # PS3.3, C.11.6.1: its input is scaled to the number of its entries.
        last = len(values.presentation.entries) // 2 - 1
        found = values.presentation.apply((found * last + top // 2) // top)
        top = (1 << values.presentation.bits) - 1
    table: NDArray[np.uint16] = ((found * WHITE + top // 2) // top).astype(np.uint16)
    if values.negative:
        table = np.subtract(WHITE, table, dtype=np.uint16)
    table[_padding_codes(values, len(table))] = 0
    return table


def with_enough_bits(values: StoredValues, samples: NDArray[Any]) -> StoredValues:
    """Return what a header says, with as many bits stored as decompressed values take.

    What is higher than the header allows is a bright value all the same, and would turn dark. Some
    films of RSNA Screening Mammography are so.

    Args:
        values: Of the header.
        samples: (H, W), as a codec gave them.
    """
    # Padding may lie outside the stored bits, as a mark.
    if values.signed or (values.padding and values.padding[1] > values.highest):
        return values
    bits = int(samples.max()).bit_length()
    if bits <= values.bits_stored:
        return values
    return replace(values, bits_stored=bits, high_bit=bits - 1)


def fitting_table(
    values: StoredValues, table: NDArray[np.uint16], patterns: NDArray[Any]
) -> NDArray[np.uint16]:
    """Return the table that shows an image: its own, or a plain one where a window lies beside it.

    Args:
        values: Of a header with a VOI look-up table or a window.
        table: Of `grey_table`, for it.
        patterns: (H, W) unsigned bit patterns of the image.

    Returns:
        `table`, where the image spans more than a sixteenth of the range through it. Else the
        table without VOI transformation, scaled so that the image spans the range.
    """
    there = np.zeros(len(table), np.bool_)
    there[patterns] = True
    plain = grey_table(replace(values, voi=None, window=None), len(table).bit_length() - 1)
    padding = _padding_codes(values, len(table))
    there &= ~padding
    if not there.any() or np.ptp(table[there]) > NARROW:
        return table
    lowest, highest = int(plain[there].min()), int(plain[there].max())
    span = max(1, highest - lowest)
    scaled = (np.clip(plain.astype(np.int64), lowest, highest) - lowest) * WHITE
    fitted: NDArray[np.uint16] = ((scaled + span // 2) // span).astype(np.uint16)
    fitted[padding] = 0
    return fitted


def _stored_of(values: StoredValues, count: int) -> NDArray[np.int64]:
    """Return the stored value of every bit pattern, (count,)."""
    codes = np.arange(count, dtype=np.int64)
    # Bits above the high bit may hold overlays (retired, PS3.5, 8.1.2), those below anything.
    found = codes >> values.unused_low_bits & values.highest - values.lowest
    if values.signed:
        found ^= 1 << (values.bits_stored - 1)  # two's complement to offset binary
    return found + values.lowest


def _padding_codes(values: StoredValues, count: int) -> NDArray[np.bool_]:
    """Return which bit patterns are padding, (count,)."""
    if values.padding is None:
        return np.zeros(count, np.bool_)
    stored = _stored_of(values, count)
    padding: NDArray[np.bool_] = (stored >= values.padding[0]) & (stored <= values.padding[1])
    return padding


def _seen(
    values: StoredValues, mapped: NDArray[np.int64] | None, stored: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Apply the VOI transformation.

    Args:
        values: Of the header.
        mapped: What the modality look-up table gave, (N,); None without one.
        stored: Stored values, (N,).

    Returns:
        (N,) from 0 to the highest value that there can be, and that value.
    """
    found = stored * values.slope + values.intercept if mapped is None else mapped
    if values.voi:
        whole = np.rint(found).astype(np.int64)
        return values.voi.apply(whole), (1 << values.voi.bits) - 1
    if values.window is None:
        raise ValueError("neither a table nor a window")
    return np.rint(values.window.apply(found.astype(np.float64))).astype(np.int64), WHITE


def _text(dataset: pydicom.Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip()


def _number(dataset: pydicom.Dataset, name: str, absent: float) -> float:
    """Return one decimal number of a header; not a number where it holds anything else."""
    try:
        value = dataset.get(name)
        return absent if value is None or value == "" else float(value)
    except (TypeError, ValueError):  # of several numbers, and of what is no number
        return math.nan


def _padding(dataset: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
    """Return the lowest and the highest stored value that is padding (PS3.3, C.7.5.1.1.2)."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None  # the limit alone means nothing
    ends = [value, limit if isinstance(limit, int) else value]
    # Files with the other sign in the value representation exist; the 16 bits are the same.
    words = np.array(ends, np.int64).astype(np.uint16)
    padding = words.view(np.int16) if signed else words
    return int(padding.min()), int(padding.max())


def _voi(dataset: pydicom.Dataset, signed: bool) -> LookupTable | None:
    """Return the first VOI look-up table; a damaged one is none, and no reason to refuse a film."""
    table = _table(dataset, "VOILUTSequence", signed, several=True)
    return None if table is None or table.fault else table


def _table(
    dataset: pydicom.Dataset, name: str, signed: bool, several: bool = False
) -> LookupTable | None:
    """Read the look-up table of a sequence.

    Args:
        dataset: The header.
        name: Keyword of the sequence.
        signed: Whether the first value that is mapped is two's complement.
        several: Whether the sequence may have several tables; the first one is read.

    Returns:
        The table, with its fault where it has one; None where the header has no table.
    """
    items = dataset.get(name)
    if not items:
        return None
    if len(items) > 1 and not several:
        return LookupTable(fault=f"has {len(items)} items in its {name}, where 1 is allowed")
    descriptor, data = _words(items[0], DESCRIPTOR), _words(items[0], DATA)
    if len(descriptor) != 3:
        return LookupTable(fault=f"has a {name} with a LUT descriptor of {len(descriptor)} values")
    count, first, bits = (int(word) for word in descriptor)
    count = count or 1 << 16  # 0 stands for what 16 bits cannot hold
    if signed:
        first = (first ^ 1 << 15) - (1 << 15)
    if not 8 <= bits <= 16:
        return LookupTable(fault=f"has a {name} with entries of {bits} bits; 8 to 16 are read")
    if bits == 8 and len(data) == -(-count // 2) < count:  # two entries share a word
        data = data.view(np.uint8)[:count].astype("<u2")
    if len(data) != count:
        return LookupTable(
            fault=f"has a {name} with {len(data):,} words of data for {count:,} entries"
        )
    if int(data.max()) >> bits:
        return LookupTable(fault=f"has a {name} with entries that do not fit its {bits} bits")
    return LookupTable(first=first, bits=bits, entries=data.tobytes())


def _words(item: pydicom.Dataset, tag: int) -> NDArray[np.uint16]:
    """Return a value of a look-up table as 16-bit words, (N,) little-endian uint16.

    The bytes are taken as they are in the file: the value representation, which may be US, SS or
    OW, does not change them.
    """
    element: Any = item.get_item(tag)
    if not isinstance(element, RawDataElement) or not element.value or len(element.value) % 2:
        return np.zeros(0, "<u2")
    order = "<u2" if element.is_little_endian else ">u2"
    return np.frombuffer(element.value, order).astype("<u2")


def _contradiction(values: StoredValues) -> str:
    """Return how the structure of a sample contradicts itself (PS3.5, 8.1.1), or nothing."""
    stored, allocated = values.bits_stored, values.bits_allocated
    if not 1 <= stored <= allocated:
        return f"has {stored} bits stored in {allocated} allocated"
    if not stored - 1 <= values.high_bit < allocated:
        return f"has the high bit {values.high_bit} for {stored} bits stored in {allocated}"
    if values.representation not in (0, 1):
        return f"has the pixel representation {values.representation}; only 0 and 1 are defined"
    return ""


def _unreadable(values: StoredValues) -> str:
    """Return which kind of image is not read, or nothing."""
    known = {1: GREY, 3: COLOUR}.get(values.samples, ())
    if values.photometric not in known:
        kind = values.photometric or "of no photometric interpretation"
        return f"is {kind} with {values.samples} samples; grey and RGB are read"
    if values.samples == 1:
        return ""
    if values.signed or values.unused_low_bits:
        return f"is {values.photometric} with samples that are signed or not at the low bits"
    tables = values.modality or values.presentation or values.padding
    if tables or values.slope < 0 or values.shape == INVERSE:
        return f"is {values.photometric} with what is defined for grey values alone"
    return ""


def _undefined(values: StoredValues) -> str:
    """Return why a modality or presentation transformation cannot be applied, or nothing."""
    if not math.isfinite(values.slope) or not values.slope:
        return f"has the rescale slope {values.slope:g}, where a number other than 0 is needed"
    if not math.isfinite(values.intercept):
        return f"has the rescale intercept {values.intercept:g}, where a number is needed"
    for table in (values.modality, values.presentation):
        if table and table.fault:
            return table.fault
    if values.modality and (values.slope, values.intercept) != (1, 0):
        return "has both a modality LUT and a rescale, where one excludes the other"
    if values.shape not in ("", IDENTITY, INVERSE):
        return f"has the presentation LUT shape {values.shape!r}; IDENTITY and INVERSE are read"
    if values.presentation and values.presentation.first:  # PS3.3, C.11.6.1.1: always 0
        return f"has a presentation LUT that starts at {values.presentation.first:,}, not at 0"
    # PS3.3, C.11.6: it has one or the other; and nothing says whether a table inverts.
    if values.presentation and (values.shape == INVERSE or values.photometric == "MONOCHROME1"):
        return "has a presentation LUT and is MONOCHROME1 or INVERSE, so its polarity is unknown"
    return ""
