"""The longest benchmarks run at all: on a few small images, for the form and not the figures."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.conftest import OFFLINE, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # each is a dozen processes


def measure(name, *words):
    """Run a benchmark as a person would."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=OFFLINE,
    )


def test_codecs_are_compared_or_the_command_that_installs_them_is_named():
    result = measure("codecs", "--films", 1, "--rounds", 1, "--height", 400, "--pixels", 1)
    if importlib.util.find_spec("imagecodecs"):
        assert result.returncode == 0, result.stderr
        kinds = (f"{size}, {bits} bits" for size in ("full size", "small") for bits in (8, 16))
        assert all(
            f"{side}, {kind}" in result.stdout for kind in kinds for side in ("write", "read")
        )
        assert "images/png.py" in result.stdout.splitlines()[-1]
    else:
        assert result.returncode == 1
        assert "pip install --no-deps --target /tmp/imagecodecs imagecodecs" in result.stderr


def test_growth_measures_every_stage_and_draws_it(tmp_path):
    words = "--images", 16, 32, "--patients", 8, "--runs", 2, "--out", tmp_path
    result = measure("end_to_end.growth", *words)
    assert result.returncode == 0, result.stderr
    costs = json.loads((tmp_path / "growth.json").read_text())
    few, many = sorted({cost["images"] for cost in costs})
    assert many == 2 * few
    stages = "organize", "preprocess", "train", "evaluate", "compare", "report"
    assert [cost["stage"] for cost in costs] == [*stages, *stages]
    assert all(cost["seconds"] > 0 and cost["peak"] > 0 for cost in costs)
    assert "above linear" in result.stdout
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_both_ways_lead_from_films_to_scores(tmp_path):
    models = "ResNet18_OPW", "ResNet18_CFT"
    words = ["--films", 24, "--height", 400, "--epochs", 1, "--side", 64, "--models", *models]
    result = measure("end_to_end.whole_way", *words, "--out", tmp_path / "whole.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "whole.json").read_text())
    for way in (found["plain"], found["ours"]):
        assert way["scores"].keys() == set(models)
        assert all(way["seconds"][part] > 0 for part in ("DICOM to images", "preprocess", *models))
        assert way["peak"] > 0
        assert way["disk"] > 0
    assert "early stopping is off" in result.stdout
