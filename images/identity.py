"""What a DICOM header says of persons; values are never returned, only the names of the tags."""

from typing import Any

from pydicom import FileDataset
from pydicom.datadict import tag_for_keyword

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
