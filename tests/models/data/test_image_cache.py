import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from images.files import read_image
from images.square import fit_square
from models.data.loading import load_split
from pipeline.folds import apply_fold
from pipeline.manifest import SPLITS, read_manifest
from pipeline.progress import Silent
from tests.models.conftest import Listener
from tests.models.datasets import divide, make_dataset

SIDE = 24
PROGRAM = """
import hashlib, sys
from pathlib import Path
from models.data.loading import load_split
from pipeline.manifest import read_manifest
from pipeline.progress import Silent

class Loud(Silent):
    def say(self, text):
        print(text, flush=True)

folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for split in ("train", "val", "test"):
    images = load_split(folder, read_manifest(folder), split, 24, 1, Loud()).images
    print(hashlib.sha256(images[:]).hexdigest(), flush=True)
"""


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "data", {"train": 6, "val": 2, "test": 2})


@pytest.fixture
def start():
    """Start processes that load all splits of a folder as soon as they are told a line."""
    started = []

    def run(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    def say_go(process):
        process.stdin.write("\n")
        process.stdin.flush()

    run.go = say_go
    yield run
    for process in started:
        process.kill()
        process.communicate()


def load(folder, split="train", size=SIDE, rows=None, progress=None):
    return load_split(folder, rows or read_manifest(folder), split, size, 1, progress or Silent())


def directly(folder, split, size=SIDE):
    rows = [row for row in read_manifest(folder) if row.split == split]
    return np.stack([fit_square(read_image(folder / row.path), size) for row in rows])


def kept_files(folder, size=SIDE):
    return sorted((folder / ".cache").glob(f"{size}-*"))


def spoil(path):
    """Make an image unreadable behind an unchanged size and time."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("size", [SIDE, 48, 60])
def test_kept_images_are_those_that_decoding_gives(data, size):
    for _ in range(2):
        for split in SPLITS:
            assert np.array_equal(load(data, split, size).images, directly(data, split, size))


def test_the_view_is_indexed_like_an_array(data):
    images, array = load(data, "val").images, directly(data, "val")
    assert (len(images), images.shape, images.ndim) == (4, array.shape, 3)
    assert images.dtype == array.dtype
    mask = np.array([True, False, True, False])
    for key in (1, -1, np.int64(2), slice(1, 3), [3, 0], np.array([2, 2]), mask, (1, 5),
                (slice(None), 3, 4), ([0, 2], slice(2), 0)):  # fmt: skip
        assert np.array_equal(images[key], array[key])
    assert np.array_equal(np.stack(list(images)), array)
    with pytest.raises(IndexError):
        images[4]


def test_what_an_index_gives_may_be_changed_and_changes_nothing_else(data):
    images = load(data).images
    for key in (0, slice(2), [0]):
        images[key][:] = 7
    assert np.array_equal(load(data).images, directly(data, "train"))


def test_a_later_load_of_any_split_opens_no_image(data):
    expected = {split: directly(data, split) for split in SPLITS}
    load(data)
    for row in read_manifest(data):
        spoil(data / row.path)
    for split in SPLITS:
        again = load(data, split)
        assert not again.set_aside
        assert np.array_equal(again.images, expected[split])
    assert len(load(data, size=32).set_aside) == 12


def test_only_a_changed_image_is_decoded_again(data):
    load(data)
    first, second, *_ = read_manifest(data)
    before = directly(data, first.split)
    spoil(data / second.path)
    cv2.imwrite(str(data / first.path), np.full((SIDE, SIDE), 9, np.uint8))
    images = load(data, first.split).images
    assert (images[0] == 9).all()
    assert np.array_equal(images[1:], before[1:])
    assert len(kept_files(data)) == 1


def test_images_that_are_gone_leave_the_file(data):
    load(data)
    large = kept_files(data)[0].stat().st_size
    rows = read_manifest(data)
    for row in rows[:10]:
        (data / row.path).unlink()
    cv2.imwrite(str(data / rows[10].path), np.full((8, 8), 9, np.uint8))
    load(data, rows=rows[10:])
    (path,) = kept_files(data)
    assert path.stat().st_size == large - 10 * SIDE**2


def test_an_unreadable_image_is_tried_again_each_time(data):
    row = next(row for row in read_manifest(data) if row.split == "train")
    good = (data / row.path).read_bytes()
    (data / row.path).write_bytes(b"no image")
    for _ in range(2):
        split = load(data)
        assert [path for path, _ in split.set_aside] == [row.path]
        assert len(split.images) == len(split.rows) == 11
        assert row not in split.rows
    (kept,) = kept_files(data)
    (data / row.path).write_bytes(good)
    assert np.array_equal(load(data).images, directly(data, "train"))
    assert kept_files(data) != [kept]


def test_images_of_which_none_can_be_read_leave_no_file(data):
    for row in read_manifest(data):
        (data / row.path).write_bytes(b"")
    split = load(data)
    assert (len(split), split.images.shape) == (0, (0, SIDE, SIDE))
    assert len(split.set_aside) == 12
    assert not kept_files(data)


def test_folds_share_what_was_decoded(data):
    folds = divide(data, 2)
    rows = read_manifest(data)
    pictures = {row.image_id: fit_square(read_image(data / row.path), SIDE) for row in rows}
    load(data, rows=apply_fold(data, rows, 1))
    for row in rows:
        spoil(data / row.path)
    for fold in (1, 2):
        for name in ("train", "val"):
            split = load(data, name, rows=apply_fold(data, rows, fold))
            assert {folds[patient] == fold for patient in split.patients} == {name == "val"}
            for row, image in zip(split.rows, split.images, strict=True):
                assert np.array_equal(image, pictures[row.image_id])


def test_each_size_has_one_file(data):
    for size in (SIDE, 32, SIDE):
        load(data, size=size)
    cv2.imwrite(str(data / read_manifest(data)[0].path), np.zeros((9, 9), np.uint8))
    for size in (SIDE, 32):
        load(data, "test", size)
    assert [len(kept_files(data, size)) for size in (SIDE, 32)] == [1, 1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": 1}', None])
def test_a_damaged_index_is_written_again(data, text):
    load(data)
    index = data / ".cache" / f"{SIDE}.json"
    if text is None:
        facts = json.loads(index.read_text())
        text = json.dumps(facts | {"count": 10 * facts["count"]})
    index.write_text(text)
    assert np.array_equal(load(data).images, directly(data, "train"))
    assert len(kept_files(data)) == 1


def test_images_that_other_code_decoded_are_decoded_again(data):
    load(data)
    index = data / ".cache" / f"{SIDE}.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"code": "older"}))
    kept_files(data)[0].write_bytes(bytes(20 * SIDE**2))
    assert np.array_equal(load(data).images, directly(data, "train"))


def test_a_file_of_pixels_that_is_gone_or_short_is_written_again(data):
    load(data)
    kept_files(data)[0].write_bytes(b"short")
    assert np.array_equal(load(data).images, directly(data, "train"))
    kept_files(data)[0].unlink()
    assert np.array_equal(load(data).images, directly(data, "train"))


def test_a_split_without_images_is_empty(data):
    rows = [row for row in read_manifest(data) if row.split != "val"]
    split = load(data, "val", rows=rows)
    assert (len(split), split.images.shape) == (0, (0, SIDE, SIDE))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe to hold a run midway")
def test_a_killed_run_holds_nobody_up_and_leaves_nothing(data, start):
    path = data / read_manifest(data)[7].path
    whole = path.with_suffix(".whole")
    path.rename(whole)
    os.mkfifo(path)  # whoever decodes this image waits for ever
    killed = start(data)
    start.go(killed)
    wait_for(lambda: kept_files(data))
    (left,) = kept_files(data)
    listener = Listener()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(load, data, progress=listener)
        wait_for(lambda: listener.lines)
        assert "waiting for another run" in listener.lines[0]
        whole.replace(path)
        assert kept_files(data) == [left]
        killed.kill()  # SIGKILL
        images = waiting.result(timeout=60).images
    assert np.array_equal(images, directly(data, "train"))
    (kept,) = kept_files(data)
    assert kept != left
    assert not list((data / ".cache").glob(".*"))


@pytest.mark.slow
def test_runs_at_the_same_time_get_the_same_images(data, start):
    run = start(data)
    start.go(run)
    here = [load(data, split).images for split in SPLITS]
    lines = run.communicate(timeout=60)[0].splitlines()
    assert run.returncode == 0
    told = [line for line in lines if "waiting" not in line]
    for split, images, line in zip(SPLITS, here, told, strict=True):
        expected = directly(data, split)
        assert np.array_equal(images, expected)
        assert line == hashlib.sha256(expected).hexdigest()
    assert len(kept_files(data)) == 1


def test_a_full_disk_is_said_and_the_images_go_to_memory(data, monkeypatch):
    load(data, size=32)
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    listener = Listener()
    assert np.array_equal(load(data, progress=listener).images, directly(data, "train"))
    assert len(listener.lines) == 1
    assert "images go to memory (No space left on device)" in listener.lines[0]
    assert not kept_files(data)
    cv2.imwrite(str(data / read_manifest(data)[0].path), np.zeros((9, 9), np.uint8))
    for split in SPLITS:
        assert np.array_equal(load(data, split, 32).images, directly(data, split, 32))


def test_a_folder_that_may_not_be_written_is_read_all_the_same(data):
    data.chmod(0o555)
    try:
        if os.access(data, os.W_OK):
            pytest.skip("root may write everywhere")
        listener = Listener()
        assert np.array_equal(load(data, progress=listener).images, directly(data, "train"))
        assert "Permission denied" in listener.lines[0]
    finally:
        data.chmod(0o755)


def test_a_file_in_the_way_of_the_folder_is_no_obstacle(data):
    (data / ".cache").write_text("")
    listener = Listener()
    row = next(row for row in read_manifest(data) if row.split == "train")
    (data / row.path).write_bytes(b"no image")
    split = load(data, progress=listener)
    assert [path for path, _ in split.set_aside] == [row.path]
    assert row not in split.rows
    assert "images go to memory" in listener.lines[0]
    rows = [row for row in read_manifest(data) if row.split == "val"]
    assert np.array_equal(load(data, "val", rows=rows).images, directly(data, "val"))
