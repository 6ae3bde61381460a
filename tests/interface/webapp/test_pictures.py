"""What is shown of a film: exact grey values, and a heat-map that hides nothing."""

import base64

import cv2
import numpy as np
import pytest

from interface.webapp import pictures
from interface.webapp.pictures import (
    View,
    data_uri,
    first_view,
    hottest,
    overlaid,
    picture,
    reduced,
    windowed,
)

WHOLE = View(level=50, width=100)


def test_the_whole_range_is_the_film_itself():
    film = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    np.testing.assert_array_equal(picture(film, WHOLE), film // 257)


def test_a_window_spreads_its_grey_values_over_all_that_a_screen_has():
    film = np.array([[0, 13107, 26214, 39321, 65535]], np.uint16)  # 0, 20, 40, 60, 100 %
    np.testing.assert_array_equal(windowed(film, 40, 40), [[0, 0, 128, 255, 255]])


def test_a_dull_film_is_shown_over_its_own_range():
    film = np.zeros((200, 200), np.uint16)
    film[50:, :] = np.linspace(1000, 4095, 200).astype(np.uint16)  # 12 bits in 16
    grey = picture(film, first_view(film))
    assert grey[50:].min() < 10
    assert grey[50:].max() > 250


@pytest.mark.parametrize("film", [np.zeros((5, 7), np.uint16), np.full((5, 7), 65535, np.uint16)])
def test_a_film_of_one_grey_value_is_shown_as_it_is(film):
    np.testing.assert_array_equal(picture(film, first_view(film)), film // 257)


def test_the_film_is_seen_beneath_the_hottest_pixel():
    grey = np.tile(np.array([[0, 255]], np.uint8), (4, 4))
    covered = overlaid(grey, np.full(grey.shape, 255, np.uint8), 0.7).astype(int)
    assert (covered[:, 1] - covered[:, 0] > 70).all()


def test_cold_pixels_stay_as_they_are():
    heat = np.zeros((40, 40), np.uint8)
    heat[30:, 30:] = 255
    film = np.full((40, 40), 30_000, np.uint16)
    colour = picture(film, View(50, 100, heat=45), heat).astype(int)
    colour = colour.max(axis=2) - colour.min(axis=2)
    assert colour[:28, :28].max() == 0
    assert colour[33:, 33:].min() > 50


def test_a_heat_map_of_no_opacity_leaves_a_grey_picture():
    film = np.full((40, 40), 30_000, np.uint16)
    assert picture(film, WHOLE, np.full((40, 40), 255, np.uint8)).ndim == 2


@pytest.mark.parametrize(("across", "down"), [(0, 0), (50, 50), (100, 100), (97, 2)])
def test_zoom_shows_a_part_and_never_beyond_the_film(across, down):
    film = np.full((300, 200), 65535, np.uint16)
    grey = picture(film, View(50, 100, zoom=4, across=across, down=down))
    assert grey.min() == 255
    assert grey.shape == (1400, 933)


def test_zoom_shows_what_is_looked_for():
    film = np.zeros((400, 400), np.uint16)
    film[300:310, 100:110] = 65535
    heat = np.zeros((40, 40), np.uint8)
    heat[30, 10] = 255
    across, down = hottest(heat)
    grey = picture(film, View(50, 100, zoom=8, across=across, down=down))
    middle = np.argwhere(grey > 127).mean(axis=0) / grey.shape
    np.testing.assert_allclose(middle, 0.5, atol=0.15)


def test_a_large_film_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(pictures, "KEPT_PIXELS", 10_000)
    assert reduced(np.zeros((400, 200), np.uint16)).shape == (141, 71)
    small = np.zeros((40, 20), np.uint16)
    assert reduced(small) is small


def test_a_page_gets_the_grey_values_as_they_are():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    kind, _, text = data_uri(grey).partition(",")
    assert kind == "data:image/png;base64"
    content = np.frombuffer(base64.b64decode(text), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(content, cv2.IMREAD_UNCHANGED), grey)
