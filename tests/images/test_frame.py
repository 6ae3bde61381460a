from dataclasses import replace

import numpy as np
import pytest

from images.frame import CENTRE, LEFT, RIGHT, Box, Frame
from images.steps import resize_and_pad
from pipeline.manifest import Row

BOXES = [Box(13, 7, 300, 611), Box(0, 0, 611, 300), Box(40, 2, 64, 64), Box(5, 9, 31, 50)]


@pytest.mark.parametrize("place", [LEFT, RIGHT, CENTRE])
@pytest.mark.parametrize("box", BOXES)
def test_frame_agrees_with_resize_and_pad_to_a_pixel(box, place):
    image = np.zeros((650, 680), np.uint16)
    spot = Box(box.x + box.width // 2 - 3, box.y + box.height // 3 - 3, 7, 7)
    spot.of(image)[...] = 60000
    working, scale = resize_and_pad(box.of(image), 128, place)
    frame = Frame.around(box, 128, place)
    assert frame.scale == pytest.approx(scale)
    y, x = np.nonzero(working > 0.5 * working.max())
    centre = frame.to_working((spot.x + 3.5, spot.y + 3.5))
    assert np.abs(centre - (x.mean() + 0.5, y.mean() + 0.5)).max() <= 1


def test_points_and_boxes_come_back_exactly():
    frame = Frame(-80, 31, 700, 700, 224, 224)
    corners = np.array([[100, 200], [340.5, 413.25]])
    assert np.allclose(frame.to_original(frame.to_working(corners)), corners)
    assert frame.to_working((-80, 31)).tolist() == [0, 0]
    assert frame.to_working((620, 731)).tolist() == pytest.approx([224, 224])


FRAMES = [
    Frame(-80, 31, 700, 700, 224, 224),
    Frame(20, -50, 400, 400, 512, 512),
    Frame(-80, 31, 700, 700, 224, 224, mirrored=True),
    Frame(11, 7, 480, 590, 480, 590),
    Frame(11, 7, 480, 590, 480, 590, mirrored=True),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_masks_come_back_within_one_working_pixel(frame):
    mask = np.zeros((600, 500), np.uint8)
    mask[150:260, 200:300] = 255
    working = frame.image_to_working(mask)
    assert working.shape == (frame.rows, frame.columns)
    y, x = np.nonzero(working > 127)
    expected = frame.boxes_to_working([200, 150, 300, 260])
    found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert np.abs(expected - found).max() <= 1
    again = frame.image_to_original(working, mask.shape)
    y, x = np.nonzero(again > 127)
    found = np.array([(x.min(), y.min()), (x.max() + 1, y.max() + 1)])
    assert np.abs(found - [(200, 150), (300, 260)]).max() <= 1 / frame.scale


@pytest.mark.parametrize("frame", FRAMES)
def test_points_and_boxes_come_back_from_every_frame(frame):
    points = np.random.default_rng(1).uniform(-50, 700, (2, 5, 2))
    assert np.allclose(frame.to_original(frame.to_working(points)), points)
    boxes = np.array([[100, 200, 340.5, 413.25], [0, 0, 1, 1]])
    carried = frame.boxes_to_working(boxes)
    assert (carried[:, :2] < carried[:, 2:]).all()
    assert np.allclose(frame.boxes_to_original(carried), boxes)


def test_a_mirrored_frame_is_the_same_image_from_the_other_side():
    frame, image = FRAMES[0], np.random.default_rng(2).integers(0, 255, (600, 500)).astype("u1")
    mirrored = frame.mirror()
    assert np.array_equal(mirrored.image_to_working(image), frame.image_to_working(image)[:, ::-1])
    assert mirrored.mirror() == frame
    assert mirrored.to_working((10, 20)).tolist() == pytest.approx(
        [224 - frame.to_working((10, 20))[0], frame.to_working((10, 20))[1]]
    )


def test_what_lies_outside_the_window_or_the_image_is_black():
    frame = Frame(400, 500, 300, 300, 150, 150)
    working = frame.image_to_working(np.full((600, 500), 9, np.uint8))
    assert working[:49, :49].min() == 9
    assert working[51:].max() == working[:, 51:].max() == 0
    whole = frame.image_to_original(np.full((150, 150), 7, np.uint8), (600, 500))
    assert (whole[500:, 400:] == 7).all()
    assert whole[:500].max() == whole[:, :400].max() == 0


def test_frame_of_a_row_and_of_one_that_has_none():
    row = Row(image_id="a", patient_id="p", split="train", label="benign", path="a.png", width=128)
    with pytest.raises(ValueError, match="a: has no crop box"):
        Frame.of_row(row)
    box = {"crop_x": -4, "crop_y": 2, "crop_width": 256, "crop_height": 512}
    full = Row(**(vars(row) | box | {"height": 256, "mirrored": 1}))
    assert Frame.of_row(full) == Frame(-4, 2, 256, 512, 128, 256, mirrored=True)
    with pytest.raises(ValueError, match="a: has no crop box"):
        Frame.of_row(Row(**(vars(full) | {"parent": "b"})))


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_film_maps_both_ways(turns, mirrored):
    film = np.zeros((300, 200), np.uint8)
    film[40:60, 150:180] = 255  # a lesion
    lying = np.rot90(film, turns)
    box = Box(10, 20, lying.shape[1] - 15, lying.shape[0] - 33)
    frame = Frame.around(box, 128, "right")
    frame = replace(frame, mirrored=mirrored)
    in_film = frame.of_turned(turns, film.shape)
    expected = frame.image_to_working(np.ascontiguousarray(lying))
    assert np.array_equal(in_film.image_to_working(film), expected)
    assert in_film.scale == pytest.approx(frame.scale)
    corners = np.array([[150, 40], [180, 60], [0, 0], [200, 300]])
    assert np.allclose(in_film.to_original(in_film.to_working(corners)), corners)
    ys, xs = np.nonzero(expected > 127)
    left, top, right, bottom = in_film.boxes_to_working([150, 40, 180, 60])
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(
        [left, top, right, bottom], abs=1
    )
    back = in_film.image_to_original(expected, film.shape)
    assert (back[42:58, 152:178] > 127).all()
    assert (back > 127).sum() == pytest.approx(600, rel=0.2)
    whole = Box(0, 0, 200, 300).turned(turns, film.shape)
    assert whole == Box(0, 0, lying.shape[1], lying.shape[0])
    lesion = Box(150, 40, 30, 20).turned(turns, film.shape).of(lying)
    assert (lesion == 255).all()
    assert lesion.size == 600
