import cv2
import numpy as np
import pytest

from images.files import read_image
from images.thumbnails import SIDE, letterbox, thumbnail, write_contact_sheet, write_mean_images


def picture(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4801, 3083), (192, 123)),
        ((300, 500), (115, 192)),
        ((193, 193), (192, 192)),
        ((192, 80), (192, 80)),
        ((50, 40), (50, 40)),
        ((1, 4000), (1, 192)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_longest_side_is_192_pixels_and_nothing_is_enlarged(shape, expected, dtype):
    white = np.full(shape, np.iinfo(dtype).max, dtype)
    small = thumbnail(white)
    assert (small.shape, small.dtype) == (expected, np.uint8)
    assert (small == 255).all()


def test_each_pixel_is_the_mean_of_its_area():
    generator = np.random.default_rng(2)
    image = generator.integers(0, 65536, (192 * 8, 192 * 4), dtype=np.uint16)
    means = image.reshape(192, 8, 96, 8).mean(axis=(1, 3)) / 257
    assert np.abs(thumbnail(image) - means).max() <= 1
    grey = (image >> 8).astype(np.uint8)
    assert np.abs(thumbnail(grey) - means).max() <= 2
    np.testing.assert_array_equal(thumbnail(grey[:100, :100]), grey[:100, :100])


def test_a_border_of_the_film_is_still_there():
    film = np.zeros((5003, 3001), np.uint16)
    film[:, -60:] = film[-60:] = 65535
    small = thumbnail(film)
    assert (small[:, -1] > 250).all()
    assert (small[-1] > 200).all()
    assert small[:-4, :-4].max() == 0


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9)), np.zeros((0, 9))]
)
def test_what_is_no_grey_image_is_refused(image):
    with pytest.raises(ValueError, match="must be"):
        thumbnail(image)


def test_a_letterbox_is_centred():
    square = letterbox(np.full((4, 2), 9, np.uint8), 6)
    assert square.shape == (6, 6)
    assert np.argwhere(square).min(axis=0).tolist() == [1, 2]
    assert np.argwhere(square).max(axis=0).tolist() == [4, 3]
    assert square.sum() == 9 * 8


def tiles(page):
    """Return the pure white squares on a page."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((page == 255).astype(np.uint8))
    areas = [stats[index, cv2.CC_STAT_AREA] for index in range(1, count)]
    return sum(area >= SIDE * SIDE for area in areas)


@pytest.mark.parametrize(("number", "shown"), [(0, 0), (1, 1), (60, 60), (629, 60)])
def test_a_page_shows_sixty_at_most(tmp_path, number, shown):
    white = np.full((SIDE, SIDE), 255, np.uint8)
    write_contact_sheet(tmp_path / "page.png", "train", [(f"P_{n}", white) for n in range(number)])
    page = picture(tmp_path / "page.png")
    assert tiles(page) == shown
    assert 1500 < page.shape[1] <= 1600
    assert page.shape[0] < 1900


def test_a_sample_is_even_and_what_it_leaves_out_changes_nothing_but_the_count(tmp_path):
    def page(name, entries):
        write_contact_sheet(tmp_path / name, "train", entries)
        return picture(tmp_path / name)

    greys = [(f"P_{n}", np.full((SIDE, SIDE), n, np.uint8)) for n in range(178)]
    chosen = page("all.png", greys)
    every_third = page("third.png", greys[::3])  # 60 of 178: the first, the last, evenly between
    assert len(greys[::3]) == 60
    head = 34
    np.testing.assert_array_equal(chosen[head:], every_third[head:])
    assert (chosen[:head] != every_third[:head]).any(), "one of them says 60 of 178"


def test_captions_differ_and_a_long_one_stays_in_its_place(tmp_path):
    black = np.zeros((SIDE, SIDE), np.uint8)
    for name, caption in (("short", ""), ("long", "P_00001_LEFT_MLO_calcification_1" * 4)):
        entries = [(caption, black), ("", black)]
        write_contact_sheet(tmp_path / f"{name}.png", "train", entries)
    changed = np.argwhere(picture(tmp_path / "short.png") != picture(tmp_path / "long.png"))
    assert len(changed)
    assert changed[:, 1].max() < 6 + SIDE + 6
    assert changed[:, 0].min() > SIDE, "below its thumbnail"


def test_a_page_in_a_missing_folder_is_made_and_the_same_again(tmp_path):
    entries = [("P_1", np.full((100, 60), 120, np.uint8))]
    for name in ("a", "b"):
        write_contact_sheet(tmp_path / name / "page.png", "val, benign", entries)
    assert (tmp_path / "a" / "page.png").read_bytes() == (tmp_path / "b" / "page.png").read_bytes()
    assert read_image(tmp_path / "a" / "page.png").dtype == np.uint16


def test_mean_images_show_both_classes_and_their_difference(tmp_path):
    upright = [np.full((192, 96), grey, np.uint8) for grey in (100, 140)]
    lying = [np.full((96, 192), 120, np.uint8)]
    write_mean_images(tmp_path / "x.png", "title", {"benign": upright, "malignant": lying})
    page = picture(tmp_path / "x.png")
    side, head, gutter = 2 * SIDE, 34, 6
    first, second, difference = (
        page[head : head + side, gutter + n * (side + gutter) :][:, :side] for n in range(3)
    )
    middle, top, left = (side // 2, side // 2), (8, side // 2), (side // 2, 8)
    assert [int(first[place]) for place in (middle, top, left)] == [120, 120, 0]
    assert [int(second[place]) for place in (middle, top, left)] == [120, 0, 120]
    assert [int(difference[place]) for place in (middle, top, left)] == [128, 0, 255]
