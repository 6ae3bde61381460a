"""The collection on disk: layouts, headers, tables and their quirks, continuing, starting over."""

import csv
import hashlib
import io
from collections import Counter, defaultdict
from contextlib import contextmanager

import cv2
import numpy as np
import pydicom
import pytest

from images.archives import members
from images.files import read_bytes
from pipeline.errors import UserError
from pipeline.progress import Silent
from pipeline.records import RECORD, read_record
from pipeline.stages.collections import Synthesize
from sources.synthetic.files import plan_files
from sources.synthetic.plan import MASS, plan_collection
from sources.synthetic.stage import synthesize
from sources.synthetic.tables import CASE_DESCRIPTIONS

FOLDER_LAYOUTS = ("descriptive", "descriptive-2023", "descriptive-old", "classic", "csv")
SIMILAR = ("descriptive-2023", "descriptive-old")  # to the first, but for names
DICOMS = [
    pytest.param(layout, marks=[pytest.mark.slow] if layout in SIMILAR else [])
    for layout in (*FOLDER_LAYOUTS, "rest")
]
ALL_COLUMNS = ("image file path", "cropped image file path", "ROI mask file path")


def make(out, **changes):
    values = {"out": out, "patients": 8, "size": "256", "seed": 7, "workers": 1}
    options = Synthesize(**(values | changes))
    return options, synthesize(options, Silent())


def images(folder):
    """Find all image files, also those in zip files or in one that is given."""
    zips = [folder] if folder.suffix == ".zip" else folder.rglob("*.zip")
    packed = [path / name for path in zips for name, _ in members(path)]
    plain = (path for path in folder.rglob("*") if path.suffix in (".dcm", ".jpg"))
    return sorted([*packed, *plain])


def read(path, **settings):
    return pydicom.dcmread(io.BytesIO(read_bytes(path).tobytes()), **settings)


def case_rows(folder, finding, split):
    with (folder / CASE_DESCRIPTIONS[finding, split]).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def all_rows(folder):
    return [row for key in CASE_DESCRIPTIONS for row in case_rows(folder, *key)]


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".dcm", ".jpg", ".csv", ".txt", ".zip")
    }


@pytest.fixture(scope="module")
def headers(layouts):
    return {path: pydicom.dcmread(path) for path in images(layouts("descriptive"))}


@pytest.mark.parametrize("layout", DICOMS[1:])
def test_every_layout_holds_the_same_pixels_and_headers(layouts, headers, layout):
    expected = {header.SOPInstanceUID: header for header in headers.values()}
    found = [read(path) for path in images(layouts(layout))]
    assert {header.SOPInstanceUID for header in found} == set(expected)
    assert all(header == expected[header.SOPInstanceUID] for header in found)


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("descriptive", "CBIS-DDSM/*/??-??-????-DDSM-NA-?????/1.000000-*images-?????/1-[12].dcm"),
        pytest.param(
            "descriptive-2023",
            "CBIS-DDSM/*/??-??-????-DDSM-?????/1.000000-*images-?????/1-[12].dcm",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "descriptive-old",
            "CBIS-DDSM/*/??-??-????-DDSM-?????/1-*images-?????/00000[01].dcm",
            marks=pytest.mark.slow,
        ),
        ("classic", "CBIS-DDSM/*/2.25.*/2.25.*/1-[12].dcm"),
        ("csv", "*/2.25.*/2.25.*/00000[01].dcm"),
        ("kaggle", "jpeg/2.25.*/[12]-???.jpg"),
    ],
)
def test_files_lie_where_the_layout_says(layouts, layout, pattern):
    folder = layouts(layout)
    found = images(folder)
    assert found
    assert set(found) == set(folder.glob(pattern))


def test_each_series_of_the_rest_interface_is_a_zip_file_of_its_own(layouts):
    folder = layouts("rest")
    zips = sorted(folder.rglob("*.zip"))
    assert zips == sorted(folder.glob("CBIS-DDSM/*/2.25.*.zip"))
    assert not list(folder.rglob("*.dcm"))
    found = Counter()
    for path in zips:
        names = [name for name, _ in members(path)]
        assert names == ["1.dcm", "2.dcm"][: len(names)]
        headers = [read(path / name, stop_before_pixels=True) for name in names]
        assert {header.SeriesInstanceUID for header in headers} == {path.stem}
        assert {header.PatientID for header in headers} == {path.parent.name}
        found[len(names)] += 1
    assert found[2] > 0
    assert found[1] > 0


def test_descriptive_folders_end_in_the_last_digits_of_the_uids(headers):
    for path, header in headers.items():
        assert path.parent.name.endswith(f"-{header.SeriesInstanceUID[-5:]}")
        assert path.parent.parent.name.endswith(f"-{header.StudyInstanceUID[-5:]}")


