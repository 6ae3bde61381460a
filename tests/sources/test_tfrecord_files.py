import struct

import numpy as np
import pytest

from pipeline.errors import UserError
from sources.tfrecord_files import data_of, example_of, features_of, index_of, masked_crc, record_of


def content_of(*data):
    return np.frombuffer(b"".join(map(record_of, data)), np.uint8)


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksums_are_those_of_rfc_3720(data, crc):
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc(np.frombuffer(data, np.uint8)) == masked


@pytest.mark.parametrize("length", [4, 1015, 1016, 1017, 1024, 1025, 5000])
def test_a_checksum_is_that_of_one_byte_after_the_other(length):
    data = np.random.default_rng(length).integers(0, 256, length).astype(np.uint8)
    register = 0xFFFFFFFF
    for byte in data.tolist():
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    crc = register ^ 0xFFFFFFFF
    assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_record_is_framed_as_tensorflow_frames_it():
    # tf.io.TFRecordWriter writes these bytes for b"foo0".
    record = record_of(b"foo0")
    assert record[:8] == struct.pack("<Q", 4)
    assert record[12:16] == b"foo0"
    assert len(record) == 8 + 4 + 4 + 4
    content = content_of(b"foo0", b"second")
    index = index_of(content)
    assert [data_of(content, place) for place in index.places] == [b"foo0", b"second"]
    assert not index.fault


def test_an_example_is_read_packed_and_unpacked():
    # Feature "a": Int64List with values 1 and 300, one by one; feature "b": packed -1.
    unpacked = b"\x0a\x0c\x0a\x01a\x12\x07\x1a\x05\x08\x01\x08\xac\x02"
    packed = b"\x0a\x13\x0a\x01b\x12\x0e\x1a\x0c\x0a\x0a" + b"\xff" * 9 + b"\x01"
    example = b"\x0a" + bytes([len(unpacked + packed)]) + unpacked + packed
    assert features_of(example) == {"a": [1, 300], "b": [-1]}


def test_what_is_written_is_read():
    example = example_of({"image": bytes(300), "label": 3, "label_normal": 1})
    assert features_of(example) == {"image": bytes(300), "label": [3], "label_normal": [1]}
    assert features_of(example, ("label",)) == {"label": [3]}


@pytest.mark.parametrize("wrong", [b"\x0a\xff\x01x", b"\x0b\x01", b"\x0a\x03\x0a\x01\x00", b"\x80"])
def test_what_is_no_example_is_refused(wrong):
    with pytest.raises(UserError, match=r"is no tf\.train\.Example"):
        features_of(wrong)


def test_damage_is_told_by_the_record_it_hits():
    content = content_of(b"first", b"second", b"third").copy()
    flipped = content.copy()
    flipped[8 + 4 + 2] ^= 1
    index = index_of(flipped)
    assert len(index.places) == 3
    with pytest.raises(UserError, match="its checksum is wrong"):
        data_of(flipped, index.places[0])
    assert data_of(flipped, index.places[1]) == b"second"
    cut = index_of(content[:-3])
    assert len(cut.places) == 2
    assert cut.fault == "is truncated: record 2 lacks 3 bytes"
    assert index_of(content[: len(content) - 16]).fault == "is truncated: record 2 has no length"
    length = content.copy()
    length[8 + 4 + 5 + 4] ^= 1
    found = index_of(length)
    assert len(found.places) == 1
    assert found.fault.startswith("has a wrong checksum of the length of record 1")


def test_a_wrong_length_among_records_of_one_length_loses_nothing():
    content = content_of(b"record one", b"record two", b"record 3!!").copy()
    for broken in (12 + 10 + 4, 12 + 10 + 4 + 9):  # in the length, and in its checksum
        damaged = content.copy()
        damaged[broken] ^= 1
        index = index_of(damaged)
        assert not index.fault
        assert [data_of(damaged, place) for place in index.places][1:] == [
            b"record two", b"record 3!!",
        ]  # fmt: skip


def test_an_empty_file_holds_nothing():
    content = content_of(b"first")
    assert index_of(content[:0]).places == []
