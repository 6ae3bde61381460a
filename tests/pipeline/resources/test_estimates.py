"""Estimates of stages: they grow with the work, add up, and load nothing heavy."""

import subprocess
import sys

import pytest

from pipeline.resources.estimates import (
    SMALL_PIXELS,
    Estimate,
    evaluate_estimate,
    organize_estimate,
    preprocess_estimate,
    report_estimate,
    total,
)
from pipeline.resources.machine import core_speed, matrix_speed, rate
from pipeline.resources.sizes import bytes_of
from tests.conftest import ROOT

LIGHT = """
import sys
from pipeline.resources.estimates import organize_estimate, preprocess_estimate, report_estimate
for one in (organize_estimate(1592), preprocess_estimate(1592, 512), report_estimate(11)):
    assert one.seconds > 1 and one.size > 1e6, one
assert not {"numpy", "torch", "cv2"} & set(sys.modules)
"""


def test_they_grow_with_images_and_pixels():
    for estimate in (organize_estimate, lambda n, p: preprocess_estimate(n, 0, p)):
        small, many, large = estimate(40, 1e6), estimate(400, 1e6), estimate(40, 15e6)
        for more in (many, large):
            assert more.seconds > small.seconds
            assert more.size > small.size
    assert preprocess_estimate(40, 512).size > preprocess_estimate(40, 224).size
    assert evaluate_estimate(11).seconds > evaluate_estimate(1, scoring=1.0).seconds
    assert report_estimate(11).size > report_estimate(1).size


def test_they_add_up_and_what_is_not_known_stays_unknown():
    known, unknown = Estimate(60.0, 1e9), Estimate(None, 5e8)
    assert total([known, known]) == Estimate(120.0, 2e9)
    assert known + unknown == Estimate(None, 1.5e9)


def test_bytes_of_small_films_are_met(prepared):
    images = sum(1 for _ in (prepared / "dataset").glob("*/*/*.png"))
    organised = bytes_of(prepared / "dataset")
    assert 1 / 3 < organize_estimate(images, SMALL_PIXELS / 4).size / organised < 3
    made = bytes_of(prepared / "preprocessed")
    assert 1 / 3 < preprocess_estimate(images, 512, SMALL_PIXELS / 4).size / made < 3


def test_a_measurement_is_made_once_and_light():
    assert core_speed() == core_speed() > 0
    assert matrix_speed() == matrix_speed() > 0
    subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, check=True)


def test_a_pause_counts_little_for_a_speed():
    now, work = [0.0], iter([1.0, 0.01, 0.01, 5.0, 0.01, 0.01])

    def take():
        now[0] += next(work)

    assert rate(take, seconds=5.03, clock=lambda: now[0]) == pytest.approx(100)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_share_the_images(workers):
    one, some = organize_estimate(100, workers=1), organize_estimate(100, workers=workers)
    assert some.seconds <= one.seconds
    assert some.size == one.size
