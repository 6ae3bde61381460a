"""Small DICOM files for the tests: of every kind, and with a header that claims another."""

import io
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from images.dicom import read_pixels
from pipeline.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "real_cbis_ddsm"
RAMP = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
WRITABLE = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian, RLELossless,
)  # fmt: skip


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
    data.HighBit = max(0, values.get("BitsStored", bits) - 1)
    for name, value in values.items():
        setattr(data, name, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    if syntax == RLELossless:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)
    return path


def lookup_table(entries, first=0, bits=16, words=None, order="<"):
    """Return a sequence of one look-up table; `words` are its data where these differ."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = np.asarray(entries if words is None else words, f"{order}u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def claim(path, syntax):
    """Change the transfer syntax that a file claims and nothing else."""
    meta = read_file_meta_info(path)
    meta.TransferSyntaxUID = syntax
    written = io.BytesIO()
    write_file_meta_info(written, meta, enforce_standard=False)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")  # PS3.10, 7.1: the group's length
    path.write_bytes(content[:132] + written.getvalue() + content[start:])
    return path


def refusals(path, places, times, seed):
    """Count how often a file is refused of which four bytes among some places are drawn anew."""
    content = path.read_bytes()
    dice = np.random.default_rng(seed)
    refused = 0
    for _ in range(times):
        damaged = bytearray(content)
        for place in dice.choice(places, 4):
            damaged[place] = dice.integers(256)
        path.write_bytes(damaged)
        try:
            read_pixels(path)
        except UserError:
            refused += 1
    return refused
