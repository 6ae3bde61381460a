import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from images.files import read_image, write_png
from images.frame import Frame
from pipeline.errors import UserError
from pipeline.manifest import Row, image_path, read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import close_folder, open_folder
from pipeline.stages.data import Organize, Preprocess
from preprocess_data import preprocess, preprocess_image

ROOT = Path(__file__).parents[2]
OWN = {"answers.json", "ledger.jsonl", "stage.json"}  # may differ between equal results


def film(seed, height=180, width=120, side="left"):
    """A breast with a bright spot on a dark film with a letter and a white border above."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    depth = 1 - ((y - height / 2) / (0.4 * height)) ** 2 - (x / (0.6 * width)) ** 2
    grey = np.where(depth > 0, 0.15 + 0.4 * np.sqrt(np.clip(depth, 0, 1)), 0.05)
    grey += 0.01 * random.standard_normal(grey.shape)
    grey[85:93, 30:38] = 0.95
    grey[40:48, 100:104] = grey[48:52, 100:110] = 0.9  # the letter
    grey = grey if side == "left" else grey[:, ::-1]
    grey[:6] = 1
    return (np.clip(grey, 0, 1) * 65535).astype(np.uint16)


PEOPLE = [
    ("train", "benign"), ("train", "malignant"), ("train", "benign"), ("val", "benign"),
    ("val", "malignant"), ("test", "malignant"),
]  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    """An organised dataset of six films, as organise leaves it."""
    return organised(tmp_path / "dataset", [film(n) for n in range(6)])


def organised(folder, images, unit="mammogram"):
    options = Organize(source=folder.parent, out=folder)
    open_folder(folder, "organize", options)
    rows = []
    for number, (image, (split, label)) in enumerate(zip(images, PEOPLE, strict=True)):
        name = f"P_{number:05}_LEFT_CC"
        path = image_path(split, label, name)
        write_png(folder / path, image)
        rows.append(
            Row(
                image_id=name,
                patient_id=f"P_{number:05}",
                split=split,
                label=label,
                path=path,
                unit=unit,
                height=image.shape[0],
                width=image.shape[1],
            )
        )
    write_manifest(folder, rows)
    close_folder(folder, "organize", options, {"images": len(rows)}, "", 0.1)
    return folder


@pytest.fixture
def options(dataset, tmp_path):
    return Preprocess(data=dataset, out=tmp_path / "out", size=96, workers=1)


def contents(folder):
    """Every file of a result with its bytes, but for the notes that name times and workers."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in OWN)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*/P_*.png")}


class Stopping(Silent):
    """Presses Ctrl-C after some images."""

    def __init__(self, after):
        self.left = after

    @contextmanager
    def track(self, text, total, unit, done=0):  # noqa: ARG002
        def advance(_steps):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


def test_writes_square_8_bit_images_in_the_same_tree_with_manifest_and_record(options):
    result = preprocess(options, Silent())
    before, rows = read_manifest(options.data), read_manifest(options.out)
    assert [row.path for row in rows] == [row.path for row in before]
    for row in rows:
        image = cv2.imread(str(options.out / row.path), cv2.IMREAD_UNCHANGED)
        assert (image.shape, image.dtype) == ((96, 96), np.uint8)
        assert (row.height, row.width) == (96, 96)
    record = json.loads((options.out / "stage.json").read_text())
    assert (record["stage"], record["state"]) == ("preprocess", "done")
    assert result.facts["images"] == record["counts"]["images"] == 6
    assert result.facts["splits"]["train"] == {
        "images": 3, "benign": 2, "malignant": 1, "augmented": 0,
    }  # fmt: skip
    assert (result.next_stage, result.next_options) == ("train", {"data": options.out})
    assert not (options.out / "set_aside.csv").exists()


def test_border_and_letter_go_and_the_spot_is_where_the_row_says(options):
    preprocess(options, Silent())
    row = read_manifest(options.out)[0]
    image = read_image(options.out / row.path)
    frame = Frame.of_row(row)
    assert (row.crop_y, row.scale) == (6, pytest.approx(96 / 174))
    x, y = frame.to_working((34, 89)).astype(int)
    assert image[y - 1 : y + 2, x - 1 : x + 2].min() > 0.8 * 65535
    assert image[:, 70:].max() == 0
    assert image[0].max() == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_breast_stays_at_its_chest_wall_edge(side):
    result, _ = preprocess_image(film(0, side=side), Preprocess(size=96))
    filled = (result > 0).any(axis=0)
    assert (filled[0], filled[-1]) == (side == "left", side == "right")


@pytest.mark.parametrize("step", ["crop", "annotations", "blur", "clahe"])
def test_each_step_can_be_switched_off(step):
    off = {"crop": "none", "annotations": False, "blur": "none", "clahe": False}
    options = Preprocess(size=96)
    every, _ = preprocess_image(film(0), options)
    without, _ = preprocess_image(film(0), dataclasses.replace(options, **{step: off[step]}))
    assert not np.array_equal(every, without)


