"""One DICOM file: what its header says, and its pixels at the full 16-bit range."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from images.dicom import colour_spread, defect, read_header, read_pixels
from models.prediction.reading import open_film
from tests.images.dicom_files import RAMP, REAL, WRITABLE, write


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


@pytest.mark.parametrize("syntax", WRITABLE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_every_transfer_syntax_gives_the_same_pixels(path, syntax, depth):
    pixels = (RAMP >> 8).astype(np.uint8) if depth == np.uint8 else RAMP
    scale = 257 if depth == np.uint8 else 1
    image = read_pixels(write(path, pixels, syntax))
    header = read_header(path)
    assert defect(header, path.stat().st_size) == header.oddity == ""
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


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_films_that_are_stored_in_colour_are_told_from_those_in_colour(path, syntax):
    grey = np.repeat(RAMP[..., None] >> 8, 3, axis=2).astype(np.uint8)
    assert colour_spread(write(path, grey, syntax)) == 0
    _, facts = open_film(path)
    assert facts["colour"] is False
    grey[..., 0] //= 2
    assert colour_spread(write(path, grey, syntax)) == pytest.approx(0.25, abs=0.01)
    _, facts = open_film(path)
    assert facts["colour"] is True


def test_pixels_are_the_callers_own(path):
    image = read_pixels(write(path, RAMP))
    image += 1
    np.testing.assert_array_equal(read_pixels(path), RAMP)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_real_files_keep_every_value():
    files = sorted(REAL.rglob("*.dcm"))
    assert len(files) == 4
    for file in files:
        np.testing.assert_array_equal(read_pixels(file), pydicom.dcmread(file).pixel_array)
        header = read_header(file)
        assert header.view == ("MLO" if "MLO" in str(file) else "CC")
        assert defect(header, file.stat().st_size) == header.oddity == ""
