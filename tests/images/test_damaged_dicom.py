"""DICOM files that are damaged or not what they claim: a reason, never wrong pixels or a crash."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from images.dicom import defect, read_header, read_pixels
from pipeline.errors import UserError
from tests.images.dicom_files import RAMP, REAL, WRITABLE, claim, refusals, write

COMPRESSED = (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless, JPEGLSLossless, RLELossless)
CUT = "cut off before its pixel data, or is no image"
CLAIMABLE = (*WRITABLE, *COMPRESSED[:4], MPEG2MPML, "1.2.3.4", "")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "film.dcm"


def refusal(read, path):
    """Return why a reader refuses a file; empty where it reads it."""
    try:
        read(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def told(path):
    """Return what the header alone tells, which must be why the pixels are refused."""
    reason = defect(read_header(path), path.stat().st_size)
    assert refusal(read_pixels, path) == reason
    return reason


@pytest.mark.parametrize("true", WRITABLE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("claimed", CLAIMABLE, ids=lambda syntax: str(syntax) or "nothing")
def test_a_wrong_transfer_syntax_gives_the_right_pixels_or_a_reason(path, true, claimed):
    claim(write(path, RAMP, true), claimed)
    reason = refusal(read_header, path)
    if not reason:
        reason = defect(read_header(path), path.stat().st_size)
    found = refusal(read_pixels, path)
    # Of compressed pixels only the codec can tell that they are of another kind.
    assert found == reason or (not reason and found == f"cannot be decoded as {claimed.name}")
    assert not found.startswith(str(path))
    assert "\n" not in found
    if true == claimed or not found:
        np.testing.assert_array_equal(read_pixels(path), RAMP)


@pytest.mark.parametrize(
    ("true", "claimed", "found"),
    [
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian, "implicit"),
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian, "explicit"),
    ],
)
def test_the_other_value_representation_is_read_and_told(path, true, claimed, found):
    claim(write(path, RAMP, true), claimed)
    np.testing.assert_array_equal(read_pixels(path), RAMP)
    header = read_header(path)
    assert defect(header, path.stat().st_size) == ""
    assert header.oddity == f"its header claims {claimed.name}, but its data is {found} VR"


@pytest.mark.parametrize("claimed", COMPRESSED, ids=lambda syntax: syntax.name)
def test_pixels_that_are_not_compressed_as_claimed_are_refused(path, claimed):
    claim(write(path, RAMP), claimed)
    reason = f"its header claims {claimed.name}, but its pixels are not compressed"
    assert told(path) == reason


def test_compressed_pixels_that_are_claimed_plain_are_refused(path):
    claim(write(path, RAMP, RLELossless), ExplicitVRLittleEndian)
    name = ExplicitVRLittleEndian.name
    assert told(path) == f"its header claims {name}, but its pixels are compressed"


@pytest.mark.parametrize(
    ("true", "claimed", "reason"),
    [
        (ImplicitVRLittleEndian, "1.2.3.4", "has the unknown transfer syntax '1.2.3.4'"),
        (ImplicitVRLittleEndian, "", "does not say its transfer syntax"),
        (RLELossless, MPEG2MPML, f"is compressed as {MPEG2MPML.name}, which is not read"),
    ],
)
def test_transfer_syntaxes_that_are_not_read_are_refused(path, true, claimed, reason):
    assert told(claim(write(path, RAMP, true), claimed)) == reason


@pytest.mark.parametrize(
    ("true", "claimed", "reason"),
    [
        (
            ImplicitVRLittleEndian,
            ExplicitVRBigEndian,
            "Explicit VR Big Endian, but its bytes are in the other order",
        ),
        (
            ExplicitVRBigEndian,
            ExplicitVRLittleEndian,
            "Explicit VR Little Endian, but its bytes are in the other order",
        ),
        (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, "deflated data, but it is not"),
    ],
)
def test_headers_that_cannot_be_read_as_claimed_are_refused(path, true, claimed, reason):
    claim(write(path, RAMP, true), claimed)
    for read in (read_header, read_pixels):
        assert refusal(read, path) == f"its header claims {reason}"


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
    assert reason in told(write(path, RAMP, **values))


def test_truncated_pixel_data_is_refused_and_its_header_is_read(path):
    content = write(path, RAMP).read_bytes()
    path.write_bytes(content[:-100])
    assert read_header(path).series_uid == "1.2.3.4.5"
    assert told(path) == "its pixel data is truncated (1,948 of 2,048 bytes)"


@pytest.mark.parametrize("syntax", WRITABLE[:4], ids=lambda syntax: syntax.name)
def test_pixel_data_of_another_length_than_its_header_says_is_refused(path, syntax):
    write(path, RAMP, syntax, Rows=33)
    assert told(path) == "its pixel data is truncated (2,048 of 2,112 bytes)"
    write(path, RAMP, syntax, Rows=31)
    reason = "its pixel data has the wrong size (2,048 bytes, where its 31 x 32 pixels take 1,984)"
    assert told(path) == reason


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_byte_that_makes_an_odd_length_even_is_no_damage(path, syntax):
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    data = pydicom.dcmread(write(path, pixels, syntax))
    data.PixelData = pixels.tobytes() + b"\0"
    data.save_as(path)
    assert defect(read_header(path), path.stat().st_size) == ""
    np.testing.assert_array_equal(read_pixels(path), pixels.astype(np.uint16) * 257)


def test_what_follows_the_pixels_is_no_damage(path):
    data = pydicom.dcmread(write(path, RAMP))
    data.add_new(0xFFFCFFFC, "OB", bytes(138))  # data set trailing padding
    data.save_as(path)
    assert defect(read_header(path), path.stat().st_size) == ""
    np.testing.assert_array_equal(read_pixels(path), RAMP)


@pytest.mark.parametrize("lost", [1, 8, 9, 200, 400])
def test_truncated_fragments_are_told_by_the_header(path, lost):
    noise = np.random.default_rng(1).integers(0, 65535, (64, 64)).astype(np.uint16)
    content = write(path, noise, RLELossless).read_bytes()
    assert defect(read_header(path), path.stat().st_size) == ""
    path.write_bytes(content[:-lost])
    assert "is truncated" in told(path)


def test_fragments_out_of_place_are_refused(path):
    content = bytearray(write(path, RAMP, RLELossless).read_bytes())
    content[-8:] = b"\1" * 8  # where the delimiter was
    path.write_bytes(content)
    for read in (read_header, read_pixels):
        with pytest.raises(UserError, match="pixel data is damaged"):
            read(path)


def test_truncated_compressed_pixel_data_is_refused(path):
    noise = np.random.default_rng(1).integers(0, 65535, (64, 64)).astype(np.uint16)
    content = write(path, noise, RLELossless).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"film\.dcm: "):
        read_pixels(path)


@pytest.mark.parametrize("length", [132, 140, 200, 400, 600])
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
        (np.random.default_rng(2).bytes(5000), "is not DICOM"),
    ],
    ids=["empty", "text", "every byte", "random"],
)
def test_what_is_not_dicom_is_refused(path, content, reason):
    path.write_bytes(content)
    for read in (read_header, read_pixels):
        with pytest.raises(UserError, match=rf"film\.dcm: {reason}"):
            read(path)


def test_a_missing_file_is_refused(path):
    with pytest.raises(UserError, match=r"film\.dcm: no such file"):
        read_pixels(path)


def test_a_folder_is_refused(path):
    path.mkdir()
    for read in (read_header, read_pixels):
        with pytest.raises(UserError, match=r"film\.dcm: is a folder, not an image"):
            read(path)


def test_random_damage_is_told_and_never_a_traceback(path):
    header_length = write(path, RAMP).stat().st_size - RAMP.nbytes
    assert 10 < refusals(path, range(132, header_length), 150, seed=7) < 150


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
@pytest.mark.parametrize("claimed", CLAIMABLE, ids=lambda syntax: str(syntax) or "nothing")
def test_a_real_file_under_another_transfer_syntax(path, claimed):
    real = min(REAL.rglob("*.dcm"))
    shutil.copyfile(real, path)
    claim(path, claimed)
    if claimed in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        np.testing.assert_array_equal(read_pixels(path), pydicom.dcmread(real).pixel_array)
        assert bool(read_header(path).oddity) == (claimed == ExplicitVRLittleEndian)
    elif claimed in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        with pytest.raises(UserError, match=r"film\.dcm: its header claims"):
            read_header(path)
    else:
        assert told(path) != ""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR Storage"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage"),
        ("1.2.840.10008.5.1.4.1.1.1.2", ""),  # a mammogram without its pixels
        ("1.2.3", ""),
    ],
)
def test_what_is_no_image_is_named(path, kind, name):
    data = pydicom.dcmread(write(path, RAMP))
    data.SOPClassUID = kind
    del data.PixelData, data.Rows, data.Columns
    data.save_as(path)
    found = refusal(read_header, path)
    assert found == (f"is no image ({name})" if name else f"is {CUT}")
