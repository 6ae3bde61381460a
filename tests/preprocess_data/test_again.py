"""Preprocessing again: only what changed is made, a look costs seconds, and no kill is felt."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from images.files import read_image
from images.frame import Frame
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from preprocess_data import preprocess, preprocess_image
from sources.synthetic.stage import synthesize
from tests.conftest import OFFLINE, ROOT
from tests.preprocess_data.test_stage import contents, dataset, film, options, times

__all__ = ["dataset", "options"]  # fixtures


def garble(path):
    """Make a file useless without its size or time showing it: whoever reads it will fail."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def working(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "working").iterdir()}


@pytest.mark.parametrize(
    "change",
    [
        {"clahe_clip": 8.0},
        pytest.param({"blur": "median"}, marks=pytest.mark.slow),
        {"side": "right"},
        pytest.param({"clahe": False}, marks=pytest.mark.slow),
    ],
)
def test_another_tail_reads_no_film_again_and_gives_what_a_fresh_run_gives(
    options, tmp_path, change
):
    changed = dataclasses.replace(options, **change)
    fresh = dataclasses.replace(changed, out=tmp_path / "fresh")
    preprocess(fresh, Silent())
    preprocess(options, Silent())
    before, heads = times(options.out), working(options.out)
    shown = {"P_00000_LEFT_CC", "P_00001_LEFT_CC", "P_00002_LEFT_CC"}  # on the sheet of steps
    for row in read_manifest(options.data):
        if row.image_id not in shown:
            garble(options.data / row.path)
    preprocess(changed, Silent())
    after = times(options.out)
    assert all(after[name] != before[name] for name in after)
    assert working(options.out) == heads
    assert contents(options.out) == contents(fresh.out)


def test_another_size_reads_the_films_again(options, tmp_path):
    preprocess(options, Silent())
    smaller = dataclasses.replace(options, size=64)
    preprocess(smaller, Silent())
    fresh = dataclasses.replace(smaller, out=tmp_path / "fresh")
    preprocess(fresh, Silent())
    assert contents(options.out) == contents(fresh.out)


def test_the_same_content_under_another_time_is_not_made_again(options):
    preprocess(options, Silent())
    before = times(options.out)
    for row in read_manifest(options.data):
        os.utime(options.data / row.path, (1, 1))
    preprocess(options, Silent())
    assert times(options.out) == before
    path = options.data / read_manifest(options.data)[0].path
    path.write_bytes((options.data / read_manifest(options.data)[1].path).read_bytes())
    preprocess(options, Silent())
    after = times(options.out)
    assert [name for name in after if after[name] != before[name]] == [path.name]


# --- full size, sides


def test_size_0_writes_the_cropped_film_as_large_as_it_is(options):
    full = dataclasses.replace(options, size=0)
    preprocess(full, Silent())
    assert not (options.out / "working").exists()
    for row in read_manifest(options.out):
        assert read_image(options.out / row.path).shape == (row.height, row.width) == (174, 120)
        assert Frame.of_row(row) == Frame(0, 6, 120, 174, 120, 174)


def test_full_size_without_steps_is_the_film_itself():
    image = film(0)
    bare = Preprocess(size=0, crop="none", annotations=False, blur="none", clahe=False)
    result, frame = preprocess_image(image, bare)
    np.testing.assert_array_equal(result, np.rint(image / 257))
    assert frame == Frame(0, 0, 120, 180, 120, 180)


