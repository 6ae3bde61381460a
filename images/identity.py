"""What a DICOM header says of persons; values are never returned, only the names of the tags."""

from pydicom import FileDataset

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


def identifying_tags(dataset: FileDataset) -> list[str]:
    """Return the keywords of IDENTIFYING that a header holds a value of, in that order."""
    return [name for name in IDENTIFYING if name in dataset and dataset.get(name)]


def says_burned_in(dataset: FileDataset) -> bool:
    """Return whether a header says that text is burned into the pixels (PS3.3, C.7.6.1.1.1)."""
    return str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES"
