"""Patches: around lesions and of normal tissue, held against films and masks that are read here."""

import csv
import json
from collections import Counter, defaultdict

import cv2
import numpy as np
import pydicom
import pytest

from images.files import read_image, write_png
from models.shortcuts.stage import check_shortcuts
from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_record
from pipeline.stages.data import Organize, Preprocess, Probe
from preprocess_data import preprocess
from tests.conftest import write_collection
from tests.organize_data.reading import (
    case_rows,
    contents,
    dicom_of,
    film_of,
    pictures,
    run,
    series_of,
    set_aside,
)
from tests.organize_data.test_again import _Stopper

COLUMNS = ("ROI mask file path", "cropped image file path")
SHORT = {"mass": "mass", "calcification": "calc"}


def cut(source, out, **options):
    return run(source, out, unit="patch", **options)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def places(out):
    """Where each patch lies: image_id -> (film, x, y, side)."""
    return {
        line["image_id"]: (line["film"], *(int(line[name]) for name in ("x", "y", "side")))
        for line in table(out / "patches.csv")
    }


def lesions_of(source):
    """Every lesion of both findings, by film: (name, line)."""
    found = defaultdict(list)
    for line in case_rows(source, "mass") + case_rows(source, "calc"):
        name = f"{SHORT[line['abnormality type']]}_{line['abnormality id']}"
        found[film_of(line)].append((name, line))
    return found


def mask_of(source, line):
    path = dicom_of(source, {series_of(line, column) for column in COLUMNS}, bits=8)
    return pydicom.dcmread(path).pixel_array > 0


def scaled(mask, shape):
    size = shape[::-1]
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


@pytest.fixture(scope="module")
def patches(collection, once):
    """Patches around masses, with those of normal tissue; not to be written to."""
    return once("patches", lambda folder: cut(collection, folder / "dataset"))


def test_no_normal_patch_comes_near_any_lesion_of_its_film(collection, patches):
    rows = {row.image_id: row for row in read_manifest(patches.folder)}
    where = places(patches.folder)
    lesions, findings, seen = lesions_of(collection), set(), 0
    assert rows.keys() == where.keys()
    for name, (film, x, y, side) in where.items():
        pixels = pydicom.dcmread(dicom_of(collection, rows[name].source_id)).pixel_array
        image = read_image(patches.folder / rows[name].path)
        assert image.shape == (side, side) == (rows[name].height, rows[name].width)
        np.testing.assert_array_equal(image, pixels[y : y + side, x : x + side])
        if rows[name].label == "abnormal":
            continue
        margin = side // 8
        for lesion, line in lesions[film]:
            mask = scaled(mask_of(collection, line), pixels.shape)
            top, left = max(0, y - margin), max(0, x - margin)
            assert not mask[top : y + side + margin, left : x + side + margin].any(), (name, lesion)
            findings.add(lesion.partition("_")[0])
            seen += 1
    assert seen > 10
    assert findings == {"mass", "calc"}  # although masses alone were wanted


def test_each_mass_has_a_patch_with_it_in_the_middle_and_its_mask(collection, patches):
    rows = {row.image_id: row for row in read_manifest(patches.folder)}
    where = places(patches.folder)
    masks = defaultdict(dict)
    for line in table(patches.folder / "masks.csv"):
        masks[line["image_id"]][line["abnormality"]] = line
    middle = 0
    for line in case_rows(collection, "mass"):
        name = f"{film_of(line)}_mass_{line['abnormality id']}"
        if name not in rows:
            assert "another aspect" in set_aside(patches.folder)[name]
            continue
        row, (_, x, y, side) = rows[name], where[name]
        malignant = line["pathology"] == "MALIGNANT"
        assert (row.unit, row.label) == ("patch", "abnormal")
        assert row.diagnosis == ("malignant" if malignant else "benign") or row.lesions > 1
        own = masks[name][f"mass {line['abnormality id']}"]
        assert len(masks[name]) == row.lesions
        pixels = pydicom.dcmread(dicom_of(collection, row.source_id)).pixel_array
        whole = scaled(mask_of(collection, line), pixels.shape)
        part = read_image(patches.folder / own["path"]) > 0
        np.testing.assert_array_equal(part, whole[y : y + side, x : x + side])
        assert int(own["area"]) == np.count_nonzero(part) > 0
        down, across = np.nonzero(whole)
        if max(np.ptp(down), np.ptp(across)) < side:
            assert part.sum() == whole.sum()
            centre = (down.min() + down.max()) / 2 - y, (across.min() + across.max()) / 2 - x
            middle += max(abs(at - side / 2) for at in centre) <= 1
    assert middle > len(rows) / 5  # the others lie at the film's edge


