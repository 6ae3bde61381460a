"""One image of a collection, as its tables and names have it; what most collections are read to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import read_image
from pipeline.errors import UserError
from sources.exclusion import LeftOut
from sources.writing import MASK_IN_PLACE

Reader = Callable[[Path, int], NDArray[np.uint16]]


def read_whole(path: Path, member: int) -> NDArray[np.uint16]:
    """Read an image file; see `images.files.read_image`."""
    del member
    return read_image(path)


@dataclass(frozen=True)
class Circle:
    """The outline of a lesion: centre from the upper left corner, and radius, in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image that a collection holds. Text is empty and a number None where it is not known."""

    image_id: str  # unique in the collection; letters, digits, ".", "_" and "-"
    patient_id: str  # who it shows; without patient ids, what else must stay in one split
    diagnosis: str  # one of DIAGNOSES; ABNORMAL where only a finding is told
    file: str  # path relative to the download, with forward slashes
    size: int = 0  # of the file, in bytes
    changed: int = 0  # time of its last change in nanoseconds
    member: int = -1  # its place in a file of several images, from 0
    read: Reader = read_whole  # importable by name: given the file's path and `member`
    unit: str = "mammogram"  # or "crop": a part of one, without borders and background
    rows: int = 0  # height in pixels; 0 where only the file tells
    columns: int = 0  # width in pixels; 0 where only the file tells
    split: str = ""  # the collection's own: "train", "val" or "test"
    laterality: str = ""  # "LEFT" or "RIGHT"
    view: str = ""  # "CC" or "MLO"; others as the collection has them
    finding: str = ""  # "mass", "calcification", or as the collection has it
    pathology: str = ""  # as in the source
    density: int | None = None  # BI-RADS breast density, 1 to 4
    assessment: str = ""  # BI-RADS assessment, 0 to 6
    age: int | None = None  # of the patient, in years
    site: str = ""
    machine: str = ""
    implant: str = ""  # "yes" or "no"
    collection: str = ""  # of a merged dataset: which
    circles: tuple[Circle, ...] = ()  # lesions
    mask_files: tuple[str, ...] = ()  # files of lesions' masks, relative to the download
    # Of a film that somebody turned or mirrored: the image_id of the record that stands for it.
    variant_of: str = ""
    also_named: tuple[str, ...] = ()  # other names that a list of what to leave out may have
    # Further columns of its row in the manifest, with their values.
    also: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class PlannedRecord:
    """One image that a dataset should hold."""

    record: ImageRecord
    label: str  # one of the two of the question

    @property
    def image_id(self) -> str:
        """Its name."""
        return self.record.image_id

    @property
    def patient_id(self) -> str:
        """Who it shows."""
        return self.record.patient_id

    @property
    def split(self) -> str:
        """The collection's own split."""
        return self.record.split

    @property
    def breast(self) -> tuple[str, str]:
        """The patient and the side."""
        return self.record.patient_id, self.record.laterality


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a collection holds."""

    records: tuple[ImageRecord, ...]
    # (what, reason) of rows and files that cannot be used.
    set_aside: tuple[tuple[str, str], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()  # (what, what to know of it) of what is usable
    notes: tuple[str, ...] = ()  # what a person should know before trusting a figure
    has_patients: bool = True  # whether patient_id is a person
    left_out: tuple[LeftOut, ...] = ()  # what was left out by rule while reading: twins, say
    # What to say beside the share that the commoner label has, by the question asked.
    on_question: Mapping[str, str] = field(default_factory=dict)
    # Facts of the collection for summary.json, as JSON can hold them.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordFile:
    """The file of a record; see `sources.writing.Candidate`."""

    record: ImageRecord

    @property
    def name(self) -> str:
        """Its path, and its number where the file holds several."""
        member = self.record.member
        return self.record.file if member < 0 else f"{self.record.file}[{member}]"

    @property
    def source_id(self) -> str:
        """What the collection calls it."""
        return self.name

    @property
    def size(self) -> int:
        """Bytes that are read for it."""
        return self.record.size

    @property
    def pixels(self) -> int:
        """How many pixels it has; 0 where only the file tells."""
        return self.record.rows * self.record.columns

    @property
    def defect(self) -> str:
        """Nothing: it is found out when it is read."""
        return ""

    def facts(self) -> Mapping[str, Any]:
        """Return what tells it from any other content."""
        return {"name": self.name, "size": self.record.size, "changed": self.record.changed}

    def read(self, source: Path, wants_mask: bool) -> NDArray[np.uint16]:
        """Return its pixels."""
        del wants_mask
        path = source / self.record.file
        try:
            pixels = self.record.read(path, self.record.member)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        if pixels.min() == pixels.max():
            raise UserError("is of one grey value")
        return pixels


@dataclass(frozen=True)
class CircleMask:
    """The mask of a lesion that the collection gives as a circle; see `Candidate`."""

    name: str
    circle: Circle
    rows: int
    columns: int

    @property
    def source_id(self) -> str:
        """What the collection calls it."""
        return self.name

    @property
    def size(self) -> int:
        """Bytes that are read for it: none."""
        return 0

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.rows * self.columns

    @property
    def defect(self) -> str:
        """Why it cannot be drawn."""
        x, y, radius = self.circle.x, self.circle.y, self.circle.radius
        outside = x + radius < 0 or y + radius < 0
        outside |= x - radius > self.columns or y - radius > self.rows
        return "the lesion lies outside the film" if outside else ""

    def facts(self) -> Mapping[str, Any]:
        """Return what tells it from any other mask."""
        circle = self.circle
        return {"circle": [circle.x, circle.y, circle.radius], "size": [self.rows, self.columns]}

    def read(self, source: Path, wants_mask: bool) -> NDArray[np.uint16]:
        """Return it: white inside the circle."""
        del source
        if not wants_mask:
            raise UserError(MASK_IN_PLACE)
        drawn = np.zeros((self.rows, self.columns), np.uint16)
        centre = round(self.circle.x), round(self.circle.y)
        radius = max(1, round(self.circle.radius))
        cv2.circle(drawn, centre, radius, int(np.iinfo(np.uint16).max), cv2.FILLED)
        return drawn


@dataclass(frozen=True)
class MaskImage:
    """A file that shows the mask of a lesion; see `sources.writing.Candidate`."""

    name: str
    size: int = 0
    pixels: int = 0
    defect: str = ""

    @property
    def source_id(self) -> str:
        """What the collection calls it."""
        return self.name

    def facts(self) -> Mapping[str, Any]:
        """Return what tells it from any other mask."""
        return {"name": self.name}

    def read(self, source: Path, wants_mask: bool) -> NDArray[np.uint16]:
        """Return its pixels."""
        del wants_mask
        return read_image(source / self.name)
