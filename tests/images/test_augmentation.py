import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from images.augmentation import RECIPES, Augmenter, seed_for
from pipeline.options import choices_of
from pipeline.stages.data import Preprocess
from pipeline.stages.training import Train

IMAGE = np.random.default_rng(0).integers(1, 255, (48, 40), dtype=np.uint8)
FLIPS = {name: flip for name, flip in zip(
    ("none", "horizontal", "vertical", "both"),
    (IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1]),
    strict=True,
)}  # fmt: skip


@pytest.mark.parametrize("stage", [Preprocess, Train])
def test_recipes_are_what_the_stages_offer(stage):
    (item,) = (item for item in dataclasses.fields(stage) if item.name == "augment")
    assert set(choices_of(item, {})) - {"auto"} == set(RECIPES)


def test_none_returns_the_image():
    assert np.array_equal(Augmenter("none")(IMAGE, 3), IMAGE)


@pytest.mark.parametrize(("recipe", "needed"), [("none", set()), ("flip", {"albumentations"})])
def test_only_what_a_recipe_needs_is_imported(recipe, needed):
    code = (
        "import sys, numpy, images.augmentation as augmentation\n"
        f"augmentation.Augmenter({recipe!r})(numpy.zeros((8, 8), 'uint8'), 1)\n"
        "print(*sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "numpy" in done.stdout.split()
    assert {"albumentations", "torch"} & set(done.stdout.split()) == needed


@pytest.mark.parametrize("recipe", ["flip", "flip-rotate"])
def test_same_seed_same_image_in_any_order_and_any_process(recipe):
    augment = Augmenter(recipe)
    forward = [augment(IMAGE, seed) for seed in range(12)]
    backward = [augment(IMAGE, seed) for seed in reversed(range(12))][::-1]
    other = pickle.loads(pickle.dumps(augment))
    assert all(map(np.array_equal, forward, backward))
    assert all(np.array_equal(other(IMAGE, seed), forward[seed]) for seed in range(12))
    assert len({image.tobytes() for image in forward}) > 2


def test_flip_gives_each_of_the_four_orientations_about_equally_often():
    augment = Augmenter("flip")
    found = [augment(IMAGE, seed) for seed in range(200)]
    counts = [sum(np.array_equal(image, flip) for image in found) for flip in FLIPS.values()]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_rotation_is_at_most_15_degrees_black_in_the_corners_and_independent_of_flips():
    # A bright bar from the centre to the right end tells angle and flip.
    image = np.full((201, 201), 40, np.uint8)
    image[99:102, 100:] = 200
    augment = Augmenter("flip-rotate")
    angles, mirrored = [], []
    for seed in range(120):
        result = augment(image, seed)
        assert result.dtype == np.uint8
        assert result.shape == image.shape
        y, x = np.nonzero(result > 150)
        dy, dx = y.mean() - 100, x.mean() - 100
        mirrored.append(dx < 0)
        angles.append(np.degrees(np.arctan2(dy, abs(dx))))
        if abs(angles[-1]) > 3:
            assert min(result[0, 0], result[0, -1], result[-1, 0], result[-1, -1]) == 0
    angles, mirrored = np.array(angles), np.array(mirrored)
    assert 13 < np.abs(angles).max() < 15.5
    assert 0.35 < mirrored.mean() < 0.65
    # With one seed for each transform, every flip would come with the same range of angles.
    for group in (angles[mirrored], angles[~mirrored]):
        assert group.min() < -9
        assert group.max() > 9


def test_seeds_differ_by_image_turn_and_seed():
    seeds = {seed_for(*words) for words in [(1, "a", 0), (1, "b", 0), (1, "a", 1), (2, "a", 0)]}
    assert len(seeds) == 4
    assert seed_for(1, "a", 0) in seeds


def test_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="shear: not one of none, flip, flip-rotate"):
        Augmenter("shear")