def test_normal_patches_are_as_many_as_lesions_or_the_table_says_why(patches):
    rows, why = read_manifest(patches.folder), set_aside(patches.folder)
    planned = [row.image_id for row in rows] + list(why)
    kinds = Counter("normal" in name for name in planned)
    assert kinds[True] == kinds[False]
    assert patches.facts["expected"] == len(planned) == len(set(planned))
    films = {name.rpartition("_normal")[0] for name in planned if "normal" in name}
    assert films == {"_".join(name.split("_")[:4]) for name in planned if "normal" not in name}
    normal = [row for row in rows if row.label == "normal"]
    for row in normal:
        assert (row.unit, row.diagnosis, row.lesions, row.finding) == ("patch", "normal", 0, "")
        assert row.assessment == row.pathology == row.abnormality == row.subtlety == ""
    counts = patches.facts["splits"]
    assert sum(split["normal"] for split in counts.values()) == len(normal)
    told = patches.facts["patches"]
    reasons = Counter(reason.partition(":")[0] for reason in why.values())
    assert told["no_room"] == reasons["no room"]
    assert told["lesion_unknown"] == reasons["no normal tissue is known"]


def test_the_record_says_what_normal_is(patches):
    record = read_record(patches.folder, "organize")
    assert record["options"]["unit"] == "patch"
    assert record["counts"]["labels"] == ["normal", "abnormal"]
    assert record["counts"]["question"] == "abnormal-normal"
    assert record["counts"]["normal"] == "normal-tissue patches outside every lesion mask"


def test_patients_stay_whole_and_the_official_test_set_stays_one(collection, patches):
    homes = defaultdict(set)
    for row in read_manifest(patches.folder):
        homes[row.patient_id].add(row.split)
    assert all(len(splits) == 1 for splits in homes.values())
    official = {x["patient_id"] for x in case_rows(collection, "mass") if x["split"] == "test"}
    assert {patient for patient, splits in homes.items() if splits == {"test"}} == official


def test_torchvision_reads_patches(patches):
    datasets = pytest.importorskip("torchvision.datasets")
    for split, counts in patches.facts["splits"].items():
        images = datasets.ImageFolder(str(patches.folder / split))
        assert images.classes == ["abnormal", "normal"]
        assert len(images) == counts["images"] > 0


# --- the same each time


class StoppingFilms(Silent):
    """Presses Ctrl-C after some films."""

    def track(self, text, total, unit, done=0):
        bar = super().track(text, total, unit, done)
        return _Stopper(bar, 3) if unit == "films" else bar


def same(out, patches):
    tables = [(out / name).read_bytes() == (patches.folder / name).read_bytes()
              for name in ("patches.csv", "masks.csv")]  # fmt: skip
    return contents(out) == contents(patches.folder) and all(tables)


def test_a_stopped_cut_continues_and_cuts_no_film_again(collection, patches, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", unit="patch", workers=1)
    with pytest.raises(KeyboardInterrupt):
        organize(options, StoppingFilms())
    begun = pictures(tmp_path / "dataset")
    assert begun
    result = organize(options, Silent())
    assert same(tmp_path / "dataset", patches)
    assert result.facts == patches.facts
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in begun.items())
    lines = (tmp_path / "dataset" / "ledger.jsonl").read_text().split("\n")
    made = Counter(entry["name"] for entry in map(json.loads, filter(None, lines))
                   if entry["facts"])  # fmt: skip
    assert set(made.values()) == {1}
    films = {film_of(line) for line in case_rows(collection, "mass")}
    assert made.keys() == {f"films/{film}" for film in films}


@pytest.mark.slow
def test_two_workers_cut_the_same_bytes(collection, patches, tmp_path):
    options = Organize(source=collection, out=tmp_path / "dataset", unit="patch", workers=2)
    organize(options, Silent())
    assert same(tmp_path / "dataset", patches)