def test_all_steps_off_only_resizes():
    options = Preprocess(size=90, crop="none", annotations=False, blur="none", clahe=False)
    image = film(0)
    result, frame = preprocess_image(image, options)
    means = image.reshape(90, 2, 60, 2).mean(axis=(1, 3)) / 257
    assert np.abs(result[:, :60] - means).max() <= 0.51
    assert result[:, 60:].max() == 0
    assert frame == Frame(0, 0, 180, 180, 90, 90)


def test_fixed_margin_is_cropped():
    _, frame = preprocess_image(film(0), Preprocess(size=96, crop="fixed", margin=0.1))
    assert (frame.x, frame.y, frame.width) == (12, 18, 144)


def test_lesion_crop_keeps_its_bright_rim_and_is_centred():
    crop = film(0)[60:120, 10:50].copy()
    crop[:4], crop[:, :4] = 65535, 65535
    options = Preprocess(size=120, blur="none", clahe=False)
    result, frame = preprocess_image(crop, options, "crop")
    assert frame == Frame(-10, 0, 60, 60, 120, 120)
    assert result[:7, 20:100].min() == result[:, 20:27].min() == 255
    assert result[:, :20].max() == result[:, 100:].max() == 0


def attempt(image, unit):
    """Return the preprocessed image, or the reason why there is none."""
    try:
        return preprocess_image(image, Preprocess(size=64), unit)[0]
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("shape", [(60, 60), (5, 5), (1, 1), (300, 9)])
@pytest.mark.parametrize("grey", ["black", "white", "noise", "tissue"])
@pytest.mark.parametrize("unit", ["mammogram", "crop"])
def test_odd_images_give_an_image_or_a_reason(shape, grey, unit):
    noise = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    image = {
        "black": np.zeros(shape, np.uint16),
        "white": np.full(shape, 65535, np.uint16),
        "noise": noise,
        "tissue": noise // 8 + np.uint16(25000),  # a breast that touches all borders
    }[grey]
    outcome = attempt(image, unit)
    if isinstance(outcome, str):
        assert outcome == "no breast can be found in it"
        assert (grey, unit) in {("black", "mammogram"), ("noise", "mammogram")}
    else:
        assert (outcome.shape, outcome.dtype) == ((64, 64), np.uint8)


def test_a_breast_that_touches_all_borders_is_kept_whole():
    inside = film(0, 900, 600)[300:600, :180]
    result, frame = preprocess_image(inside, Preprocess(size=100))
    assert frame == Frame(0, 0, 300, 300, 100, 100)
    assert (result[:, :60] > 0).mean() > 0.999


def test_two_workers_write_the_same_bytes_as_one(options, tmp_path):
    preprocess(options, Silent())
    other = dataclasses.replace(options, out=tmp_path / "two", workers=2)
    preprocess(other, Silent())
    assert contents(other.out) == contents(options.out)


def test_a_second_run_writes_nothing_again(options):
    preprocess(options, Silent())
    before = times(options.out)
    os.utime(options.data / "manifest.csv")
    preprocess(options, Silent())
    assert times(options.out) == before


