"""Several datasets in one folder become one: made by the stage of folders made by the stage."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from images.files import read_image, write_png
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, read_masks
from pipeline.stages.data import Probe
from sources.registry import collection_of, recognised
from tests.sources.folders.making import aside, class_folders, draw, run, with_table, women


@pytest.fixture(scope="session")
def two(once):
    """Two organised datasets: of women with normal images and a mask, and of a table's."""

    def make(folder):
        first = class_folders(
            folder / "a", ("benign", "malignant", "normal"), 12, pattern="P_{:05d}.png"
        )
        for name in ("benign", "malignant", "normal"):  # a patient has one class here
            for path in sorted((first / name).iterdir()):
                path.rename(path.with_name(path.name.replace("P_000", f"P_{ord(name[0])}")))
        white = np.zeros((24, 20), np.uint16)
        white[4:9, 5:9] = 65535
        write_png(next(iter(sorted((first / "benign").iterdir()))).with_suffix(".x"), white)
        (name,) = (first / "benign").glob("*.x")
        name.rename(name.with_name(f"{name.stem}_mask.png"))
        second = with_table(folder / "b", women(folder / "b"))
        run(first, folder / "both" / "first set", question="malignant-rest")
        run(second, folder / "both" / "second", question="malignant-rest")
        return folder / "both"

    return once("two-datasets", make)


@pytest.fixture(scope="session")
def merged(two, once):
    return once("merged", lambda folder: run(two, folder / "dataset", question="malignant-rest"))


@pytest.fixture
def copies(two, tmp_path):
    return Path(shutil.copytree(two, tmp_path / "both"))


def test_every_image_is_there_with_its_split_diagnosis_and_source(two, merged):
    assert recognised(two) == collection_of({"source": two}) == "merged"
    rows = {row.image_id: row for row in read_manifest(merged.folder)}
    expected = 0
    for folder, prefix in (("first set", "first_set"), ("second", "second")):
        for own in read_manifest(two / folder):
            row = rows[f"{prefix}_{own.image_id}"]
            expected += 1
            assert row.patient_id == f"{prefix}_{own.patient_id}"
            assert row.collection == prefix
            same = ("split", "diagnosis", "label", "laterality", "view", "pathology", "height",
                    "width", "lesions", "unit", "crop_x", "scale", "mirrored")  # fmt: skip
            assert [getattr(row, one) for one in same] == [getattr(own, one) for one in same]
            ours, theirs = merged.folder / row.path, two / folder / own.path
            assert np.array_equal(read_image(ours), read_image(theirs))
    assert len(rows) == expected == 60
    assert merged.set_aside == 0
    facts = json.loads((merged.folder / "summary.json").read_text())
    assert {name: one["images"] for name, one in facts["merged"].items()} == {
        "first set": 36, "second": 24,
    }  # fmt: skip


def test_masks_come_along(two, merged):
    (own,) = read_masks(two / "first set").items()
    (ours,) = read_masks(merged.folder).items()
    assert ours[0] == f"first_set_{own[0]}"
    assert np.array_equal(read_image(ours[1][0].path), read_image(own[1][0].path))


def test_other_questions_can_be_asked_of_it(two, tmp_path):
    run(two, tmp_path / "out", question="abnormal-normal")
    labels = Counter(row.label for row in read_manifest(tmp_path / "out"))
    assert labels == {"normal": 12, "abnormal": 48}


@pytest.mark.slow
def test_cbis_ddsm_is_understood_by_its_labels(two, prepared, tmp_path):
    shutil.copytree(two / "second", tmp_path / "both" / "table")
    shutil.copytree(prepared / "dataset", tmp_path / "both" / "cbis")
    result = run(tmp_path / "both", tmp_path / "out", question="benign-malignant")
    own = {row.image_id: row for row in read_manifest(prepared / "dataset")}
    ours = [row for row in read_manifest(tmp_path / "out") if row.collection == "cbis"]
    assert len(ours) == len(own)
    for row in ours:
        before = own[row.image_id.removeprefix("cbis_")]
        assert (row.label, row.abnormality, row.shape, row.lesions, row.split) == (
            before.label, before.abnormality, before.shape, before.lesions, before.split,
        )  # fmt: skip
    assert result.facts["masks"]["written"] > 0
    assert result.facts["masks"]["written"] == sum(
        map(len, read_masks(prepared / "dataset").values())
    )


