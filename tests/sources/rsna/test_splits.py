"""How the patients of RSNA are split, with so few cancers."""

from collections import Counter

import pytest

from pipeline.progress import Silent
from pipeline.stages.data import Organize
from tests.sources.rsna.files import CANCERS, PATIENTS, ROWS, real_rows, write_table
from tests.sources.rsna.test_stage import plan


def patients_of(rows, splits, wanted):
    return Counter(splits[f"rsna_{who}"] for who in {one["patient_id"] for one in rows
                                                     if wanted(one)})  # fmt: skip


def test_rare_cancers_are_shared_by_label_and_site(tmp_path):
    from sources.pseudonyms import OpenNames
    from sources.registry import plan_of

    rows = real_rows(women=600, images=2_800, cancers=60)
    table = write_table(tmp_path / "train.csv", rows)
    splits = plan_of(Organize(csv=table, dry_run=True), OpenNames(), Silent()).splits
    ill = {one["patient_id"] for one in rows if one["cancer"]}
    assert len(ill) == 30

    def shared(wanted):
        return patients_of(rows, splits, wanted)

    assert shared(lambda one: one["patient_id"] in ill) == {"test": 6, "val": 4, "train": 20}
    assert shared(lambda one: one["patient_id"] not in ill) == {
        "test": 114, "val": 68, "train": 388,
    }  # fmt: skip
    for site in (1, 2):
        found = shared(lambda one, site=site: one["patient_id"] in ill and one["site_id"] == site)
        assert abs(found["test"] - 0.2 * found.total()) <= 1
        assert abs(found["val"] - 0.15 * 0.8 * found.total()) <= 1.5
    note = next(note for note in plan(csv=table).notes if "PR AUC" in note)
    assert note.startswith("2.1% of the images are malignant: calling none of them so would be")


@pytest.mark.slow
def test_the_real_number_of_rows_is_planned(tmp_path, run_main):
    table = write_table(tmp_path / "train.csv", real_rows())
    done = run_main("organize", "--dry-run", "--csv", table, "--batch")
    assert f"{ROWS:,} images of {PATIENTS:,} patients; nothing written" in done.stdout
    assert f"{CANCERS:,}" in done.stdout