def test_a_lost_patch_is_cut_again_and_other_units_leave_nothing(collection, patches, tmp_path):
    out = cut(collection, tmp_path / "dataset").folder
    row = next(row for row in read_manifest(out) if row.label == "normal")
    (out / row.path).unlink()
    cut(collection, out)
    assert same(out, patches)
    run(collection, out, unit="crop")
    assert not (out / "patches.csv").exists()
    assert not (out / "masks").exists()
    assert {path.parts[-2] for path in pictures(out)} == {"benign", "malignant"}


def test_another_seed_draws_other_places_around_the_same_lesions(collection, patches, tmp_path):
    other = places(cut(collection, tmp_path / "dataset", seed=7).folder)
    known = places(patches.folder)
    lesions = {name for name in known if "normal" not in name}
    assert {name: other[name] for name in lesions} == {name: known[name] for name in lesions}
    assert any(other[name] != known[name] for name in other.keys() & known.keys() - lesions)


# --- what is missing


def test_a_film_with_a_lost_mask_gives_no_normal_patch(copy, patches, tmp_path):
    lesions = lesions_of(copy)
    there = {row.image_id for row in read_manifest(patches.folder)}
    film = next(
        film for film, held in sorted(lesions.items())
        if len(held) > 1 and f"{film}_normal_1" in there and held[0][0].startswith("mass")
    )  # fmt: skip
    name, line = lesions[film][0]
    dicom_of(copy, {series_of(line, column) for column in COLUMNS}, bits=8).unlink()
    result = cut(copy, tmp_path / "dataset")
    now, why = {row.image_id for row in read_manifest(result.folder)}, set_aside(result.folder)
    lost = {f"{film}_{name}", *(one for one in there if one.startswith(f"{film}_normal"))}
    assert there - now == lost
    assert why[f"{film}_{name}"].startswith("missing: no mask in series")
    assert "nobody knows where the lesion is" in why[f"{film}_{name}"]
    assert why[f"{film}_normal_1"].startswith("no normal tissue is known: mass 1, missing: no mask")
    assert any("has no mask that fits" in note for note in result.notes)


def test_a_lost_mask_of_a_finding_that_was_not_wanted_counts_as_well(copy, patches, tmp_path):
    there = {row.image_id for row in read_manifest(patches.folder)}
    film, line = next(
        (film, line) for film, held in sorted(lesions_of(copy).items()) for name, line in held
        if name.startswith("calc") and f"{film}_normal_1" in there
    )  # fmt: skip
    dicom_of(copy, {series_of(line, column) for column in COLUMNS}, bits=8).unlink()
    cut(copy, tmp_path / "dataset")
    now = {row.image_id for row in read_manifest(tmp_path / "dataset")}
    assert there - now == {name for name in there if name.startswith(f"{film}_normal")}


