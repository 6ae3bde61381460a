"""DICOM whose stored values are not its grey values: what the standard defines, or a reason."""

import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from images.dicom import defect, read_header, read_pixels
from images.files import range_note
from pipeline.errors import UserError
from tests.images.dicom_files import RAMP, REAL, WRITABLE, lookup_table, refusals, write

SYNTAXES = pytest.mark.parametrize("syntax", WRITABLE, ids=lambda syntax: syntax.name)
TWELVE = np.array([[0, 1, 1000], [2000, 4094, 4095]], np.uint16)
TWELVE_GREY = np.round(TWELVE * (65535 / 4095))
FOUR = np.array([[0, 1, 2, 3]], np.uint16)
SIGNED = np.array([[-2, -1, 0, 1]], np.int16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "film.dcm"


def refusal(path):
    """Return what the header alone tells, which must be why the pixels are refused."""
    reason = defect(read_header(path), path.stat().st_size)
    with pytest.raises(UserError) as caught:
        read_pixels(path)
    assert str(caught.value) == f"{path}: {reason}"
    assert "\n" not in reason
    return reason


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "odd"),
    [
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME1", "INVERSE", True, False),
    ],
)
def test_polarity_by_presentation_lut_shape(path, photometric, shape, inverted, odd):
    write(path, RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    np.testing.assert_array_equal(read_pixels(path), 65535 - RAMP if inverted else RAMP)
    claim = f"its header claims {photometric} with presentation LUT shape {shape}; "
    read = "it is read with its lowest value as white"
    assert read_header(path).oddity == (claim + read if odd else "")


def test_another_presentation_lut_shape_is_refused(path):
    write(path, RAMP, PresentationLUTShape="LIN OD")
    assert "presentation LUT shape 'LIN OD'" in refusal(path)


@pytest.mark.parametrize("rescale", [(2, -1000), ("0.0000152590219", 0), (16, 0), (1, 5), (1, "")])
def test_a_rising_rescale_moves_range_and_values_alike(path, rescale):
    slope, intercept = rescale
    write(path, RAMP, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_array_equal(read_pixels(path), RAMP)


@pytest.mark.parametrize(
    ("photometric", "inverted"), [("MONOCHROME2", True), ("MONOCHROME1", False)]
)
def test_a_falling_rescale_inverts(path, photometric, inverted):
    values = {"RescaleSlope": -1, "RescaleIntercept": 65535}
    write(path, RAMP, PhotometricInterpretation=photometric, **values)
    np.testing.assert_array_equal(read_pixels(path), 65535 - RAMP if inverted else RAMP)


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("text", ["nan", "inf", "1,5", "1\\2", "0"])
def test_a_rescale_that_is_no_finite_number_or_flat_is_refused(path, name, text):
    write(path, RAMP, RescaleSlope="7.25", RescaleIntercept="7.25")
    tag = {"RescaleSlope": b"\x53\x10", "RescaleIntercept": b"\x52\x10"}[name]
    start = b"\x28\x00" + tag + b"\x04\x00\x00\x00"
    content = path.read_bytes()
    assert content.count(start + b"7.25") == 1
    path.write_bytes(content.replace(start + b"7.25", start + text.ljust(4).encode()))
    if (name, text) == ("RescaleIntercept", "0"):
        np.testing.assert_array_equal(read_pixels(path), RAMP)
    else:
        assert f"rescale {name.removeprefix('Rescale').lower()}" in refusal(path)


@SYNTAXES
def test_12_bits_at_the_top_of_16(path, syntax):
    cells = TWELVE << 4 | 0b1010  # what lies below the grey value is no part of it
    write(path, cells, syntax, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_pixels(path), TWELVE_GREY)


@SYNTAXES
def test_12_bits_in_the_middle_of_16(path, syntax):
    cells = TWELVE << 2 | 0b0100_0000_0000_0001  # an overlay above, noise below
    write(path, cells, syntax, BitsStored=12, HighBit=13)
    np.testing.assert_array_equal(read_pixels(path), TWELVE_GREY)


@SYNTAXES
def test_overlays_above_the_high_bit_are_masked_off(path, syntax):
    write(path, TWELVE | 0x5000, syntax, BitsStored=12)
    np.testing.assert_array_equal(read_pixels(path), TWELVE_GREY)


@SYNTAXES
def test_signed_12_bits_at_the_top_of_16(path, syntax):
    pixels = np.array([[-2048, 0, 2047]], np.int16) << 4
    write(path, pixels, syntax, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_pixels(path), [[0, round(2048 * 65535 / 4095), 65535]])


@pytest.mark.parametrize(
    ("pixels", "values", "reason"),
    [
        (RAMP, {"BitsStored": 12, "HighBit": 10}, "has the high bit 10 for 12 bits stored in 16"),
        (RAMP, {"BitsStored": 12, "HighBit": 16}, "has the high bit 16 for 12 bits stored in 16"),
        (RAMP, {"HighBit": 7}, "has the high bit 7 for 16 bits stored in 16"),
        (RAMP, {"BitsStored": 17}, "has 17 bits stored in 16 allocated"),
        (RAMP, {"BitsStored": 0, "HighBit": 0}, "has 0 bits stored in 16 allocated"),
        (RAMP.astype(np.uint8), {"HighBit": 15}, "has the high bit 15 for 8 bits stored in 8"),
        (RAMP, {"PixelRepresentation": 2}, "has the pixel representation 2"),
    ],
)
def test_bits_that_contradict_each_other_are_refused(path, pixels, values, reason):
    assert refusal(write(path, pixels, **values)).startswith(reason)


@pytest.mark.parametrize("photometric", ["", "PALETTE COLOR", "HSV", "RGB", "MONOCHROME3"])
def test_grey_of_an_unknown_photometric_interpretation_is_refused(path, photometric):
    write(path, RAMP, PhotometricInterpretation=photometric)
    assert "with 1 samples; grey and RGB are read" in refusal(path)


@pytest.mark.parametrize(
    ("dtype", "values", "reason"),
    [
        (np.uint8, {"PhotometricInterpretation": "MONOCHROME2"}, "is MONOCHROME2 with 3 samples"),
        (np.uint8, {"PhotometricInterpretation": "CMYK"}, "is CMYK with 3 samples"),
        (np.int8, {}, "samples that are signed"),
        (np.uint16, {"BitsStored": 12, "HighBit": 15}, "not at the low bits"),
        (np.uint8, {"PresentationLUTShape": "INVERSE"}, "defined for grey values alone"),
        (np.uint8, {"RescaleSlope": -1}, "defined for grey values alone"),
        (np.uint8, {"PixelPaddingValue": 0}, "defined for grey values alone"),
    ],
)
def test_colour_that_means_something_else_is_refused(path, dtype, values, reason):
    assert reason in refusal(write(path, np.zeros((2, 2, 3), dtype), **values))


@SYNTAXES
def test_modality_lut(path, syntax):
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    table = lookup_table([100, 7, 65535, 0], order=order)
    write(path, FOUR, syntax, ModalityLUTSequence=table)
    np.testing.assert_array_equal(read_pixels(path), [[100, 7, 65535, 0]])


@SYNTAXES
def test_modality_lut_of_8_bits_with_two_entries_in_a_word(path, syntax):
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    table = lookup_table([10, 20, 30], bits=8, words=[20 << 8 | 10, 30], order=order)
    write(path, FOUR, syntax, ModalityLUTSequence=table)
    np.testing.assert_array_equal(read_pixels(path), np.array([[10, 20, 30, 30]]) * 257)


@pytest.mark.parametrize("entries", [[10], [10, 20, 30, 255]])
def test_modality_lut_of_8_bits_with_an_entry_in_a_word(path, entries):
    write(path, FOUR, ModalityLUTSequence=lookup_table(entries, bits=8))
    wanted = [entries[min(value, len(entries) - 1)] * 257 for value in range(4)]
    np.testing.assert_array_equal(read_pixels(path), [wanted])


def test_modality_lut_of_12_bits_is_scaled_by_its_bits(path):
    write(path, FOUR, ModalityLUTSequence=lookup_table([0, 1000, 2000, 4095], bits=12))
    np.testing.assert_array_equal(read_pixels(path), [[0, 16004, 32007, 65535]])


def test_values_beside_a_modality_lut_take_its_ends(path):
    write(path, FOUR, ModalityLUTSequence=lookup_table([500, 900], first=1))
    np.testing.assert_array_equal(read_pixels(path), [[500, 500, 900, 900]])


def test_modality_lut_of_signed_values(path):
    write(path, SIGNED, ModalityLUTSequence=lookup_table([5, 6, 7, 8], first=-2))
    np.testing.assert_array_equal(read_pixels(path), [[5, 6, 7, 8]])


def test_modality_lut_before_monochrome1(path):
    table = lookup_table([100, 7, 65535, 0])
    write(path, FOUR, ModalityLUTSequence=table, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_pixels(path), [[65435, 65528, 0, 65535]])


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("folder", ["", "series.zip"])
def test_modality_lut_of_every_16_bit_value(path, undefined, folder):
    noise = np.random.default_rng(3).integers(0, 65536, (64, 64)).astype(np.uint16)
    write(path, noise, ModalityLUTSequence=lookup_table(np.arange(65536)[::-1]))
    data = pydicom.dcmread(path)
    data["ModalityLUTSequence"].is_undefined_length = undefined
    data.save_as(path)
    if folder:
        with zipfile.ZipFile(path.parent / folder, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
    np.testing.assert_array_equal(read_pixels(path.parent / folder / path.name), 65535 - noise)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "PresentationLUTSequence"])
@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (lookup_table([1, 2, 3], words=[1, 2]), "with 2 words of data for 3 entries"),
        (lookup_table([1, 2, 3], words=[1, 2, 3, 4]), "with 4 words of data for 3 entries"),
        (lookup_table(range(0), words=[1, 2]), "with 2 words of data for 65,536 entries"),
        (lookup_table([1, 2], words=[]), "with 0 words of data for 2 entries"),
        (lookup_table([1, 2, 3, 4, 5], bits=8, words=[1, 2]), "with 2 words of data"),
        (lookup_table([1, 2], bits=7), "with entries of 7 bits"),
        (lookup_table([1, 2], bits=17), "with entries of 17 bits"),
        (lookup_table([1, 4096], bits=12), "with entries that do not fit its 12 bits"),
        (lookup_table([1, 2]) + lookup_table([1, 2]), "2 items"),
    ],
)
def test_a_wrong_look_up_table_is_refused(path, name, table, reason):
    write(path, FOUR, **{name: table})
    assert name in refusal(path)
    assert reason in refusal(path)


