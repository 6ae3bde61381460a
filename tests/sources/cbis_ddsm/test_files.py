import random
import shutil

import numpy as np

from images.files import write_png
from pipeline.progress import Silent
from sources.cbis_ddsm.files import index_files
from sources.cbis_ddsm.masks import is_mask


def test_files_are_known_by_their_headers_whatever_their_names(collection, tmp_path):
    plain = index_files(collection, None, 1, Silent())
    moved = tmp_path / "moved"
    files = sorted(collection.rglob("*.dcm"))
    random.Random(1).shuffle(files)
    for number, file in enumerate(files):
        target = moved / f"a {number % 7}" / ("film" if number % 2 else "") / f"{number:06d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    index = index_files(moved, None, 1, Silent())
    assert index.unreadable == ()
    assert sizes(index) == sizes(plain)
    assert len(sizes(index)) > 30


def sizes(index):
    return {uid: sorted((x.role, x.size) for x in held) for uid, held in index.series.items()}


def test_what_is_no_image_is_passed_over_and_what_should_be_one_is_told(tmp_path):
    for name in ("LICENSE", "notes.txt", "x.lnk", "._1-1.dcm", "__MACOSX/1-1.dcm", ".DS_Store"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\n" * 100)
    write_png(tmp_path / "thumbnails" / "film.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "1-1.dcm").write_text("text\n" * 100)
    (tmp_path / "1-2.DCM").write_bytes(b"")
    index = index_files(tmp_path, None, 1, Silent())
    assert index.series == {}
    assert index.unreadable == (("1-1.dcm", "is a text file, not DICOM"), ("1-2.DCM", "is empty"))


def test_a_jpeg_copy_is_known_by_its_folder(tmp_path):
    uid = "1.3.6.1.4.1.9590.100.1.2.1"
    write_png(tmp_path / "jpeg" / uid / "1-172.png", np.zeros((4, 4), np.uint8))
    index = index_files(tmp_path, None, 1, Silent())
    assert [x.name for x in index.series[uid]] == [f"jpeg/{uid}/1-172.png"]


def test_files_of_the_role_come_first_among_the_candidates_and_sound_ones_before(collection):
    index = index_files(collection, None, 1, Silent())
    pairs = [members for members in index.series.values() if len(members) == 2]
    assert len(pairs) > 5
    for members in pairs:
        series = [members[0].series]
        assert [x.role for x in index.candidates(series)] == ["image", "mask"]
        assert [x.role for x in index.of_role(series, "mask")] == ["mask"]


def test_a_truncated_file_is_known_by_its_header_and_comes_last(collection, tmp_path):
    path = next(x for x in collection.rglob("*.dcm") if len(list(x.parent.iterdir())) == 1)
    (tmp_path / "b.dcm").write_bytes(path.read_bytes())
    (tmp_path / "a.dcm").write_bytes(path.read_bytes()[:-100])
    index = index_files(tmp_path, None, 1, Silent())
    ((series, _),) = index.series.items()
    sound, cut = index.candidates([series])
    assert (sound.name, sound.defect, cut.name) == ("b.dcm", "", "a.dcm")
    assert "truncated" in cut.defect


def test_the_index_is_kept_and_only_changed_files_are_read_again(collection, tmp_path):
    keep, source = tmp_path / "keep", tmp_path / "raw"
    keep.mkdir()
    source.mkdir()
    files = sorted(collection.rglob("*.dcm"))[:5]
    for number, path in enumerate(files):
        shutil.copyfile(path, source / f"{number}.dcm")
    first = index_files(source, keep, 1, Silent())
    assert first.headers_read == 5
    second = index_files(source, keep, 1, Silent())
    assert (second.headers_read, second.series) == (0, first.series)
    shutil.copyfile(files[1], source / "0.dcm")
    (source / "4.dcm").unlink()
    third = index_files(source, keep, 1, Silent())
    assert third.headers_read == 1
    assert third.series == index_files(source, None, 1, Silent()).series


def test_a_jpeg_of_another_size_than_its_table_says_is_not_trusted(tmp_path):
    uid = "1.3.6.1.4.1.9590.100.1.2.1"
    image = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)
    write_png(tmp_path / "jpeg" / uid / "1-1.png", image)
    head = "image_path,SeriesInstanceUID,SeriesDescription,Rows,Columns,BitsAllocated"
    line = f"CBIS-DDSM/jpeg/{uid}/1-1.png,{uid},cropped images"
    (tmp_path / "info.csv").write_text(f"{head}\n{line},40,30,16\n")
    (file,) = index_files(tmp_path, None, 1, Silent()).series[uid]
    assert (file.defect, file.description) == ("", "cropped images")
    (tmp_path / "info.csv").write_text(f"{head}\n{line},50,30,16\n")
    (file,) = index_files(tmp_path, None, 1, Silent()).series[uid]
    assert file.defect == "is 30 x 40, but listed as 30 x 50"


def test_a_jpeg_that_its_table_does_not_list_is_known_by_its_size(tmp_path):
    uid = "1.3.6.1.4.1.9590.100.1.2.1"
    folder = tmp_path / "jpeg" / uid
    grain = np.random.default_rng(0).integers(0, 255, (80, 70)).astype(np.uint8)
    # One was given another name, one is a copy of it, one is of another series.
    for name, (rows, columns) in {"a": (40, 30), "b": (40, 30), "c": (50, 30)}.items():
        write_png(folder / f"{name}.png", grain[:rows, :columns])
    head = "image_path,SeriesInstanceUID,SeriesDescription,Rows,Columns,BitsAllocated"
    line = f"CBIS-DDSM/jpeg/{uid}/1-1.png,{uid},cropped images"
    (tmp_path / "info.csv").write_text(f"{head}\n{line},40,30,16\n")
    files = index_files(tmp_path, None, 1, Silent()).series[uid]
    assert {file.name[-5:-4]: (file.listed, file.defect) for file in files} == {
        "a": (True, ""),
        "b": (False, ""),
        "c": (False, "is 30 x 50, but its series is listed as 30 x 40"),
    }


def test_what_is_no_jpeg_is_told_in_the_same_words_each_time(tmp_path):
    path = tmp_path / "1.3.6.1" / "1-1.jpg"
    path.parent.mkdir()
    path.write_text("<html>not found</html>")
    ((_, reason),) = index_files(tmp_path, None, 1, Silent()).unreadable
    assert reason == "is not an image, or damaged from its beginning"


def test_a_mask_is_black_and_white_even_after_jpeg():
    mask = np.zeros((200, 200), np.uint16)
    mask[50:80, 60:90] = 65535
    assert is_mask(mask)
    ringing = mask.copy()
    ringing[50:80, 58:60] = 90 * 257
    assert is_mask(np.maximum(ringing, 8 * 257))
    assert not is_mask(np.linspace(0, 65535, 40_000).astype(np.uint16).reshape(200, 200))
