import cv2
import numpy as np
import pytest

from images.borders import Box, find_beyond_film, find_border_box, fixed_border_box
from images.breast import breast_mask
from sources.synthetic.films import render_film
from sources.synthetic.plan import plan_collection

HEIGHT, WIDTH = 400, 260


def film(seed=0, background=0.05):
    """A breast at the left on an even background; return its pixels and mask, (H, W)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    depth = 1 - ((y - HEIGHT / 2) / (0.4 * HEIGHT)) ** 2 - (x / (0.6 * WIDTH)) ** 2
    breast = depth > 0
    cv2.circle(mask := breast.astype(np.uint8), (int(0.6 * WIDTH), HEIGHT // 2), 6, 1, -1)
    noise = cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 9)
    grey = np.where(mask > 0, 0.15 + 0.45 * np.sqrt(np.clip(depth, 0, 1)) + noise, background)
    grey += 0.006 * random.standard_normal((HEIGHT, WIDTH))
    return (np.clip(grey, 0.01, 0.9) * 65535).astype(np.uint16), mask > 0


def letters(shape, text, place, scale=0.8):
    area = np.zeros(shape, np.uint8)
    cv2.putText(area, text, place, cv2.FONT_HERSHEY_DUPLEX, scale, 255, 2)
    return area > 0


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("grey", [0, 65535])
@pytest.mark.parametrize("larger", [1, 6])
def test_a_strip_on_any_side_is_found_to_the_pixel(side, grey, larger):
    image = np.rot90(film()[0], side).copy()
    image[:, :9] = grey
    image = np.rot90(image, -side)
    image = np.repeat(np.repeat(image, larger, axis=0), larger, axis=1)
    box = find_border_box(image)
    left = [box.x, box.y, image.shape[1] - box.x - box.width, image.shape[0] - box.y - box.height]
    where = (0, 1, 2, 3)[side]  # rot90 turns the left side to the top, the right, the bottom
    found = left.pop(where)
    assert 9 * larger <= found <= 11 * larger
    assert left == [0, 0, 0]


def test_a_tilted_strip_goes_as_a_whole():
    image, _ = film()
    corners = np.array([[0, 0], [12, 0], [9, HEIGHT], [0, HEIGHT]], np.int32)
    strip = cv2.fillConvexPoly(np.zeros(image.shape, np.uint8), corners, 1) > 0
    image[strip] = 65535
    box = find_border_box(image)
    assert not box.of(strip).any()
    assert box.x <= 14


def test_black_outside_of_bright_goes_too():
    image, _ = film()
    image[:6], image[6:12] = 0, 64000
    assert find_border_box(image) == Box(0, 12, WIDTH, HEIGHT - 12)


def test_without_a_border_all_is_kept():
    image, breast = film()
    assert find_border_box(image) == Box(0, 0, WIDTH, HEIGHT)
    inside = image[130:270, :80]
    assert breast[130:270, :80].all()
    assert find_border_box(inside) == Box(0, 0, 80, 140)


@pytest.mark.parametrize("grey", [0, 30000, 65535])
def test_an_even_image_has_no_border(grey):
    assert find_border_box(np.full((80, 60), grey, np.uint16)) == Box(0, 0, 60, 80)


def test_fixed_border_box_takes_its_share_of_each_side():
    assert fixed_border_box((400, 200), 0.05) == Box(10, 20, 180, 360)


@pytest.mark.parametrize("fog", [0, 0.04])
def test_letters_plate_and_tape_are_no_breast(fog):
    image, breast = film()
    image += (np.linspace(0, fog, HEIGHT)[:, None] * 65535).astype(np.uint16)
    marks = letters(image.shape, "L CC", (170, 60))
    marks[330:370, 180:250] = True
    marks &= ~breast
    image[marks] = 55000
    tape = np.zeros(image.shape, bool)
    tape[380:395, 60:200] = True
    image[tape] = 14000
    mask = breast_mask(image)
    assert not (mask & (marks | tape)).any()
    assert (breast & ~mask).mean() < 1e-4
    assert (mask & ~breast).sum() < 0.05 * breast.sum()


def test_what_touches_the_breast_goes_and_the_nipple_stays():
    image, breast = film()
    plate = np.zeros(image.shape, bool)
    plate[230:260, 140:230] = True
    image[plate & ~breast] = 50000
    mask = breast_mask(image)
    assert (mask & plate & ~breast).sum() <= 0.01 * plate.sum()
    nipple = breast & (np.arange(WIDTH) > 0.605 * WIDTH)
    assert nipple.sum() > 20
    assert mask[nipple].all()


def test_a_film_without_a_breast_gives_an_empty_mask():
    random = np.random.default_rng(1)
    image = (3000 + 300 * random.standard_normal((HEIGHT, WIDTH))).astype(np.uint16)
    image[letters(image.shape, "R MLO", (100, 60))] = 60000
    assert not breast_mask(image).any()
    assert not breast_mask(np.zeros((60, 60), np.uint16)).any()


def test_a_breast_that_fills_the_film_is_kept_whole():
    image, _ = film()
    assert breast_mask(image[130:270, :80]).all()


def test_synthetic_films_lose_their_marks_and_keep_their_breasts_and_lesions():
    marks_left, breast_lost, lesions_kept = [], [], []
    for plan in plan_collection(5, 12)[:8]:
        truth = render_film(plan, 640, 5)
        box = find_border_box(truth.pixels)
        mask = breast_mask(box.of(truth.pixels))
        marks, breast = box.of(truth.marks) > 0, box.of(truth.breast) > 0
        marks_left.append((marks & mask).sum() / max(1, marks.sum()))
        breast_lost.append((breast & ~mask).sum() / breast.sum())
        lesions_kept += [(box.of(each) * mask).sum() / each.sum() for each in truth.lesions]
        assert box.of(truth.border).mean() < 0.001
        assert (truth.breast.sum() - breast.sum()) / truth.breast.sum() < 0.02
    assert np.mean(marks_left) <= 0.001
    assert np.mean(breast_lost) <= 0.005
    assert max(breast_lost) <= 0.02
    assert min(lesions_kept) > 0.98


def test_a_muscle_as_bright_as_the_strip_beside_it_is_not_cut_with_it():
    image, _ = film()
    y, x = np.indices(image.shape)
    image[x < 0.5 * (150 - y)] = 60000
    image[:, :7] = 65535
    assert find_border_box(image) == Box(7, 0, WIDTH - 7, HEIGHT)


@pytest.mark.parametrize("bar", [0, 1300])
def test_dark_bars_that_fill_a_film_up_to_a_square_go(bar):
    image, breast = film()
    square = np.full((HEIGHT, HEIGHT), bar, np.uint16)
    square[:, 60 : 60 + WIDTH] = image
    box = find_border_box(square)
    assert box == Box(60, 0, WIDTH, HEIGHT)
    assert (breast & ~breast_mask(box.of(square))).mean() < 1e-4


def test_a_bar_is_found_behind_a_white_strip_that_is_longer_than_the_film():
    image, breast = film()
    square = np.zeros((HEIGHT, HEIGHT), np.uint16)
    square[:, 60 : 60 + WIDTH] = image
    square[-12:, 60 : 60 + WIDTH + 30] = 65535
    box = find_border_box(square)
    assert (box.x, box.y, box.width) == (60, 0, WIDTH)
    assert box.height == pytest.approx(HEIGHT - 12, abs=2)
    kept = breast[: box.height]
    assert (kept & ~breast_mask(box.of(square))).mean() < 1e-4


def test_a_dark_background_without_a_straight_edge_is_no_bar():
    image, breast = film()
    image[~breast] = 0
    assert find_border_box(image).x == 0
    assert breast_mask(find_border_box(image).of(image)).sum() > 0.95 * breast.sum()


def test_a_faint_breast_beside_a_white_muscle_is_kept():
    image, breast = film(background=0.05)
    faint = np.where(breast, 0.06 + 0.1 * (image / 65535), image / 65535)
    y, x = np.indices(image.shape)
    faint[breast & (x < 0.5 * (200 - y))] = 0.95
    mask = breast_mask((faint * 65535).astype(np.uint16))
    assert (breast & ~mask).sum() < 0.01 * breast.sum()


def test_a_small_black_background_beside_a_dim_breast_is_found():
    image, _ = film(background=0.0)
    y, x = np.indices(image.shape)
    corner = x > 140 + 0.8 * y
    tissue = 0.12 + 0.5 * np.exp(-(((x - 90) / 60) ** 2) - ((y - 220) / 80) ** 2)
    image = (np.where(corner, 0, tissue) * 65535).astype(np.uint16)
    mask = breast_mask(image)
    assert mask[~corner].all()
    assert mask[corner].mean() < 0.1


def test_thin_skin_along_the_lower_edge_is_kept():
    image, breast = film()
    y, x = np.indices(image.shape)
    belly = (x < 70 - (HEIGHT - y)) & ~breast
    image[belly] = 20000
    mask = breast_mask(image)
    assert (belly & ~mask)[:, :55].sum() < 0.02 * belly.sum()


def test_letters_on_a_light_grey_film_go():
    image, breast = film()
    image[marks := letters(image.shape, "L CC", (170, 60)) & ~breast] = 60000
    grey = (image // 3 + np.uint16(13000)).astype(np.uint16)
    mask = breast_mask(grey)
    assert not (mask & marks).any()
    assert mask[breast].mean() > 0.98


def test_letters_on_a_film_that_darkens_to_its_corners_go():
    image, breast = film()
    y, x = np.indices(image.shape) / HEIGHT
    light = np.clip(0.22 - 0.33 * ((x - 0.65) ** 2 + (y - 0.5) ** 2), 0, 1)
    image = cv2.GaussianBlur(image, (0, 0), 1.5) // 2 + (light * 65535).astype(np.uint16)
    image[marks := letters(image.shape, "L CC", (170, 60)) & ~breast] = 60000
    mask = breast_mask(image)
    assert not (mask & marks).any()
    assert (breast & ~mask).sum() < 0.01 * breast.sum()
    assert (mask & ~breast).sum() < 0.06 * breast.sum()


def test_a_turned_edge_is_followed_along_a_muscle_nearly_as_white():
    image, breast = film()
    y, x = np.indices(image.shape)
    image[x < 0.5 * (190 - y)] = 62000
    image[beside := x < 18 - 0.04 * y] = 65535
    assert find_border_box(image) == Box(2, 0, WIDTH - 2, HEIGHT)
    assert (find_beyond_film(image) != beside).sum() <= 1.5 * HEIGHT
    mask = breast_mask(image)
    assert not (mask & beside).any()
    assert (breast & ~beside & ~mask).sum() < 0.02 * breast.sum()


def test_only_the_level_part_of_a_wedge_is_cropped():
    image, _ = film()
    y, x = np.indices(image.shape)
    image[x < 6 + 0.04 * y] = 65535
    assert find_border_box(image) == Box(6, 0, WIDTH - 6, HEIGHT)


def test_a_film_without_a_border_ends_with_the_image():
    image, _ = film()
    assert not find_beyond_film(image).any()
    y, x = np.indices(image.shape)
    image[x < 0.5 * (150 - y)] = 65535
    assert not find_beyond_film(image).any()
    assert not find_beyond_film(np.zeros((9, 4), np.uint16)).any()
    assert not find_beyond_film(np.full((90, 40), 65535, np.uint16)).any()


def test_white_in_a_rounded_corner_is_beyond_the_film():
    image, _ = film()
    y, x = np.indices(image.shape)
    corner = (x > WIDTH - 20) & (y < 20) & (np.hypot(x - (WIDTH - 20), y - 20) > 20)
    image[corner] = 65000
    found = find_beyond_film(image)
    assert found[corner].all()
    assert found.sum() < 1.5 * corner.sum()


@pytest.mark.parametrize("grey", [20000, 60000])
def test_tape_across_the_skin_line_goes(grey):
    image, breast = film()
    tape = np.zeros(image.shape, np.uint8)
    cv2.fillConvexPoly(tape, cv2.boxPoints(((165, 120), (150, 40), -8)).astype(np.int32), 1)
    assert (breast & (tape > 0)).any()
    image[tape > 0] = grey
    mask = breast_mask(image)
    assert (mask & (tape > 0) & ~breast).sum() < 0.05 * tape.sum()
    assert (breast & (tape == 0) & ~mask).sum() < 0.01 * breast.sum()
