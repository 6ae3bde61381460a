"""Zip files read in place: every reader, the list of members, and damage of every kind told."""

import os
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from images.archives import inside, members, size_of
from images.dicom import defect, read_header, read_pixels
from images.files import is_dicom, read_bytes, read_image
from pipeline.errors import UserError

SMALL = Path(get_testdata_file("MR_small.dcm"))
GREY = np.arange(0, 64 * 48 * 16, 16, dtype=np.uint16).reshape(48, 64)
METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def pack(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def film(tmp_path):
    """A film of a megabyte: much more than is unpacked for a header."""
    data = pydicom.dcmread(SMALL)
    pixels = np.random.default_rng(3).integers(0, 65536, (800, 700)).astype("<u2")
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    data.save_as(tmp_path / "film.dcm")
    return tmp_path / "film.dcm"


def refused(path, reason):
    for read in (read_header, read_pixels, read_image, read_bytes):
        with pytest.raises(UserError, match=reason) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_members_are_the_files_that_matter_sorted_and_with_their_size(tmp_path):
    path = tmp_path / "series.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("b")
        for name in ("b/2.dcm", "b/1.dcm", "LICENSE", "/slash.dcm"):
            archive.writestr(name, b"x" * len(name) * 100)
        for name in (".hidden", "b/._1.dcm", "__MACOSX/1.dcm", ".cache/1.dcm", "../up.dcm"):
            archive.writestr(name, b"no")
    expected = [("LICENSE", 700), ("b/1.dcm", 700), ("b/2.dcm", 700), ("slash.dcm", 1000)]
    assert members(path) == expected
    assert [(name, size_of(path / name)) for name, _ in expected] == expected
    assert read_bytes(path / "slash.dcm").size == 1000


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_reader_opens_what_lies_in_a_zip_file(tmp_path, method):
    grey = cv2.imencode(".png", GREY)[1].tobytes()
    files = {"1.dcm": SMALL.read_bytes(), "2": SMALL.read_bytes(), "a/film.png": grey}
    archive = pack(tmp_path / "series.zip", files, method)
    assert [is_dicom(archive / name) for name in files] == [True, True, False]
    for name in ("1.dcm", "2"):
        assert read_header(archive / name) == read_header(SMALL)
        np.testing.assert_array_equal(read_image(archive / name), read_pixels(SMALL))
    np.testing.assert_array_equal(read_image(archive / "a" / "film.png"), GREY)
    assert read_bytes(archive / "2").tobytes() == SMALL.read_bytes()
    assert size_of(archive / "2") == size_of(SMALL) == SMALL.stat().st_size


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "RLE"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_film_in_a_zip_file_reads_as_it_does_outside(tmp_path, film, method, compressed):
    if compressed:
        data = pydicom.dcmread(film)
        data.compress(pydicom.uid.RLELossless)
        data.save_as(film)
    path = pack(tmp_path / "s.zip", {"1": film.read_bytes()}, method) / "1"
    assert read_header(path) == read_header(film)
    assert defect(read_header(path), size_of(path)) == ""
    np.testing.assert_array_equal(read_pixels(path), read_pixels(film))


def test_a_header_that_is_longer_than_usual_is_still_read(tmp_path, film):
    data = pydicom.dcmread(film)
    data.add_new(0x00091001, "OB", bytes(400_000))
    data.save_as(film)
    path = pack(tmp_path / "s.zip", {"1": film.read_bytes()}) / "1"
    assert read_header(path) == read_header(film)


def test_a_header_is_read_without_unpacking_the_pixels_behind_it(tmp_path, film):
    path = pack(tmp_path / "s.zip", {"1": film.read_bytes()}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    assert read_header(path / "1").rows == 800
    with pytest.raises(UserError, match=r"s\.zip.1: is damaged in its zip file"):
        read_pixels(path / "1")


def test_a_film_cut_off_before_it_was_packed_is_told_by_its_header(tmp_path, film):
    path = pack(tmp_path / "s.zip", {"1": film.read_bytes()[:-1000]}) / "1"
    reason = defect(read_header(path), size_of(path))
    assert re.fullmatch(r"its pixel data is truncated \(1,119,\d+ of 1,120,000 bytes\)", reason)
    with pytest.raises(UserError, match="is truncated"):
        read_pixels(path)


def test_missing_members_and_zip_files_are_told(tmp_path):
    path = pack(tmp_path / "s.zip", {"1.dcm": SMALL.read_bytes()})
    refused(path / "2.dcm", "no such file in the zip file")
    refused(path / "1.dcm" / "3.dcm", "no such file in the zip file")
    refused(tmp_path / "t.zip" / "2.dcm", "no such file")
    for missing in (path / "2.dcm", tmp_path / "t.zip" / "2.dcm"):
        with pytest.raises(UserError, match="no such file"):
            size_of(missing)
    with pytest.raises(UserError, match=r"t\.zip: no such file"):
        members(tmp_path / "t.zip")


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, -1], ids=str)
def test_a_truncated_zip_file_is_told(tmp_path, keep):
    path = pack(tmp_path / "s.zip", {"1.dcm": SMALL.read_bytes(), "2.dcm": SMALL.read_bytes()})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"s\.zip: is a zip file that is truncated or damaged"):
        members(path)
    refused(path / "1.dcm", "lies in a zip file that is truncated or damaged")