def test_headers_have_the_fields_of_the_real_files_in_their_order(headers):
    keywords = (
        "SpecificCharacterSet SOPClassUID SOPInstanceUID StudyDate ContentDate StudyTime "
        "ContentTime AccessionNumber Modality ConversionType ReferringPhysicianName "
        "SeriesDescription PatientName PatientID PatientBirthDate PatientSex BodyPartExamined "
        "SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName "
        "StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber InstanceNumber "
        "PatientOrientation Laterality SamplesPerPixel PhotometricInterpretation Rows Columns "
        "BitsAllocated BitsStored HighBit PixelRepresentation SmallestImagePixelValue "
        "LargestImagePixelValue PixelData"
    ).split()
    undescribed = [word for word in keywords if word != "SeriesDescription"]
    private = [pydicom.tag.Tag(0x0013, element) for element in (0x0010, 0x1010, 0x1013)]
    for header in headers.values():
        public = [element.keyword for element in header if not element.tag.is_private]
        assert public in (keywords, undescribed)
        assert [element.tag for element in header if element.tag.is_private] == private
        assert header.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
        assert header.PatientOrientation in ("CC", "MLO")
        assert header.Laterality in "LR"


def test_patient_id_is_the_subject_and_unique_for_each_image(headers):
    for path, header in headers.items():
        assert header.PatientID == path.parent.parent.parent.name
    whole = [h.PatientID for path, h in headers.items() if "full mammogram" in path.parent.name]
    assert len(set(whole)) == len(whole)


def test_masks_crops_and_mammograms_have_the_depths_and_values_of_the_real_ones(layouts):
    for row in all_rows(layouts("csv")):
        series = {
            column: layouts("csv") / row[column].strip().rpartition("/")[0]
            for column in ALL_COLUMNS
        }
        (whole,) = (pydicom.dcmread(path) for path in images(series["image file path"]))
        parts = {path for column in ALL_COLUMNS[1:] for path in images(series[column])}
        by_bits = {header.BitsAllocated: header for header in map(pydicom.dcmread, parts)}
        assert len(parts) == len(by_bits) == 2
        mask, crop = by_bits[8].pixel_array, by_bits[16].pixel_array
        assert set(np.unique(mask)) == {0, 255}
        assert crop.min() > 0
        assert max(crop.shape) < max(whole.pixel_array.shape)
        where = cv2.matchTemplate(
            whole.pixel_array.astype(np.float32), crop.astype(np.float32), cv2.TM_SQDIFF
        )
        assert where.min() < 1e-4 * np.square(crop.astype(float)).sum()
        for header in (whole, *by_bits.values()):
            assert header.SmallestImagePixelValue == header.pixel_array.min()
            assert header.LargestImagePixelValue == header.pixel_array.max()


def test_jpegs_are_the_films_at_eight_bits(layouts, headers):
    with (layouts("kaggle") / "csv/dicom_info.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["SOPInstanceUID"]: row for row in csv.DictReader(file)}
    assert set(rows) == {header.SOPInstanceUID for header in headers.values()}
    for header in headers.values():
        row = rows[header.SOPInstanceUID]
        path = layouts("kaggle") / row["image_path"].removeprefix("CBIS-DDSM/")
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (header.Rows, header.Columns)
        assert row["PatientID"] == header.PatientID
        wanted = header.pixel_array >> (header.BitsAllocated - 8)
        assert np.abs(picture.astype(int) - wanted).mean() < 4


def test_case_descriptions_have_the_quirks_of_the_real_ones(layouts):
    folder = layouts("descriptive")
    for (finding, split), name in CASE_DESCRIPTIONS.items():
        text = (folder / name).read_bytes()
        assert b"\r" not in text
        assert text.endswith(b"\n")
        mass = finding == MASS
        assert (b"breast_density" in text) == mass
        assert (b"breast density" in text) != mass
        broken = "ROI mask file path" if mass else "cropped image file path"
        rows = case_rows(folder, finding, split)
        for row in rows:
            assert [column for column in row if row[column].endswith("\n")] == [broken]
            assert all(len(row[column].split("/")) == 4 for column in ALL_COLUMNS)
        names = [row["cropped image file path"].strip()[-10:] for row in rows]
        usual = "000000.dcm" if mass else "000001.dcm"
        assert Counter(names).most_common(1)[0][0] == usual


def test_every_series_of_the_case_descriptions_is_in_the_collection(layouts, headers):
    rows = all_rows(layouts("descriptive"))
    listed = {row[column].strip().split("/")[2] for row in rows for column in ALL_COLUMNS}
    assert listed == {header.SeriesInstanceUID for header in headers.values()}


@pytest.mark.parametrize("layout", DICOMS)
def test_metadata_leads_to_every_series_in_its_dialect(layouts, layout):
    folder = layouts(layout)
    text = (folder / "metadata.csv").read_bytes()
    linux = layout == "classic"
    assert (b"\r\n" in text, b"\\" in text) == (linux, not linux)
    rows = list(csv.DictReader(text.decode().splitlines()))
    assert len(rows[0]) == 17
    for row in rows:
        series = folder / row["File Location"].replace("\\", "/")
        assert len(images(series)) == int(row["Number of Images"])
        header = read(images(series)[0], stop_before_pixels=True)
        assert header.SeriesInstanceUID == row["Series UID"]
        assert header.PatientID == row["Subject ID"]
    assert sum(int(row["Number of Images"]) for row in rows) == len(images(folder))


def test_readme_says_that_it_is_synthetic(layouts):
    assert "SYNTHETIC" in (layouts("descriptive") / "README.txt").read_text(encoding="utf-8")


def test_twin_images_have_the_same_pixels_under_two_subjects(headers):
    listings = plan_files(7, plan_collection(7, 8))
    subjects = defaultdict(set)
    for one in listings:
        subjects[one.film.film_id].add(one.mammogram.subject)
    twins = [names for names in subjects.values() if len(names) == 2]
    by_subject = {header.PatientID: header for header in headers.values()}
    assert twins
    for names in twins:
        mass, calc = (by_subject[name] for name in sorted(names))
        assert mass.PixelData == calc.PixelData
        assert mass.SOPInstanceUID != calc.SOPInstanceUID


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["descriptive", "rest"])
def test_workers_do_not_change_a_byte(tmp_path, layouts, layout):
    make(tmp_path / "two", workers=2, layout=layout)
    assert digests(tmp_path / "two") == digests(layouts(layout))


