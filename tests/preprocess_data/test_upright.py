"""Films that lie: the probe notices them, and one option turns them."""

import cv2
import numpy as np
import pytest

from images.borders import find_border_box
from images.steps import quarter_turns
from models.shortcuts.stage import check_shortcuts
from organize_data import organize
from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess, Probe
from preprocess_data import preprocess
from sources.synthetic.films import render_film
from sources.synthetic.plan import plan_collection
from sources.synthetic.stage import synthesize

TURNS = {"normal": 0, "benign": 0, "malignant": 1}


def stage(function, options, **values):
    return function(checked(options, values), Silent())


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """Films whose malignant ones lie on a side, organised."""
    folder = tmp_path_factory.mktemp("lying")
    raw = folder / "raw"
    stage(synthesize, Synthesize, collection="mini-mias", patients=40, out=raw, size="256", seed=3)
    for line in (raw / "Info.txt").read_text().splitlines():
        if " M " in line:
            path = raw / f"{line[:6]}.pgm"
            film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            assert cv2.imwrite(str(path), np.ascontiguousarray(np.rot90(film)))
    data = folder / "data"
    found = stage(
        organize, Organize, source=raw, out=data, masks=False, question="benign-malignant"
    )
    return data, found


@pytest.mark.slow
def test_the_probe_names_orientation_and_what_mends_it_and_is_silent_after_that(lying, tmp_path):
    data, found = lying
    warning = next(note for note in found.notes if note.startswith("orientation alone predicts"))
    assert "--upright --side left" in warning
    done = stage(
        preprocess, Preprocess, data=data, out=tmp_path / "d", size=128, upright=True, side="left"
    )
    assert "orientation" not in done.facts["shortcuts"]["summary"]
    probed = stage(check_shortcuts, Probe, data=tmp_path / "d")
    assert not probed.facts["groups"]["orientation"]["told"]
    turned = {row.image_id: row.turned for row in read_manifest(tmp_path / "d")}
    lay = {row.image_id for row in read_manifest(data) if row.diagnosis == "malignant"}
    assert sum(turned[name] % 2 for name in lay) >= 0.9 * len(lay)
    assert not any(turned[name] % 2 for name in turned.keys() - lay)


def test_films_are_turned_upright_however_they_lie():
    wrong, count = 0, 0
    for plan in plan_collection(5, 24)[:24]:
        film = render_film(plan, 320, 3).pixels
        film = np.ascontiguousarray(find_border_box(film).of(film))
        # As a film lies, it stays; of a CC view top and bottom look the same.
        expected = {0: 0, 1: 3, 2: 2, 3: 1}
        for turns, back in expected.items():
            found = quarter_turns(np.ascontiguousarray(np.rot90(film, turns)))
            same = found % 2 == back % 2 if plan.view == "CC" else found == back
            wrong, count = wrong + (not same), count + 1
    assert wrong <= 0.05 * count, (wrong, count)


def test_without_a_breast_nothing_is_turned():
    assert quarter_turns(np.zeros((300, 200), np.uint16)) == 0