@pytest.mark.parametrize(
    "after", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_stopped_run_continues_to_the_same_bytes(options, tmp_path, after):
    augmented = dataclasses.replace(options, augment="flip", copies=1)
    whole = dataclasses.replace(augmented, out=tmp_path / "whole")
    preprocess(whole, Silent())
    with pytest.raises(KeyboardInterrupt):
        preprocess(augmented, Stopping(after))
    assert not (options.out / "stage.json").exists()
    kept = times(options.out)
    assert len(kept) == after + 1
    preprocess(augmented, Silent())
    assert contents(options.out) == contents(whole.out)
    assert kept.items() <= times(options.out).items()


def test_only_the_image_that_changed_is_made_again(options):
    preprocess(options, Silent())
    before = times(options.out)
    write_png(options.data / "train/benign/P_00002_LEFT_CC.png", film(99))
    preprocess(options, Silent())
    after = times(options.out)
    assert [name for name in after if after[name] != before[name]] == ["P_00002_LEFT_CC.png"]


def test_other_options_and_back_give_the_first_bytes_even_when_stopped_between(options):
    preprocess(options, Silent())
    first = contents(options.out)
    other = dataclasses.replace(options, clahe_clip=8.0)
    with pytest.raises(KeyboardInterrupt):
        preprocess(other, Stopping(3))
    preprocess(options, Silent())
    assert contents(options.out) == first


def test_augmented_copies_are_train_only_name_their_parent_and_go_when_switched_off(options):
    augmented = dataclasses.replace(options, augment="flip", copies=2)
    result = preprocess(augmented, Silent())
    assert (result.facts["images"], result.facts["augmented"]) == (6, 6)
    copies = [row for row in read_manifest(options.out) if row.parent]
    assert {row.split for row in copies} == {"train"}
    for row in copies:
        parent = options.out / image_path(row.split, row.label, row.parent)
        assert row.image_id.startswith(f"{row.parent}_aug")
        assert row.path == image_path(row.split, row.label, row.image_id)
        assert row.crop_x is None
        image, copy = read_image(parent), read_image(options.out / row.path)
        flips = (image[:, ::-1], image[::-1], image[::-1, ::-1])
        assert sum(np.array_equal(copy, flip) for flip in flips) == 1
    before = times(options.out)
    preprocess(options, Silent())
    after = times(options.out)
    assert len(after) == 6
    assert after.items() <= before.items()
    assert not any(row.parent for row in read_manifest(options.out))


def test_another_seed_makes_other_copies_of_the_same_images(options):
    augmented = dataclasses.replace(options, augment="flip-rotate", copies=1)
    preprocess(augmented, Silent())
    before = contents(options.out)
    preprocess(dataclasses.replace(augmented, seed=7), Silent())
    after = contents(options.out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in after if "_aug1" in name}
    assert len(changed) == 3


def test_broken_and_missing_images_are_set_aside_with_the_reason(options):
    preprocess(options, Silent())
    broken = options.data / "train/benign/P_00000_LEFT_CC.png"
    broken.write_bytes(broken.read_bytes()[:400])
    (options.data / "test/malignant/P_00005_LEFT_CC.png").unlink()
    write_png(options.data / "val/benign/P_00003_LEFT_CC.png", np.zeros((180, 120), np.uint16))
    result = preprocess(options, Silent())
    assert (result.set_aside, result.facts["images"]) == (3, 3)
    listed = (options.out / "set_aside.csv").read_text().splitlines()
    assert len(listed) == 4
    assert "truncated" in listed[1]
    assert "no breast can be found" in listed[2]
    assert "no such file" in listed[3]
    names = {row.image_id for row in read_manifest(options.out)}
    assert names == {path.stem for path in options.out.glob("*/*/P_*.png")}
    assert "P_00000_LEFT_CC" not in names


def test_what_cannot_be_written_stops_the_stage_and_is_not_set_aside(options):
    preprocess(options, Silent())
    shutil.rmtree(options.out / "val")
    (options.out / "val").write_text("in the way")
    with pytest.raises(UserError, match=r"P_00003_LEFT_CC\.png: cannot be written"):
        preprocess(options, Silent())
    assert not (options.out / "stage.json").exists()


def test_nothing_usable_is_refused(options):
    for path in options.data.rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(UserError, match="not one image can be used"):
        preprocess(options, Silent())
    assert not (options.out / "stage.json").exists()


def test_a_dataset_without_images_is_refused(options):
    write_manifest(options.data, [])
    with pytest.raises(UserError, match=r"manifest\.csv: lists no image"):
        preprocess(options, Silent())


@pytest.mark.parametrize("inside", [".", "deeper/out"])
def test_output_in_the_dataset_is_refused(options, inside):
    before = contents(options.data)
    with pytest.raises(UserError, match="lies in the dataset"):
        preprocess(dataclasses.replace(options, out=options.data / inside), Silent())
    assert contents(options.data) == before


def test_only_an_organised_and_finished_dataset_is_taken(options, tmp_path):
    preprocess(options, Silent())
    again = dataclasses.replace(options, data=options.out, out=tmp_path / "again")
    with pytest.raises(UserError, match=r"was made by preprocess; run: python main\.py organize"):
        preprocess(again, Silent())
    (options.data / "stage.json").unlink()
    with pytest.raises(UserError, match="is not a folder made by organize"):
        preprocess(options, Silent())


def test_a_foreign_folder_is_not_written_to(options):
    options.out.mkdir()
    (options.out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not made by preprocess"):
        preprocess(options, Silent())
    assert [path.name for path in options.out.iterdir()] == ["thesis.txt"]


def test_preview_shows_two_patients_of_each_label_and_every_step(options):
    preprocess(options, Silent())
    sheet = cv2.imread(str(options.out / "preview.png"), cv2.IMREAD_UNCHANGED)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 3 * 256  # two benign and one malignant training image
    assert sheet.shape[1] > 6 * 256
    fewer = dataclasses.replace(options, clahe=False)
    preprocess(fewer, Silent())
    smaller = cv2.imread(str(options.out / "preview.png"), cv2.IMREAD_UNCHANGED)
    assert 5 * 256 < smaller.shape[1] < sheet.shape[1]


def test_lesion_crops_are_preprocessed_without_looking_for_a_breast(tmp_path):
    crops = [film(number)[60:120, 10:50] for number in range(6)]
    data = organised(tmp_path / "crops", crops, unit="crop")
    options = Preprocess(data=data, out=tmp_path / "out", size=96, workers=1)
    assert preprocess(options, Silent()).facts["images"] == 6
    assert {row.unit for row in read_manifest(options.out)} == {"crop"}


def test_without_augmentation_albumentations_is_not_imported(options):
    code = (
        "import sys; from pathlib import Path; from preprocess_data import preprocess;"
        "from pipeline.stages.data import Preprocess; from pipeline.progress import Silent;"
        f"preprocess(Preprocess(data=Path({str(options.data)!r}), out=Path({str(options.out)!r}),"
        "size=96, workers=1), Silent()); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "cv2" in done.stdout.split()
    assert not {"albumentations", "torch"} & set(done.stdout.split())