@pytest.mark.parametrize("lacking", ["LUTDescriptor", "LUTData"])
def test_an_incomplete_look_up_table_is_refused(path, lacking):
    table = lookup_table([1, 2])
    del table[0][lacking]
    if lacking == "LUTDescriptor":
        table[0]["LUTData"].VR = "OW"
    reason = refusal(write(path, FOUR, ModalityLUTSequence=table))
    assert ("descriptor of 0 values" if lacking == "LUTDescriptor" else "0 words") in reason


def test_modality_lut_beside_a_rescale_is_refused(path):
    table = lookup_table([1, 2, 3, 4])
    write(path, FOUR, ModalityLUTSequence=table, RescaleSlope=2, RescaleIntercept=0)
    assert "both a modality LUT and a rescale" in refusal(path)
    write(path, FOUR, ModalityLUTSequence=table, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(read_pixels(path), [[1, 2, 3, 4]])


def test_presentation_lut_takes_the_range_before_it_as_its_input(path):
    table = lookup_table([0, 10, 20, 1023], bits=10)
    pixels = np.array([[0, 20000, 22000, 44000, 65535]], np.uint16)  # 0, 0.92, 1.01, 2.01, 3
    write(path, pixels, PresentationLUTSequence=table)
    wanted = np.round(np.array([[0, 10, 10, 20, 1023]]) * (65535 / 1023))
    np.testing.assert_array_equal(read_pixels(path), wanted)


def test_presentation_lut_after_modality_lut(path):
    tables = {
        "ModalityLUTSequence": lookup_table([255, 0, 85, 170], bits=8),
        "PresentationLUTSequence": lookup_table([0, 300, 200, 65535]),
    }
    write(path, FOUR, **tables)
    np.testing.assert_array_equal(read_pixels(path), [[65535, 0, 300, 200]])


def test_a_presentation_lut_that_does_not_start_at_0_is_refused(path):
    write(path, FOUR, PresentationLUTSequence=lookup_table([1, 2, 3, 4], first=1))
    assert "starts at 1, not at 0" in refusal(path)


@pytest.mark.parametrize(
    "values", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}]
)
def test_a_presentation_lut_of_unknown_polarity_is_refused(path, values):
    write(path, FOUR, PresentationLUTSequence=lookup_table([1, 2, 3, 4]), **values)
    assert "polarity is unknown" in refusal(path)


