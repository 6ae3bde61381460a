"""Compressed DICOM files: each transfer syntax gives the pixels that were put in."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from images.dicom import read_pixels
from pipeline.errors import UserError
from tests.images.dicom_files import write

gdcm = pytest.importorskip("gdcm")
KINDS = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    RLELossless: gdcm.TransferSyntax.RLELossless,
    JPEG2000: gdcm.TransferSyntax.JPEG2000,
    JPEGLSNearLossless: gdcm.TransferSyntax.JPEGLSNearLossless,
    JPEGBaseline8Bit: gdcm.TransferSyntax.JPEGBaselineProcess1,
}
LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


def film(bits):
    """A smooth film with grain, (96, 64), of so many bits."""
    y, x = np.mgrid[:96, :64]
    smooth = (np.sin(x / 9) + np.cos(y / 13) + 2) / 4
    grain = np.random.default_rng(2).normal(0, 0.01, smooth.shape)
    return np.clip((smooth + grain) * (2**bits - 1), 0, 2**bits - 1).astype(
        np.uint16 if bits > 8 else np.uint8
    )


def compress(path, syntax):
    """Write a file again with its pixels compressed."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(KINDS[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    return path


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_what_is_lossless_reads_as_it_does_uncompressed(tmp_path, syntax, bits):
    path = write(tmp_path / "film.dcm", film(bits), BitsStored=bits)
    plain = read_pixels(path)
    assert np.ptp(plain) > 40_000
    assert np.array_equal(read_pixels(compress(path, syntax)), plain)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, JPEGLSNearLossless],
                         ids=lambda syntax: syntax.keyword)  # fmt: skip
def test_what_is_not_lossless_differs_little(tmp_path, syntax):
    path = write(tmp_path / "film.dcm", film(8), BitsStored=8)
    plain = read_pixels(path).astype(float)
    assert np.abs(read_pixels(compress(path, syntax)) - plain).mean() < 0.01 * 65535


def test_a_compressed_film_whose_low_values_are_white_is_turned(tmp_path):
    path = write(
        tmp_path / "film.dcm", film(12), BitsStored=12, PhotometricInterpretation="MONOCHROME1"
    )
    plain = read_pixels(path)
    assert np.array_equal(read_pixels(compress(path, JPEGLossless)), plain)
    other = write(tmp_path / "other.dcm", film(12), BitsStored=12)
    assert np.array_equal(plain, 65535 - read_pixels(other))


def test_a_cut_stream_is_one_line(tmp_path):
    path = compress(write(tmp_path / "film.dcm", film(12), BitsStored=12), JPEGLossless)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"film\.dcm: "):
        read_pixels(path)
