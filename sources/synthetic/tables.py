"""The tables of the synthetic collection: case descriptions, metadata.csv, dicom_info.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pydicom.uid import SecondaryCaptureImageStorage

from sources.synthetic.files import (
    COLLECTION,
    Listing,
    PlannedFile,
    file_path,
    listed_path,
    series_folder,
)
from sources.synthetic.plan import CALC, MASS, FilmPlan
from sources.synthetic.writing import header_fields

Facts = Mapping[str, Mapping[str, int]]  # path -> bytes, rows, columns, smallest, largest
CASE_DESCRIPTIONS = {
    (MASS, "train"): "mass_case_description_train_set.csv",
    (MASS, "test"): "mass_case_description_test_set.csv",
    (CALC, "train"): "calc_case_description_train_set.csv",
    (CALC, "test"): "calc_case_description_test_set.csv",
}
METADATA_COLUMNS = (
    "Series UID", "Collection", "3rd Party Analysis", "Data Description URI", "Subject ID",
    "Study UID", "Study Description", "Study Date", "Series Description", "Manufacturer",
    "Modality", "SOP Class Name", "SOP Class UID", "Number of Images", "File Size",
    "File Location", "Download Timestamp",
)  # fmt: skip
INFO_COLUMNS = (
    "AccessionNumber", "BitsAllocated", "BitsStored", "BodyPartExamined", "Columns", "ContentDate",
    "ContentTime", "ConversionType", "HighBit", "InstanceNumber", "LargestImagePixelValue",
    "Laterality", "Modality", "PatientBirthDate", "PatientID", "PatientName",
    "PatientOrientation", "PatientSex", "PhotometricInterpretation", "PixelRepresentation",
    "ReferringPhysicianName", "Rows", "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel",
    "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName",
    "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SmallestImagePixelValue",
    "SpecificCharacterSet", "StudyDate", "StudyID", "StudyInstanceUID", "StudyTime",
)  # fmt: skip
DOWNLOADED = datetime(2021, 9, 5, 17, 11, 27, 410_000)


def case_description(listings: Sequence[Listing], finding: str, split: str) -> str:
    """Return one of the four case description CSVs, with the quirks of the real ones.

    One path of each row ends in a line break inside its quotes, the column of the breast density
    has two spellings, and the files' names are fictional.
    """
    mass = finding == MASS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((
        "patient_id", "breast_density" if mass else "breast density", "left or right breast",
        "image view", "abnormality id", "abnormality type",
        *(("mass shape", "mass margins") if mass else ("calc type", "calc distribution")),
        "assessment", "pathology", "subtlety",
        "image file path", "cropped image file path", "ROI mask file path",
    ))  # fmt: skip
    for listing in listings:
        if (listing.finding, listing.split) != (finding, split):
            continue
        film, lesion = listing.film, listing.lesion
        crop, mask = listed_path(listing.crop), listed_path(listing.mask)
        if listing.swapped:
            crop, mask = mask, crop
        crop, mask = (crop, mask + "\n") if mass else (crop + "\n", mask)
        writer.writerow((
            film.patient_id, listing.density, film.laterality, film.view, lesion.number, finding,
            lesion.shape, listing.margins, lesion.assessment, lesion.pathology, lesion.subtlety,
            listed_path(listing.mammogram), crop, mask,
        ))  # fmt: skip
    return text.getvalue()


def metadata(
    files: Sequence[tuple[FilmPlan, PlannedFile]], layout: str, dialect: str, facts: Facts
) -> str:
    """Return metadata.csv as the NBIA Data Retriever writes it, one row for each series.

    Args:
        files: All files of the collection with their films.
        layout: Of the folders.
        dialect: "windows" (back-slashes, LF) or "linux" (slashes, CRLF).
        facts: What is known of the written files.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n" if dialect == "windows" else "\r\n")
    writer.writerow(METADATA_COLUMNS)
    series: dict[str, list[PlannedFile]] = {}
    for _, file in files:
        series.setdefault(file.series_uid, []).append(file)
    for number, (series_uid, members) in enumerate(series.items()):
        first = members[0]
        folder = "./" + series_folder(first, layout)
        stamp = (DOWNLOADED + timedelta(milliseconds=2371 * number)).isoformat(
            timespec="milliseconds"
        )
        writer.writerow((
            series_uid, COLLECTION, "null", "httpsdoi.org10.7937K9TCIA.2016.7O02S9CY",
            first.subject, first.study_uid, "NA", f"{first.archive_date:%m-%d-%Y}",
            first.series_name, "NA", "MG", SecondaryCaptureImageStorage.name,
            str(SecondaryCaptureImageStorage), len(members),
            _size(sum(facts[file_path(member, layout)]["bytes"] for member in members)),
            folder.replace("/", "\\") if dialect == "windows" else folder,
            stamp.rstrip("0").rstrip("."),
        ))  # fmt: skip
    return text.getvalue()


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.2f} KB"


def dicom_info(files: Sequence[tuple[FilmPlan, PlannedFile]], facts: Facts) -> str:
    """Return dicom_info.csv of the Kaggle copy: where the JPEGs are and what the headers said."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file_path", "image_path", *INFO_COLUMNS))
    for film, file in files:
        path = file_path(file, "kaggle")
        fields = header_fields(file, film, facts[path])
        # The real table was written by pandas, which made floats of these.
        fields["StudyDate"] = f"{fields['StudyDate']}.0"
        fields["StudyTime"] = f"{int(fields['StudyTime'])}.0"
        writer.writerow((
            f"{COLLECTION}/dicom/{file.series_uid}/1-{file.position}.dcm", f"{COLLECTION}/{path}",
            *(fields.get(column, "") for column in INFO_COLUMNS),
        ))  # fmt: skip
    return text.getvalue()