@pytest.mark.parametrize("wanted", ["left", "right"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_breasts_are_turned_to_one_side_and_points_follow(side, wanted):
    image = film(0, side=side)
    result, frame = preprocess_image(image, Preprocess(size=96, side=wanted))
    as_is, _ = preprocess_image(image, Preprocess(size=96))
    turned = side != wanted
    assert frame.mirrored == turned
    np.testing.assert_array_equal(result, as_is[:, ::-1] if turned else as_is)
    spot = (34, 89) if side == "left" else (120 - 34, 89)
    x, y = frame.to_working(spot).astype(int)
    assert result[y - 1 : y + 2, x - 1 : x + 2].min() > 200


def test_lesion_crops_are_not_turned():
    crop = film(0)[60:120, 10:50]
    _, frame = preprocess_image(crop, Preprocess(size=96, side="right"), "crop")
    assert not frame.mirrored


@pytest.mark.parametrize("blur", ["gaussian", "bilateral", "median"])
def test_each_blur_smooths_the_grain_and_leaves_the_background_black(blur):
    plain = Preprocess(size=0, clahe=False, blur="none")
    sharp, _ = preprocess_image(film(0), plain)
    smooth, _ = preprocess_image(film(0), dataclasses.replace(plain, blur=blur))
    grain = [np.diff(x[100:130, 5:25].astype(int)).std() for x in (smooth, sharp)]
    assert grain[0] < 0.6 * grain[1]
    assert smooth[:, -8:].max() == 0


def test_a_median_too_large_for_16_bits_is_refused_before_anything_is_written(options):
    with pytest.raises(UserError, match="--blur-kernel 7: a median of 16-bit values takes 3 or 5"):
        preprocess(dataclasses.replace(options, blur="median", blur_kernel=7), Silent())
    assert not options.out.exists()


# --- the preview


def test_a_preview_writes_a_sheet_and_nothing_else(options):
    result = preprocess(dataclasses.replace(options, preview=2), Silent())
    assert {path.name for path in options.out.iterdir()} == {"preview_trial.png", "unfinished.json"}
    sheet = cv2.imread(result.facts["preview"], cv2.IMREAD_UNCHANGED)
    assert sheet.shape[0] > 2 * (256 + 48)
    assert (result.next_stage, result.next_options["preview"]) == ("preprocess", 0)
    more = preprocess(dataclasses.replace(options, preview=5, clahe=False), Silent())
    taller = cv2.imread(more.facts["preview"], cv2.IMREAD_UNCHANGED)
    assert taller.shape[0] > sheet.shape[0]
    assert taller.shape[1] < sheet.shape[1]
    assert more.facts["images"] == 3  # there are no more to train on


def test_a_preview_leaves_a_finished_dataset_as_it_is_and_goes_with_the_next_run(options):
    preprocess(options, Silent())
    before = contents(options.out)
    preprocess(dataclasses.replace(options, preview=1, size=64), Silent())
    after = contents(options.out)
    assert after.pop("preview_trial.png")
    assert after == before
    assert (options.out / "stage.json").is_file()
    preprocess(options, Silent())
    assert contents(options.out) == before


def test_a_preview_says_which_image_cannot_be_shown(options):
    broken = options.data / "train/benign/P_00000_LEFT_CC.png"
    broken.write_bytes(broken.read_bytes()[:300])
    result = preprocess(dataclasses.replace(options, preview=3), Silent())
    assert result.facts["images"] == 2
    assert "P_00000_LEFT_CC.png: is truncated" in result.notes[0]


# --- kills


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Some dozens of films, organised."""
    from organize_data import organize

    folder = tmp_path_factory.mktemp("many")
    raw, out = folder / "raw", folder / "dataset"
    synthesize(Synthesize(out=raw, patients=14, seed=5, size="400", workers=1), Silent())
    organize(Organize(source=raw, out=out, finding="both", masks=False, workers=1), Silent())
    return out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_kills_and_ctrl_c_at_any_moment_end_in_the_same_bytes(many, tmp_path):
    flags = {"size": 300, "augment": "flip", "copies": 1}
    whole = Preprocess(data=many, out=tmp_path / "whole", **flags)
    preprocess(whole, Silent())
    out, dice = tmp_path / "out", random.Random(4)
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [
        sys.executable, str(ROOT / "main.py"), "preprocess", f"--data={many}", f"--out={out}",
        "--workers=2", "--batch", *words,
    ]  # fmt: skip

    def start():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=OFFLINE, start_new_session=True, **quiet)

    for turn in range(3):
        process, seen = start(), len(times(out)) if out.exists() else 0
        limit, enough = time.monotonic() + 60, seen + dice.randrange(1, 12)
        while process.poll() is None and (not out.exists() or len(times(out)) < enough):
            assert time.monotonic() < limit
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL if turn % 2 else signal.SIGINT)
        assert process.wait() != 0 or turn > 1
    assert start().wait() == 0
    assert contents(out) == contents(whole.out)
