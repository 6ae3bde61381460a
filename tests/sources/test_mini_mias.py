"""mini-MIAS, through the stages that people run."""

from collections import Counter

import cv2
import numpy as np
import pytest

from images.files import read_image
from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, read_masks
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from pipeline.tables import read_table
from sources.record_plan import live_counts
from sources.synthetic.stage import synthesize

# As in the file that comes with the collection: heading, lesions without a place, two in a film.
OFFICIAL = """==========================
INFO (8/11/95)
	7th column: Approximate radius (in pixels) of a circle enclosing the abnormality.
mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM
mdb004 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC M 500 168 26
mdb006 F NORM
mdb059 F CIRC B *NOTE 3*
mdb060 F NORM
"""


def run(source, out, **values):
    return organize(checked(Organize, {"source": source, "out": out, **values}), Silent())


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A few films under the table as it is really written."""
    folder = tmp_path_factory.mktemp("mias")
    ramp = np.add.outer(np.arange(1024), np.arange(1024)) // 9
    for number in (1, 2, 3, 4, 5, 6, 59, 60):
        film = np.roll(ramp, 37 * number, axis=0).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"mdb{number:03d}.pgm"), film)
    (folder / "Info.txt").write_text(OFFICIAL)
    return folder


def test_labels_patients_sides_and_lesions_are_those_of_the_table(official, tmp_path):
    found = run(official, tmp_path / "d", question="abnormal-normal", test_share=0.25)
    rows = {row.image_id: row for row in read_manifest(tmp_path / "d")}
    assert found.facts["images"] == 8
    assert found.facts["patients"] == 4
    assert {name: row.diagnosis for name, row in rows.items()} == {
        "mdb001": "benign", "mdb002": "benign", "mdb003": "normal", "mdb004": "normal",
        "mdb005": "malignant", "mdb006": "normal", "mdb059": "benign", "mdb060": "normal",
    }  # fmt: skip
    assert {row.label for row in rows.values() if row.diagnosis == "normal"} == {"normal"}
    assert {row.label for row in rows.values() if row.diagnosis != "normal"} == {"abnormal"}
    assert rows["mdb001"].patient_id == rows["mdb002"].patient_id != rows["mdb003"].patient_id
    assert (rows["mdb001"].laterality, rows["mdb002"].laterality) == ("LEFT", "RIGHT")
    assert rows["mdb001"].split == rows["mdb002"].split
    masks = read_masks(tmp_path / "d")
    assert {name: len(held) for name, held in masks.items()} == {
        "mdb001": 1, "mdb002": 1, "mdb005": 2,
    }  # fmt: skip
    # The centre's y is counted from the lower edge.
    ys, xs = np.nonzero(read_image(masks["mdb002"][0].path))
    assert (xs.mean(), ys.mean()) == pytest.approx((522, 1024 - 280), abs=1)
    assert (xs.max() - xs.min()) / 2 == pytest.approx(69, abs=1)


def test_damaged_members_are_set_aside_by_name_and_nothing_else_is_lost(official, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in official.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    (raw / "mdb001.pgm").write_bytes((raw / "mdb001.pgm").read_bytes()[:5000])
    (raw / "mdb003.pgm").unlink()
    assert cv2.imwrite(str(raw / "mdb004.pgm"), np.full((1024, 1024), 77, np.uint8))
    assert cv2.imwrite(str(raw / "mdb099.pgm"), np.eye(1024, dtype=np.uint8))
    with (raw / "Info.txt").open("a") as table:
        table.write("mdb002 G CIRC B 522 280 69\nmdb060 F CIRC X 1 2 3\n")
    found = run(raw, tmp_path / "d", question="benign-malignant", test_share=0.3)
    assert found.facts["images"] == 3
    reasons = {
        line.cells["what"]: line.cells["reason"]
        for line in read_table(tmp_path / "d" / "set_aside.csv", ("what", "reason")).lines
    }
    assert reasons.keys() == {"mdb001", "mdb003", "mdb099.pgm", "Info.txt: line 14"}
    assert "truncated" in reasons["mdb001"] or "damaged" in reasons["mdb001"]
    assert reasons["mdb003"].startswith("missing: ")
    assert found.set_aside == 4
    masks = read_masks(tmp_path / "d")
    assert len(masks["mdb002"]) == 1  # its line stands there twice
    checked_files = run(raw, tmp_path / "c", check=True)
    assert checked_files.facts["problems"] == {"missing": 1, "damaged": 4}
    lines = read_table(tmp_path / "c" / "check.csv", ("what", "reason")).lines
    assert {"mdb004", "mdb001"} <= {line.cells["what"] for line in lines}


def test_the_question_shows_what_each_answer_leaves(official):
    answers = {"source": official, "collection": "auto"}
    assert live_counts("question", answers) == {
        "auto": "8 images (1 malignant), 4 patients",
        "malignant-rest": "8 images (1 malignant), 4 patients",
        "benign-malignant": "4 images (1 malignant), 3 patients",
        "abnormal-normal": "8 images (4 abnormal), 4 patients",
    }


def test_a_question_with_one_answer_is_refused(official, tmp_path):
    (tmp_path / "no").write_text("mdb005\n")
    with pytest.raises(UserError, match="all 4 images are not_malignant"):
        run(official, tmp_path / "d", exclude=tmp_path / "no", view="mlo", laterality="right")


def test_the_whole_collection_is_planned_in_its_published_numbers(tmp_path):
    """322 films of 161 women: 207 normal, 63 benign, 52 malignant (Suckling et al. 1994)."""
    lines = []
    for number in range(1, 323):
        kind = "NORM" if number <= 207 else f"SPIC {'B' if number <= 270 else 'M'} 500 500 40"
        lines.append(f"mdb{number:03d} G {kind}")
        (tmp_path / f"mdb{number:03d}.pgm").write_bytes(b"P5\n1 1\n255\n\0")
    (tmp_path / "README").write_text("\n".join(lines))
    facts = run(tmp_path, tmp_path.parent / "out", dry_run=True).facts
    held = {name: facts["held"]["all"][name] for name in ("images", "patients")}
    assert held == {"images": 322, "patients": 161}
    assert {name: facts["held"]["all"][name] for name in ("normal", "benign", "malignant")} == {
        "normal": 207, "benign": 63, "malignant": 52,
    }  # fmt: skip
    splits = facts["planned"]
    assert sum(found["patients"] for found in splits.values()) == 161
    assert splits["test"]["malignant"] == pytest.approx(0.2 * 52, abs=2)


@pytest.mark.slow
def test_the_look_alike_is_organised_with_the_lesions_in_place(tmp_path):
    options = {"collection": "mini-mias", "patients": 8, "size": "256", "out": tmp_path / "raw"}
    synthesize(checked(Synthesize, options), Silent())
    again = synthesize(checked(Synthesize, options | {"out": tmp_path / "again"}), Silent())
    for path in (tmp_path / "raw").glob("mdb*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert again.facts["files"] == 16
    found = run(tmp_path / "raw", tmp_path / "d")
    assert found.facts["set_aside"] == 0
    rows = {row.image_id: row for row in read_manifest(tmp_path / "d")}
    assert Counter(row.diagnosis for row in rows.values()) == {
        "normal": 12, "benign": 2, "malignant": 2,
    }  # fmt: skip
    for name, (mask,) in read_masks(tmp_path / "d").items():
        film = read_image(tmp_path / "d" / rows[name].path)
        inside = read_image(mask.path) > 0
        # A lesion is brighter than the film as a whole, which is half background.
        assert film[inside].mean() > film.mean()
