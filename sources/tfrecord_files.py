"""TFRecord files and the tf.train.Example messages in them, read and written without TensorFlow.

A record is its length (uint64, little-endian), the masked CRC-32C of the length, the data, and
the masked CRC-32C of the data (tensorflow/core/lib/io/record_writer.h). PyPI's `tfrecord` reads
them too, but checks no checksum and reaches no single record without an index file of its own.
"""

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
HEAD = LENGTH.size + CHECKSUM.size
POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected (RFC 3720, appendix B.4)
MASK = 0xA282EAD8
BLOCK = 1024  # bytes whose checksums are computed side by side
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types of protocol buffers
Bytes = NDArray[np.uint8]
Feature = bytes | list[int]


@dataclass(frozen=True)
class Place:
    """Where the data of a record lie in its file, in bytes."""

    start: int
    length: int


@dataclass(frozen=True)
class Index:
    """The records of a file, and why they end before the file does; empty where they do not."""

    places: Sequence[Place]
    fault: str


def index_of(content: Bytes) -> Index:
    """Find the records of a file by their lengths; their data are not read.

    Args:
        content: (N,) uint8, the file; a memory map will do.
    """
    places: list[Place] = []
    at, size = 0, len(content)
    while at < size:
        number = len(places)
        if at + HEAD > size:
            return Index(places, f"is truncated: record {number} has no length")
        length, trusted = _length_at(content, at)
        if not trusted:
            # Another record of the usual length may follow: then this one is as long.
            usual = {length, *(place.length for place in places[-1:])}
            fitting = [one for one in usual if _follows(content, at + HEAD + one + CHECKSUM.size)]
            if len(fitting) != 1:
                left = f"the last {size - at:,} of its {size:,} bytes cannot be read"
                fault = f"has a wrong checksum of the length of record {number}: {left}"
                return Index(places, fault)
            (length,) = fitting
        place = Place(at + HEAD, length)
        at += HEAD + length + CHECKSUM.size
        if at > size:
            short = f"record {number} lacks {at - size:,} bytes"
            return Index(places, f"is truncated: {short}")
        places.append(place)
    return Index(places, "")


def _length_at(content: Bytes, at: int) -> tuple[int, bool]:
    """Return the length of the record that begins at a byte, and whether its checksum fits."""
    head = content[at : at + HEAD]
    (length,), (checksum,) = LENGTH.unpack(head[:8].tobytes()), CHECKSUM.unpack(head[8:].tobytes())
    return length, masked_crc(head[:8]) == checksum


def _follows(content: Bytes, at: int) -> bool:
    """Return whether a record begins at a byte, or the file ends there."""
    return at == len(content) or (at + HEAD <= len(content) and _length_at(content, at)[1])


def data_of(content: Bytes, place: Place) -> bytes:
    """Return the data of a record.

    Raises:
        UserError: Its checksum is wrong.
    """
    end = place.start + place.length
    data = content[place.start : end]
    (checksum,) = CHECKSUM.unpack(content[end : end + CHECKSUM.size].tobytes())
    if masked_crc(data) != checksum:
        raise UserError("its checksum is wrong: the record is damaged")
    return data.tobytes()


def masked_crc(data: Bytes) -> int:
    """Return the masked CRC-32C of (N,) uint8, N >= 4."""
    crc = _crc(data)
    return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF


