import json
import os
import sys
from collections import Counter

import pytest

from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.data import Organize
from tests.organize_data.reading import contents, dicom_of, pictures, run, set_aside


class Stopping(Silent):
    """Presses Ctrl-C after some images."""

    def __init__(self, after):
        self.after = after

    def track(self, text, total, unit, done=0):
        bar = super().track(text, total, unit, done)
        return bar if unit != "images" else _Stopper(bar, self.after)


class _Stopper:
    def __init__(self, bar, after):
        self.bar, self.left = bar, after

    def __enter__(self):
        self.bar.__enter__()
        return self

    def __exit__(self, *error):
        return self.bar.__exit__(*error)

    def __call__(self, steps):
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_stopped_run_continues_to_the_same_dataset(collection, whole, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", workers=1)
    with pytest.raises(KeyboardInterrupt):
        organize(options, Stopping(after=5))
    assert not (tmp_path / "dataset" / "stage.json").exists()
    begun = pictures(tmp_path / "dataset")
    assert len(begun) == 7  # the one that tells the rate, and six
    result = organize(options, Silent())
    assert contents(tmp_path / "dataset") == contents(whole.folder)
    assert result.facts == whole.facts
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in begun.items())


def test_a_second_run_writes_no_image_again_and_makes_what_was_lost(collection, tmp_path):
    first = run(collection, tmp_path / "dataset")
    before = contents(tmp_path / "dataset")
    stamps = pictures(first.folder)
    lost = first.folder / read_manifest(first.folder)[0].path
    lost.unlink()
    second = run(collection, tmp_path / "dataset")
    assert second.facts == first.facts
    assert contents(tmp_path / "dataset") == before
    del stamps[lost]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_each_image_is_made_once(collection, tmp_path):
    out = run(collection, tmp_path / "dataset").folder
    entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text().split("\n") if line]
    made = Counter(entry["name"] for entry in entries if entry["facts"])
    assert set(made.values()) == {1}
    assert made.keys() == {path.relative_to(out).as_posix() for path in pictures(out)}


def test_other_options_leave_nothing_of_the_earlier_run(collection, whole, tmp_path):
    run(collection, tmp_path / "dataset", unit="crop", finding="both")
    run(collection, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == contents(whole.folder)


def test_a_source_that_went_bad_takes_its_image_with_it(copy, tmp_path):
    run(copy, tmp_path / "dataset")
    row = read_manifest(tmp_path / "dataset")[0]
    path = dicom_of(copy, row.source_id)
    path.write_bytes(path.read_bytes()[:-5000])
    assert list((tmp_path / "dataset" / "masks").glob(f"{row.image_id}_*"))
    run(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / row.path).exists()
    assert not list((tmp_path / "dataset" / "masks").glob(f"{row.image_id}_*"))
    assert row.image_id in set_aside(tmp_path / "dataset")


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(collection, whole, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", workers=2)
    organize(options, Silent())
    assert contents(tmp_path / "dataset") == contents(whole.folder)


def test_another_seed_gives_another_split_of_the_same_images(collection, whole, tmp_path):
    rows = read_manifest(whole.folder)
    others = []
    for seed in (1, 2, 3):
        run(collection, tmp_path / str(seed), seed=seed, val_share=0.6, masks=False)
        others.append({row.image_id: row.split for row in read_manifest(tmp_path / str(seed))})
    assert all(other.keys() == {row.image_id for row in rows} for other in others)
    assert any(other != others[0] for other in others[1:])
    assert Counter(others[0].values())["val"] > Counter(row.split for row in rows)["val"]


def test_torchvision_reads_the_dataset(whole):
    datasets = pytest.importorskip("torchvision.datasets")
    for split, counts in whole.facts["splits"].items():
        images = datasets.ImageFolder(str(whole.folder / split))
        assert images.classes == ["benign", "malignant"]
        assert len(images) == counts["images"]
        assert images[0][0].mode == "RGB"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions bind neither root nor Windows"
)
def test_an_output_that_may_not_be_written_is_refused(collection, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="may not be written"):
        run(collection, tmp_path / "locked" / "dataset")


def test_nothing_of_the_headers_reaches_the_images(whole):
    for row in read_manifest(whole.folder):
        content = (whole.folder / row.path).read_bytes()
        assert row.patient_id.encode() not in content
        assert b"tEXt" not in content