def test_a_second_run_draws_nothing_again(tmp_path):
    _, first = make(tmp_path / "raw")
    times = {path: path.stat().st_mtime_ns for path in images(tmp_path / "raw")}
    _, second = make(tmp_path / "raw")
    assert {path: path.stat().st_mtime_ns for path in images(tmp_path / "raw")} == times
    assert second.facts == first.facts


class StoppedError(Exception):
    """Stands for whatever ends a run."""


class StopsAfter(Silent):
    """A progress whose bar breaks after some steps."""

    def __init__(self, steps):
        self.steps = steps

    @contextmanager
    def track(self, text, total, unit, done=0):
        with super().track(text, total, unit, done) as advance:

            def step(count):
                advance(count)
                self.steps -= count
                if self.steps <= 0:
                    raise StoppedError

            yield step


def test_a_stopped_run_continues_to_the_same_bytes(tmp_path, layouts):
    options = Synthesize(out=tmp_path / "raw", patients=8, size="256", seed=7, workers=1)
    with pytest.raises(StoppedError):
        synthesize(options, StopsAfter(4))
    assert not (tmp_path / "raw" / RECORD).exists()
    begun = {path: path.stat().st_mtime_ns for path in images(tmp_path / "raw")}
    assert begun
    synthesize(options, Silent())
    kept = [path for path, time in begun.items() if path.stat().st_mtime_ns == time]
    assert kept
    assert digests(tmp_path / "raw") == digests(layouts("descriptive"))


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [pytest.param("descriptive", "*.dcm", marks=pytest.mark.slow), ("rest", "*.zip")],
)
def test_a_lost_file_is_made_again(tmp_path, layouts, layout, pattern):
    make(tmp_path / "raw", layout=layout)
    lost = sorted((tmp_path / "raw").rglob(pattern))[3]
    lost.unlink()
    make(tmp_path / "raw", layout=layout)
    assert digests(tmp_path / "raw") == digests(layouts(layout))


@pytest.mark.slow
def test_zip_files_are_kept_by_a_second_run_and_left_by_no_other_layout(tmp_path, layouts):
    make(tmp_path / "raw", layout="rest")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*.zip")}
    make(tmp_path / "raw", layout="rest")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    make(tmp_path / "raw")
    assert digests(tmp_path / "raw") == digests(layouts("descriptive"))
    assert not any(path.exists() for path in times)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"layout": "kaggle"}, {"layout": "rest"}, {"seed": 8}, {"patients": 9}]
)
def test_other_options_leave_no_old_file_behind(tmp_path, layouts, change):
    with pytest.raises(StoppedError):  # even of a run that was stopped
        synthesize(
            Synthesize(out=tmp_path / "raw", patients=8, size="256", seed=7, workers=1),
            StopsAfter(3),
        )
    make(tmp_path / "raw", **change)
    if "layout" in change:
        fresh = layouts(change["layout"])
    else:
        fresh = tmp_path / "fresh"
        make(fresh, **change)
    assert digests(tmp_path / "raw") == digests(fresh)
    folders = [path for path in (tmp_path / "raw").rglob("*") if path.is_dir()]
    assert all(any(path.iterdir()) for path in folders)


def test_the_record_and_the_result_agree(layouts, tmp_path):
    options, result = make(tmp_path / "raw")
    record = read_record(tmp_path / "raw", "synthesize")
    assert record["counts"] == result.facts
    assert result.facts["files"] == len(images(tmp_path / "raw"))
    assert result.next_stage == "organize"
    assert result.next_options == {"source": options.out}
    (table,) = result.tables
    for (_, rows, *_), key in zip(table.rows, CASE_DESCRIPTIONS, strict=True):
        assert rows == len(case_rows(layouts("descriptive"), *key))


def test_a_folder_of_someone_else_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and was not made by synthesize"):
        make(tmp_path / "raw")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["thesis.txt"]
