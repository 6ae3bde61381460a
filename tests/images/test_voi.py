"""DICOM made for presentation is seen through its window; everything else is read as before."""

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from images.dicom import read_header, read_pixels
from tests.images.dicom_files import RAMP, lookup_table, write
from tests.images.test_compressed import compress

MADE_TO_BE_SEEN = {"SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}
TWELVE = (RAMP // 16).astype(np.uint16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "film.dcm"


def seen(path, pixels, **values):
    return read_pixels(write(path, pixels, **MADE_TO_BE_SEEN | values))


def by_pydicom(path):
    """The pixels as pydicom shows them, of 16 bits unsigned."""
    film = pydicom.dcmread(path)
    return np.rint(apply_voi_lut(film.pixel_array, film)).astype(np.uint16)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_that_of_pydicom(path, function):
    values = {"WindowCenter": 30000, "WindowWidth": 20000}
    shown = seen(path, RAMP, **values | ({"VOILUTFunction": function} if function else {}))
    np.testing.assert_array_equal(shown, by_pydicom(path))
    assert len(np.unique(shown)) > 300
    assert not np.array_equal(shown, RAMP)


def test_the_first_of_several_windows_is_taken(path):
    values = {"WindowCenter": [30000, 5000], "WindowWidth": [20000, 100]}
    shown = seen(path, RAMP, **values)
    np.testing.assert_array_equal(shown, by_pydicom(path))


def test_a_voi_table_is_that_of_pydicom_and_goes_before_the_window(path):
    rising = np.linspace(0, 1, 30001) ** 2 * 65535
    values = {"VOILUTSequence": lookup_table(rising.astype(int), first=1000)}
    shown = seen(path, RAMP, WindowCenter=3, WindowWidth=5, **values)
    np.testing.assert_array_equal(shown, by_pydicom(path))
    assert shown.max() == 65535


def test_a_damaged_voi_table_leaves_the_window(path):
    values = {"VOILUTSequence": lookup_table(range(4096), words=range(9))}
    shown = seen(path, RAMP, WindowCenter=30000, WindowWidth=20000, **values)
    np.testing.assert_array_equal(shown, seen(path, RAMP, WindowCenter=30000, WindowWidth=20000))


def test_polarity_comes_after_the_window(path):
    window = {"WindowCenter": 1000, "WindowWidth": 1500, "BitsStored": 12}
    shown = seen(path, TWELVE, **window)
    inverted = seen(path, TWELVE, PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_array_equal(inverted, 65535 - shown)


def test_a_window_is_in_units_of_what_the_rescale_gives(path):
    plain = seen(path, TWELVE, BitsStored=12, WindowCenter=1000, WindowWidth=1501)
    moved = seen(path, TWELVE, BitsStored=12, RescaleSlope=2, RescaleIntercept=-500,
                 WindowCenter=1500, WindowWidth=3001)  # fmt: skip
    assert np.abs(moved.astype(int) - plain).max() <= 30  # half a step of LINEAR's shift


@pytest.mark.parametrize(
    "values",
    [
        {"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing},
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage},
        {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage},
        {"SOPClassUID": pydicom.uid.MRImageStorage},
    ],
)
def test_what_is_not_made_to_be_seen_keeps_its_values(path, values):
    values = {"WindowCenter": 30000, "WindowWidth": 20000} | values
    np.testing.assert_array_equal(seen(path, RAMP, **values), RAMP)


@pytest.mark.parametrize(
    "values",
    [
        {"SOPClassUID": None, "PresentationIntentType": "FOR PRESENTATION"},
        {"SOPClassUID": pydicom.uid.ComputedRadiographyImageStorage},
        {"SOPClassUID": pydicom.uid.DigitalXRayImageStorageForPresentation},
    ],
)
def test_other_x_rays_made_to_be_seen_are_seen_through_their_window(path, values):
    shown = seen(path, RAMP, **{"WindowCenter": 30000, "WindowWidth": 20000} | values)
    np.testing.assert_array_equal(shown, by_pydicom(path))


def test_the_class_may_stand_in_the_file_meta_alone(path):
    values = {"WindowCenter": 30000, "WindowWidth": 20000, "SOPClassUID": None}
    np.testing.assert_array_equal(seen(path, RAMP, **values), RAMP)  # a secondary capture
    film = pydicom.dcmread(path)
    del film.SOPClassUID
    film.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    film.save_as(path)
    np.testing.assert_array_equal(read_pixels(path), by_pydicom(path))


@pytest.mark.parametrize(
    "values",
    [
        {"WindowCenter": 30000, "WindowWidth": 0},
        {"WindowCenter": 30000, "WindowWidth": 1},
        {"WindowCenter": 30000},
        {"WindowCenter": 30000, "WindowWidth": 20000, "VOILUTFunction": "LOG"},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_a_window_that_means_nothing_is_none(path, values):
    np.testing.assert_array_equal(seen(path, RAMP, **values), RAMP)


@pytest.mark.parametrize(("centre", "width"), [(60000, 1000), (32768, 65536), (-9000, 100)])
@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
def test_where_the_window_lies_beside_the_pixels_they_span_the_range(path, centre, width, function):
    eight = 100 + RAMP // 400  # of 100 to 263
    shown = seen(path, eight, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    expected = np.rint((eight - 100.0) / np.ptp(eight) * 65535)
    np.testing.assert_array_equal(shown, expected)
    values = {"PhotometricInterpretation": "MONOCHROME1", "VOILUTFunction": function}
    shown = seen(path, eight, WindowCenter=centre, WindowWidth=width, **values)
    np.testing.assert_allclose(shown, 65535 - expected, atol=1)


def test_padding_is_black_and_no_part_of_what_a_window_is_held_against(path):
    eight = 100 + RAMP // 400
    eight[:4] = 60000
    shown = seen(path, eight, WindowCenter=50000, WindowWidth=1000, PixelPaddingValue=60000)
    assert not shown[:4].any()
    assert (shown[4:].min(), shown[4:].max()) == (0, 65535)
    shown = seen(path, eight, WindowCenter=200, WindowWidth=200, PixelPaddingValue=60000)
    assert not shown[:4].any()
    assert len(np.unique(shown[4:])) > 100


def test_a_film_of_one_value_stays_one(path):
    assert len(np.unique(seen(path, RAMP * 0 + 7, WindowCenter=2000, WindowWidth=4000))) == 1


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1])
def test_values_above_the_stored_bits_stay_bright(path, syntax):
    bright = TWELVE.copy()
    bright[-1] = 5000
    values = {"WindowCenter": 2048, "WindowWidth": 4096}
    compress(write(path, bright, **values), syntax)  # as a secondary capture: all that gdcm writes
    film = pydicom.dcmread(path)
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = MADE_TO_BE_SEEN["SOPClassUID"]
    film.BitsStored, film.HighBit = 12, 11
    film.save_as(path)
    assert read_header(path).bits_stored == 12
    shown = read_pixels(path)
    assert (shown[-1] == 65535).all()
    np.testing.assert_allclose(shown[:-1], TWELVE[:-1] * (65535 / 4095), atol=1)
