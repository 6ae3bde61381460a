"""Bytes, ages and times in words; links are not counted."""

import pytest

from pipeline.resources.sizes import age_text, bytes_of, bytes_text, time_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (900, "900 bytes"), (1_400, "1 kB"), (2_050_000, "2.0 MB"),
     (45_300_000, "45 MB"), (400_000_000, "0.4 GB"), (163e9, "163 GB")],
)  # fmt: skip
def test_bytes_in_words(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (30, "now"), (200, "3 min"), (7200, "2 h"), (12 * 86_400, "12 d"),
     (800 * 86_400, "2 y")],
)  # fmt: skip
def test_ages_in_words(seconds, text):
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40.4, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (200_000, "2 d")],
)
def test_times_in_words(seconds, text):
    assert time_text(seconds) == text


def test_what_a_link_leads_to_is_not_counted(tmp_path):
    folder, other = tmp_path / "a", tmp_path / "b"
    for place, size in ((folder / "x" / "1", 10), (folder / "2", 5), (other / "3", 1000)):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"0" * size)
    (folder / "link").symlink_to(other)
    (folder / "file").symlink_to(other / "3")
    assert bytes_of(folder) == 15
    assert bytes_of(folder / "link") == bytes_of(folder / "none") == 0
    assert bytes_of(folder / "2") == 5