def test_a_label_without_a_diagnosis_is_refused(copies, tmp_path):
    path = copies / "second" / "manifest.csv"
    lines = list(csv.reader(path.read_text().splitlines()))
    place = lines[0].index("diagnosis")
    path.write_text("\n".join(",".join(line[:place] + line[place + 1 :]) for line in lines) + "\n")
    with pytest.raises(UserError, match=r"not_malignant, which tells no diagnosis; organise it"):
        run(copies, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_picture_in_two_splits_is_caught_and_the_remedy_helps(copies, tmp_path):
    rows = {split: next(row for row in read_manifest(copies / name) if row.split == split)
            for name, split in (("first set", "train"), ("second", "test"))}  # fmt: skip
    shutil.copy(copies / "first set" / rows["train"].path, copies / "second" / rows["test"].path)
    names = f"first_set_{rows['train'].image_id}", f"second_{rows['test'].image_id}"
    with pytest.raises(UserError, match=f"{names[0]}.*{names[1]}.*give it as --exclude"):
        run(copies, tmp_path / "out")
    with (tmp_path / "out" / "leaks.csv").open(newline="") as file:
        leaks = [line for line in csv.reader(file) if line[1] != "test"]  # all but one split's
    (tmp_path / "not these.csv").write_text("\n".join(map(",".join, leaks)))
    run(copies, tmp_path / "out", exclude=tmp_path / "not these.csv")
    kept = {row.image_id for row in read_manifest(tmp_path / "out")}
    assert (names[0] in kept, names[1] in kept, len(kept)) == (False, True, 59)


def test_a_missing_image_is_set_aside_and_the_rest_is_there(copies, tmp_path):
    row = read_manifest(copies / "second")[0]
    (copies / "second" / row.path).unlink()
    run(copies, tmp_path / "out")
    assert aside(tmp_path / "out") == {
        f"second_{row.image_id}": f"missing: no file second/{row.path}"
    }
    assert len(read_manifest(tmp_path / "out")) == 59


def test_unfinished_and_single_datasets_are_refused(copies, tmp_path):
    (copies / "second" / "stage.json").rename(copies / "second" / "unfinished.json")
    with pytest.raises(UserError, match="second: was not finished; to continue, run: "):
        run(copies, tmp_path / "out")
    shutil.rmtree(copies / "second")
    with pytest.raises(UserError, match=r"one dataset is there \(first set\), and merging takes"):
        run(copies, tmp_path / "out")


def test_a_dataset_is_no_download(two, tmp_path):
    with pytest.raises(UserError, match=r"is a dataset.*run: python main\.py preprocess --data "):
        run(two / "second", tmp_path / "out")


# The probe


def told(tmp_path, shares):
    """Merge two sets of which these shares of women have cancer; return what the probe says."""
    for name, share in shares.items():
        lines = []
        for number in range(60):
            draw(tmp_path / name / f"{number}.png")
            lines.append(f"{number}.png,{number},{'M' if number < 60 * share else 'B'},,")
        run(with_table(tmp_path / name, lines), tmp_path / "both" / name)
    return run(tmp_path / "both", tmp_path / "out")


@pytest.mark.slow
def test_the_probe_tells_that_the_source_gives_the_label_away(tmp_path, run_here):
    result = told(tmp_path, {"ill": 0.9, "well": 0.1})
    assert result.facts["shortcuts"]["groups"]["collection"]["told"] is True
    (warning,) = (note for note in result.notes if note.startswith("collection alone predicts"))
    assert "AUC 0.9" in warning or "AUC 0.8" in warning
    done = run_here("probe", "--data", tmp_path / "out", "--batch")
    assert "collection" in done.stdout
    found = json.loads((tmp_path / "out" / "shortcuts.json").read_text())
    assert found["groups"]["collection"]["told"] is True


@pytest.mark.slow
def test_the_probe_is_silent_where_the_sources_are_balanced(tmp_path):
    result = told(tmp_path, {"one": 0.5, "other": 0.5})
    assert result.facts["shortcuts"]["groups"]["collection"]["told"] is False
    assert not any("collection" in note and "predict" in note for note in result.notes)


def test_without_several_sources_there_is_no_such_group(two, tmp_path):
    from models.shortcuts.stage import check_shortcuts
    from pipeline.progress import Silent

    data = shutil.copytree(two / "second", tmp_path / "data")
    found = check_shortcuts(Probe(data=data), Silent()).facts["groups"]
    assert found
    assert "collection" not in found