@SYNTAXES
@pytest.mark.parametrize(
    ("values", "padded"),
    [
        ({"PixelPaddingValue": 2}, [0, 1, 0, 3]),
        ({"PixelPaddingValue": 1, "PixelPaddingRangeLimit": 2}, [0, 0, 0, 3]),
        ({"PixelPaddingValue": 2, "PixelPaddingRangeLimit": 1}, [0, 0, 0, 3]),
        ({"PixelPaddingRangeLimit": 2}, [0, 1, 2, 3]),  # means nothing alone
        (
            {"PixelPaddingValue": 3, "PhotometricInterpretation": "MONOCHROME1"},
            [65535, 65534, 65533, 0],
        ),
        (
            {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"},
            [0, 65534, 65533, 65532],
        ),
        ({"PixelPaddingValue": 1, "RescaleSlope": -1}, [65535, 0, 65533, 65532]),
    ],
)
def test_padding_becomes_black(path, syntax, values, padded):
    np.testing.assert_array_equal(read_pixels(write(path, FOUR, syntax, **values)), [padded])
    assert read_header(path).oddity == ""


def test_padding_of_signed_values(path):
    write(path, SIGNED, PixelPaddingValue=-1, PixelPaddingRangeLimit=0)
    np.testing.assert_array_equal(read_pixels(path), [[32766, 0, 0, 32769]])


def test_padding_is_compared_before_the_modality_lut(path):
    write(path, FOUR, PixelPaddingValue=3, ModalityLUTSequence=lookup_table([3, 2, 1, 9]))
    np.testing.assert_array_equal(read_pixels(path), [[3, 2, 1, 0]])


def test_padding_that_no_pixel_can_have_is_told(path):
    write(path, TWELVE, BitsStored=12, PixelPaddingValue=63536)
    np.testing.assert_array_equal(read_pixels(path), TWELVE_GREY)
    assert (
        read_header(path).oddity == "its pixel padding value 63,536 is none of its 12 stored bits"
    )


@pytest.mark.parametrize("inverted", [False, True])
def test_12_bits_under_a_header_of_16_are_told_and_not_rescaled(path, inverted):
    shape = {"PresentationLUTShape": "INVERSE"} if inverted else {}
    image = read_pixels(write(path, TWELVE, **shape))
    np.testing.assert_array_equal(image, 65535 - TWELVE if inverted else TWELVE)
    ends = "61,440 to 65,535" if inverted else "0 to 4,095"
    assert range_note(image) == (
        f"its grey values are {ends} of 0 to 65,535, a sixteenth or less: "
        "does its header state too many bits?"
    )
    assert range_note(read_pixels(write(path, TWELVE, BitsStored=12))) == ""


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        ([0, 4095], True),
        ([0, 4096], False),
        ([22938, 27033], True),
        ([22938, 65535], False),
        ([7, 7], True),
        ([0, 65535], False),
    ],
)
def test_what_spans_a_sixteenth_or_less_is_noted(values, noted):
    assert bool(range_note(np.array([values], np.uint16))) == noted


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_real_files_are_not_noted():
    for file in REAL.rglob("*.dcm"):
        assert range_note(read_pixels(file)) == ""


def test_random_damage_of_look_up_tables_is_told_and_never_a_traceback(path):
    write(
        path, FOUR, ImplicitVRLittleEndian, RescaleSlope=1, RescaleIntercept=0,
        PixelPaddingValue=2, ModalityLUTSequence=lookup_table(range(64)),
        PresentationLUTSequence=lookup_table(range(64)), PresentationLUTShape="IDENTITY",
    )  # fmt: skip
    content = path.read_bytes()
    places = range(content.index(b"\x28\x00\x02\x00"), len(content) - 16)
    assert 10 < refusals(path, places, 300, seed=11) < 300