def _crc(data: Bytes) -> int:
    """Return the CRC-32C of (N,) uint8, N >= 4; some 150 MB/s.

    The register is linear over GF(2): each byte adds a value that hangs on its place alone, so the
    blocks are summed side by side, and their sums are joined by four look-ups each.
    """
    table = _table()
    # Zeros in front leave a register of 0 as it is; its start of ones is put on the first 4 bytes.
    padded = np.zeros(-(-len(data) // BLOCK) * BLOCK, np.uint8)
    first = len(padded) - len(data)
    padded[first:] = data
    padded[first : first + 4] ^= 0xFF
    used = min(first, BLOCK - 8)  # of a short record the empty columns are left out
    places = np.arange(used, BLOCK) if len(padded) == BLOCK else np.arange(BLOCK)
    blocks = padded.reshape(-1, BLOCK)[:, places]  # (blocks, BLOCK)
    sums = np.bitwise_xor.reduce(table.ravel()[blocks + places * 256], axis=1)
    a, b, c, d = _heads()
    register = 0
    for part in sums.tolist():
        register = part ^ (
            a[register & 255] ^ b[register >> 8 & 255] ^ c[register >> 16 & 255] ^ d[register >> 24]
        )
    return register ^ 0xFFFFFFFF


@functools.cache
def _table() -> NDArray[np.uint32]:
    """Return what a byte at a place of a block adds to the register at its end: (BLOCK, 256)."""
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, last >> 1 ^ np.uint32(POLYNOMIAL), last >> 1)
    table = np.empty((BLOCK, 256), np.uint32)
    table[-1] = last
    for place in range(BLOCK - 2, -1, -1):
        after = table[place + 1]
        table[place] = last[after & 255] ^ after >> 8
    return table


@functools.cache
def _heads() -> list[list[int]]:
    """Return what the four bytes of the register before a block add: its first four places."""
    return [row.tolist() for row in _table()[:4]]


def features_of(example: bytes | memoryview, wanted: Sequence[str] = ()) -> dict[str, Feature]:
    """Return the features of a serialised tf.train.Example: bytes, or whole numbers.

    Args:
        example: A memory map's view will do: what is not wanted is not read.
        wanted: Which ones; all without.

    Raises:
        UserError: It is none.
    """
    found: dict[str, Feature] = {}
    try:
        for features in _parts(memoryview(example), 1):
            for entry in _parts(features, 1):
                (key,), (feature,) = _parts(entry, 1), _parts(entry, 2)
                name = bytes(key).decode()
                if not wanted or name in wanted:
                    found[name] = _value(feature)
    except (ValueError, IndexError, TypeError):  # of a message cut short, or of another kind
        raise UserError("is no tf.train.Example") from None
    return found


def _value(feature: memoryview) -> Feature:
    for kind, value in _fields(feature):
        if kind == 1:  # BytesList
            return b"".join(bytes(part) for part in _parts(_message(value), 1))
        if kind == 3:  # Int64List: packed, or one by one
            numbers: list[int] = []
            for _, one in _fields(_message(value)):
                numbers += [one] if isinstance(one, int) else _varints(one)
            return numbers
    return []  # a FloatList, which nothing here needs, or an empty feature


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError
    return value


def _parts(message: memoryview, wanted: int) -> list[memoryview]:
    """Return the fields of one number that hold bytes."""
    return [_message(value) for number, value in _fields(message) if number == wanted]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and value of each field of a message, as the wire format has them."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, value = tag & 7, 0
        if kind == VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, 0)
        if kind == BYTES:
            size, at = _varint(message, at)
        elif not size:
            raise ValueError
        if at + size > len(message):
            raise ValueError
        yield tag >> 3, message[at : at + size]
        at += size


def _varints(packed: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _varint(packed, at)
        numbers.append(number)
    return numbers


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (number - (1 << 64) if number >> 63 else number), at


def record_of(data: bytes) -> bytes:
    """Return data as a record of a TFRecord file."""
    length = LENGTH.pack(len(data))
    sums = (masked_crc(np.frombuffer(part, np.uint8)) for part in (length, data))
    return b"%b%b%b%b" % (length, CHECKSUM.pack(next(sums)), data, CHECKSUM.pack(next(sums)))


def example_of(features: Mapping[str, bytes | int]) -> bytes:
    """Return a serialised tf.train.Example of one value each."""
    entries = b""
    for key, value in features.items():
        if isinstance(value, bytes):
            feature = _field(1, _field(1, value))
        else:
            feature = _field(3, _field(1, _varint_of(value)))
        entries += _field(1, _field(1, key.encode()) + _field(2, feature))
    return _field(1, entries)


def _field(number: int, value: bytes) -> bytes:
    return _varint_of(number << 3 | BYTES) + _varint_of(len(value)) + value


def _varint_of(number: int) -> bytes:
    text = bytearray()
    while number > 127:
        text.append(number & 127 | 128)
        number >>= 7
    return bytes([*text, number])
