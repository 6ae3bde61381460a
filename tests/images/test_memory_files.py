"""A file in memory is read as the same file on disk."""

import numpy as np
import pytest

from images.archives import MemoryFile
from images.dicom import read_header
from images.files import is_dicom, read_image
from pipeline.errors import UserError


def in_memory(path):
    return MemoryFile(path.name, path.read_bytes())


def test_pixels_and_header_of_a_dicom_file(collection):
    path = next(path for path in sorted(collection.rglob("*.dcm")) if "full" in str(path))
    np.testing.assert_array_equal(read_image(in_memory(path)), read_image(path))
    assert read_header(in_memory(path)) == read_header(path)
    # By its content, whatever it is called.
    assert is_dicom(MemoryFile("upload", path.read_bytes()))


def test_pixels_of_a_picture(prepared):
    path = next((prepared / "dataset").rglob("*.png"))
    np.testing.assert_array_equal(read_image(in_memory(path)), read_image(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "a.png: is empty"),
        ("a.dcm", b"some text\n" * 40, "a.dcm: is a text file, not DICOM"),
        ("a.jpg", b"\xff\xd8\xff\xe0 torn", "a.jpg: cannot be decoded"),
    ],
)
def test_what_is_wrong_is_said_under_its_name(name, content, reason):
    with pytest.raises(UserError, match=reason):
        read_image(MemoryFile(name, content))


def test_what_it_holds_is_never_printed():
    assert "secret" not in repr(MemoryFile("a.dcm", b"secret"))