def test_a_file_that_only_claims_to_be_a_zip_file_is_told(tmp_path):
    (tmp_path / "s.zip").write_text("<html>Please log in</html>")
    with pytest.raises(UserError, match=r"s\.zip: is a zip file that is truncated or damaged"):
        members(tmp_path / "s.zip")


def test_encrypted_members_are_told(tmp_path):
    path = pack(tmp_path / "s.zip", {"1.dcm": SMALL.read_bytes()})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # both headers of the member
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    assert [name for name, _ in members(path)] == ["1.dcm"]
    refused(path / "1.dcm", "is encrypted in its zip file; unpack it with its password")


def test_other_methods_of_packing_are_told(tmp_path):
    path = pack(tmp_path / "s.zip", {"1.dcm": SMALL.read_bytes()}, zipfile.ZIP_BZIP2)
    refused(path / "1.dcm", "is packed by method 12 in its zip file; unpack the zip file")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_random_damage_is_told_and_never_gives_wrong_pixels(tmp_path, method):
    path = pack(tmp_path / "s.zip", {"1.dcm": SMALL.read_bytes()}, method)
    content, expected = path.read_bytes(), read_pixels(SMALL)
    dice = np.random.default_rng(5)
    reasons = []
    for number in range(200):
        damaged = bytearray(content)
        span = 200 if number % 2 else len(content)  # half of it in the list of members
        damaged[len(content) - 1 - int(dice.integers(span))] ^= 1 << int(dice.integers(8))
        path.write_bytes(damaged)
        os.utime(path, ns=(number, number))  # files change more slowly than this loop
        try:
            np.testing.assert_array_equal(read_pixels(path / "1.dcm"), expected)
        except UserError as error:
            reasons.append(str(error))
    assert all(reason.startswith(f"{path / '1.dcm'}: ") for reason in reasons)
    assert 100 < len(reasons) < 200


def test_a_zip_file_that_was_replaced_is_read_anew(tmp_path):
    path = pack(tmp_path / "s.zip", {"1.png": cv2.imencode(".png", GREY)[1].tobytes()})
    np.testing.assert_array_equal(read_image(path / "1.png"), GREY)
    pack(path, {"new.png": b"", "1.png": cv2.imencode(".png", GREY // 2)[1].tobytes()})
    np.testing.assert_array_equal(read_image(path / "1.png"), GREY // 2)


def test_a_folder_whose_name_ends_like_a_zip_file_is_a_folder(tmp_path):
    path = tmp_path / "s.zip" / "1.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), GREY)
    assert inside(path) is None
    np.testing.assert_array_equal(read_image(path), GREY)
    assert size_of(path) == path.stat().st_size


def test_an_empty_member_is_told(tmp_path):
    path = pack(tmp_path / "s.zip", {"1.dcm": b"", "1.png": b""})
    assert members(path) == [("1.dcm", 0), ("1.png", 0)]
    for name in ("1.dcm", "1.png"):
        with pytest.raises(UserError, match="is empty"):
            read_image(path / name)
