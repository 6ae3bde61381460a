"""What a DICOM file is, and what its header says of persons: never values, only names of tags."""

from typing import Any, BinaryIO

from pydicom import FileDataset
from pydicom.config import IGNORE
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID

# Of the attributes that PS3.15, table E.1-1, has removed or replaced: those that name a person, or
# a place, a date or a number by which a person can be found.
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "OtherPatientIDs",
    "OtherPatientNames", "PatientAddress", "PatientTelephoneNumbers", "PatientAge",
    "PatientMotherBirthName", "PatientBirthName", "EthnicGroup", "Occupation", "MilitaryRank",
    "PatientComments", "AccessionNumber", "StudyID", "AdmissionID", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "ReferringPhysicianName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName",
    "RequestingPhysician", "DeviceSerialNumber", "StudyDate", "SeriesDate", "AcquisitionDate",
    "ContentDate", "ImageComments",
)  # fmt: skip

SOP_CLASS = 0x00080016
TAGS = {name: tag_for_keyword(name) for name in IDENTIFYING}


def identifying_tags(dataset: FileDataset) -> list[str]:
    """Return the keywords of IDENTIFYING that a header holds a value of, in that order."""
    held = {int(tag) for tag in dataset.keys()}
    return [name for name, tag in TAGS.items() if tag in held and _has_value(dataset, tag)]


def _has_value(dataset: FileDataset, tag: Any) -> bool:
    # As read: to convert the values of ten thousand headers would take a third of their reading.
    value = dataset.get_item(tag).value
    return bool(value.strip() if isinstance(value, bytes) else value)


def says_burned_in(dataset: FileDataset) -> bool:
    """Return whether a header says that text is burned into the pixels (PS3.3, C.7.6.1.1.1)."""
    return str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES"


def without_pixels(dataset: FileDataset) -> str:
    """Return what a file is in which no pixel data was found: a report, say, of a study's folder.

    The SOP class tells (PS3.4, B.5): the name of every class of images says that it is one.
    """
    # As read: the bytes may be damaged, or too many.
    value = dataset.get_item(SOP_CLASS, keep_deferred=True).value if SOP_CLASS in dataset else ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    kind = UID(text.rstrip("\0 "), IGNORE)
    if kind.name != kind and "Image" not in kind.name:
        return f"is no image ({kind.name})"
    return "is cut off before its pixel data, or is no image"


def guess_kind(file: BinaryIO) -> str:
    """Return what a file without the DICOM prefix seems to be."""
    file.seek(0)
    start = file.read(512)
    if not start:
        return "is empty"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "is a text file, not DICOM"
    return "is not DICOM (the prefix DICM is missing)"
