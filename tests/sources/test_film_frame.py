import numpy as np
import pytest

from pipeline.manifest import Row
from sources.film_frame import CENTRE, LEFT, RIGHT, Box, Frame
from sources.film_steps import resize_and_pad

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
    frame = Frame(x=-80, y=31, side=700, size=224)
    corners = np.array([[100, 200], [340.5, 413.25]])
    assert np.allclose(frame.to_original(frame.to_working(corners)), corners)
    assert frame.to_working((-80, 31)).tolist() == [0, 0]
    assert frame.to_working((620, 731)).tolist() == pytest.approx([224, 224])


@pytest.mark.parametrize("frame", [Frame(-80, 31, 700, 224), Frame(20, -50, 400, 512)])
def test_masks_come_back_within_one_working_pixel(frame):
    mask = np.zeros((600, 500), np.uint8)
    mask[150:260, 200:300] = 255
    working = frame.image_to_working(mask)
    assert working.shape == (frame.size, frame.size)
    y, x = np.nonzero(working > 127)
    expected = frame.to_working([(200, 150), (300, 260)])
    found = [(x.min(), y.min()), (x.max() + 1, y.max() + 1)]
    assert np.abs(expected - found).max() <= 1
    again = frame.image_to_original(working, mask.shape)
    y, x = np.nonzero(again > 127)
    found = np.array([(x.min(), y.min()), (x.max() + 1, y.max() + 1)])
    assert np.abs(found - [(200, 150), (300, 260)]).max() <= 1 / frame.scale


def test_what_lies_outside_the_window_or_the_image_is_black():
    frame = Frame(x=400, y=500, side=300, size=150)
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
    full = Row(**(vars(row) | {"crop_x": -4, "crop_y": 2, "crop_width": 256}))
    assert Frame.of_row(full) == Frame(-4, 2, 256, 128)
