from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from pipeline.errors import UserError
from sources.dicom import read_header, read_pixels

REAL = Path(__file__).parents[3] / "shared" / "real_cbis_ddsm"
RAMP = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)


def write(path, pixels, syntax=ImplicitVRLittleEndian, **values):
    """Write pixels, and header values that override what the pixels say."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["file"])
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.3.4.5", "1.2.3.4"
    data.PatientID, data.SeriesDescription = "Mass-Test_P_00001_LEFT_CC", "cropped images"
    data.Laterality, data.PatientOrientation = "L", "CC"
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    data.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = bits
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in values.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    if syntax == RLELossless:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "film.dcm"


def test_header_facts(path):
    header = read_header(write(path, RAMP))
    assert header.series_uid == "1.2.3.4.5"
    assert header.study_uid == "1.2.3.4"
    assert header.subject == "Mass-Test_P_00001_LEFT_CC"
    assert header.series_description == "cropped images"
    assert (header.laterality, header.view) == ("LEFT", "CC")
    assert (header.rows, header.columns) == (32, 32)
    assert (header.bits_allocated, header.bits_stored) == (16, 16)
    assert header.photometric == "MONOCHROME2"
    assert header.transfer_syntax == ImplicitVRLittleEndian


def test_absent_facts_are_empty(path):
    header = read_header(
        write(path, RAMP, SeriesDescription="", Laterality="", PatientOrientation="", PatientID="")
    )
    assert (header.series_description, header.subject) == ("", "")
    assert (header.laterality, header.view) == ("", "")


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian, RLELossless,
    ],
    ids=lambda syntax: syntax.name,
)  # fmt: skip
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_every_transfer_syntax_gives_the_same_pixels(path, syntax, depth):
    pixels = (RAMP >> 8).astype(np.uint8) if depth == np.uint8 else RAMP
    scale = 257 if depth == np.uint8 else 1
    image = read_pixels(write(path, pixels, syntax))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, pixels.astype(np.uint16) * scale)


def test_monochrome1_is_inverted(path):
    image = read_pixels(write(path, RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(image, 65535 - RAMP)


def test_12_bits_are_scaled_by_bits_stored_and_not_by_their_range(path):
    pixels = np.array([[0, 1, 1000], [2000, 4094, 4095]], np.uint16)
    image = read_pixels(write(path, pixels, BitsStored=12))
    np.testing.assert_array_equal(image, np.round(pixels * (65535 / 4095)))
    narrow = read_pixels(write(path, pixels[:1], BitsStored=12))
    np.testing.assert_array_equal(narrow, image[:1])


def test_bits_above_those_stored_are_ignored(path):
    image = read_pixels(write(path, np.array([[0xF000, 0xFFFF]], np.uint16), BitsStored=12))
    np.testing.assert_array_equal(image, [[0, 65535]])


def test_signed_values_start_at_their_lowest(path):
    pixels = np.array([[-32768, -1, 0, 32767]], np.int16)
    np.testing.assert_array_equal(read_pixels(write(path, pixels)), [[0, 32767, 32768, 65535]])


def test_signed_12_bits(path):
    pixels = np.array([[-2048, 0, 2047]], np.int16)
    image = read_pixels(write(path, pixels, BitsStored=12))
    np.testing.assert_array_equal(image, [[0, round(2048 * 65535 / 4095), 65535]])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_colour_becomes_luma(path, syntax):
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    image = read_pixels(write(path, pixels, syntax))
    assert list(image[0] / 257) == pytest.approx([76, 150, 29, 9], abs=0.5)  # ITU-R BT.601


def test_pixels_are_the_callers_own(path):
    image = read_pixels(write(path, RAMP))
    image += 1
    np.testing.assert_array_equal(read_pixels(path), RAMP)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "32 bits allocated"),
        ({"BitsStored": 17}, "17 bits stored"),
        ({"Rows": 0}, "0 rows"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
    ],
)
def test_what_no_mammogram_is_is_refused(path, values, reason):
    with pytest.raises(UserError, match=rf"film\.dcm: .*{reason}"):
        read_pixels(write(path, RAMP, **values))


def test_truncated_pixel_data_is_refused_and_its_header_is_read(path):
    content = write(path, RAMP).read_bytes()
    path.write_bytes(content[:-100])
    assert read_header(path).series_uid == "1.2.3.4.5"
    with pytest.raises(UserError, match=r"pixel data is truncated \(1,948 of 2,048 bytes\)"):
        read_pixels(path)


def test_truncated_compressed_pixel_data_is_refused(path):
    noise = np.random.default_rng(1).integers(0, 65535, (64, 64)).astype(np.uint16)
    content = write(path, noise, RLELossless).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"film\.dcm: "):
        read_pixels(path)


@pytest.mark.parametrize("length", [140, 200, 400, 600])
def test_a_file_cut_off_in_its_header_is_refused(path, length):
    content = write(path, RAMP).read_bytes()
    path.write_bytes(content[:length])
    with pytest.raises(UserError, match=r"cut off|damaged"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        ("Grüße: this is not an image\n".encode() * 20, "is a text file, not DICOM"),
        (bytes(range(256)) * 4, "is not DICOM"),
    ],
)
def test_what_is_not_dicom_is_refused(path, content, reason):
    path.write_bytes(content)
    for read in (read_header, read_pixels):
        with pytest.raises(UserError, match=rf"film\.dcm: {reason}"):
            read(path)


def test_a_missing_file_is_refused(path):
    with pytest.raises(UserError, match=r"film\.dcm: no such file"):
        read_pixels(path)


def test_random_damage_is_told_and_never_a_traceback(path):
    content = bytearray(write(path, RAMP).read_bytes())
    header_length = len(content) - RAMP.nbytes
    dice = np.random.default_rng(7)
    refused = 0
    for _ in range(150):
        damaged = content.copy()
        for position in dice.integers(132, header_length, 4):
            damaged[position] = dice.integers(256)
        path.write_bytes(damaged)
        try:
            read_pixels(path)
        except UserError:
            refused += 1
    assert 10 < refused < 150


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_real_files_keep_every_value():
    files = sorted(REAL.rglob("*.dcm"))
    assert len(files) == 4
    for file in files:
        np.testing.assert_array_equal(read_pixels(file), pydicom.dcmread(file).pixel_array)
        assert read_header(file).view == ("MLO" if "MLO" in str(file) else "CC")