def test_a_mask_of_another_aspect_does_not_say_where_its_lesion_is(copy, patches, tmp_path):
    film, row = next(
        (film_of(line), line) for line in case_rows(copy, "mass")
        if f"{film_of(line)}_normal_1" in places(patches.folder)
    )  # fmt: skip
    path = dicom_of(copy, {series_of(row, column) for column in COLUMNS}, bits=8)
    data = pydicom.dcmread(path)
    half = np.ascontiguousarray(data.pixel_array[: data.Rows // 2 * 2 : 2])
    data.Rows, data.PixelData = half.shape[0], half.tobytes()
    data.save_as(path)
    cut(copy, tmp_path / "dataset")
    why = set_aside(tmp_path / "dataset")
    name = f"{film}_mass_{row['abnormality id']}"
    assert "its mask has another aspect than its film" in why[name]
    assert why[f"{film}_normal_1"].startswith("no normal tissue is known")
    assert not {name, f"{film}_normal_1"} & places(tmp_path / "dataset").keys()


def test_without_any_mask_nothing_can_be_cut(copy, tmp_path):
    for path in copy.rglob("*.dcm"):
        if pydicom.dcmread(path, stop_before_pixels=True).BitsAllocated == 8:
            path.unlink()
    with pytest.raises(UserError, match="holds no masks, which patches are cut by"):
        cut(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_case_description_that_is_not_there_is_noted(copy, tmp_path):
    for path in copy.glob("calc_*.csv"):
        path.unlink()
    notes = cut(copy, tmp_path / "dataset", dry_run=True).notes
    assert any("may show a lesion that these list" in note for note in notes)


def test_patches_can_be_left_out_by_name_and_their_masks_left_alone(collection, patches, tmp_path):
    known = places(patches.folder)
    normal = next(name for name in known if "normal" in name)
    unfit = tmp_path / "unfit.txt"
    unfit.write_text(f"{normal}\n")
    result = cut(collection, tmp_path / "dataset", exclude=unfit, masks=False)
    assert known.keys() - places(result.folder).keys() == {normal}
    assert result.facts["left_out"][0] == {
        "why": "listed in unfit.txt", "lesions": 0, "images": 1, "patients": 0,
    }  # fmt: skip
    assert not (result.folder / "masks").exists()
    assert "there are no masks" in result.facts["shortcuts"]["problem"]


def test_the_side_can_be_given_and_a_film_that_is_smaller_is_set_aside(collection, tmp_path):
    result = cut(collection, tmp_path / "dataset", patch_side=40)
    assert {side for *_, side in places(result.folder).values()} == {40}
    with pytest.raises(UserError, match="can be read"):
        cut(collection, tmp_path / "large", patch_side=2000)
    reasons = {why.partition(" (")[0] for why in set_aside(tmp_path / "large").values()}
    assert reasons == {"its film is smaller than a patch"}


def test_pseudonyms_reach_the_table_of_places(collection, patches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = cut(collection, tmp_path / "dataset", pseudonymize=True).folder
    assert "P_0" not in (out / "patches.csv").read_text() + (out / "ledger.jsonl").read_text()
    plain = sorted(place[1:] for place in places(patches.folder).values())
    assert sorted(place[1:] for place in places(out).values()) == plain


# --- what follows


def test_a_patch_is_scaled_and_not_cropped(patches, tmp_path):
    options = Preprocess(data=patches.folder, out=tmp_path / "out", size=64, workers=1)
    preprocess(options, Silent())
    for row in read_manifest(tmp_path / "out"):
        assert row.unit == "patch"
        window = row.crop_x, row.crop_y, row.crop_width, row.crop_height
        assert window == (0, 0, *2 * (places(patches.folder)[row.image_id][3],))


@pytest.fixture(scope="module")
def many(once):
    """Patches of enough patients for a verdict; not to be written to."""

    def make(folder):
        source = write_collection(folder / "raw", patients=50, seed=11)
        return cut(source, folder / "dataset", finding="both")

    return once("many-patches", make)


@pytest.mark.slow
def test_a_run_on_patches_is_trained_evaluated_explained_and_reported(many, tmp_path, run_here):
    options = Preprocess(data=many.folder, out=tmp_path / "preprocessed", size=64, workers=1)
    preprocess(options, Silent())
    train = ("train", "--model", "MammoCNN", "--weights", "none", "--epochs", "1", "--size", "64")
    for stage in (train, ("evaluate",), ("explain",), ("report",)):
        done = run_here(*stage, "--workers", "1", "--batch")
        assert done.returncode == 0, done.stdout + done.stderr
    (scores,) = tmp_path.rglob("explanations.json")
    assert json.loads(scores.read_text())["scored"] > 0  # against the masks of the patches
    (page,) = tmp_path.rglob("report.html")
    text = page.read_text(encoding="utf-8")
    assert "normal-tissue patches outside every lesion mask" in text
    assert "scanner" not in text.partition("Preprocessing.")[2][:600]
    film = dicom_of(many.folder.parent / "raw", read_manifest(many.folder)[0].source_id)
    done = run_here("predict", film, "--batch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a whole mammogram?" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_nothing_but_the_lesion_tells_normal_patches(many, tmp_path):
    found = many.facts["shortcuts"]
    assert found["problem"] == ""
    assert found["groups"].keys() >= {"borders", "histogram", "orientation"}
    assert found["warnings"] == []
    options = Preprocess(data=many.folder, out=tmp_path / "out", size=64, workers=1)
    assert preprocess(options, Silent()).facts["shortcuts"]["warnings"] == []
    for row in read_manifest(tmp_path / "out"):  # the probe is not blind
        if row.label == "normal":
            image = read_image(tmp_path / "out" / row.path)
            write_png(tmp_path / "out" / row.path, (image * 0.7).astype(np.uint16))
    told = check_shortcuts(Probe(data=tmp_path / "out"), Silent())
    assert any("histogram" in note for note in told.notes)
