"""One file -> what networks take of it, made as the run's own images were; light, no torch."""

import dataclasses
import functools
import hashlib
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from images import png, steps
from images.archives import ImageFile, MemoryFile, open_binary, size_of
from images.chain import preprocess_image
from images.files import SPREAD, dicom_reader, is_dicom, read_bytes, read_image
from images.frame import Frame
from images.jobs import code_digest, pixel_options, use_one_thread
from images.square import fit_square
from images.thumbnails import thumbnail
from pipeline.errors import UserError
from pipeline.options import parse
from pipeline.provenance import differences
from pipeline.records import RECORD, plain_options, read_json
from pipeline.stages.data import Preprocess

MOST_PIXELS = 178_000_000  # four times the largest film of CBIS-DDSM; Pillow refuses more as well
COLOUR = 0.02  # of the grey range: mean difference between colours, above which an image is no film
GREY_PNG_AT, GREY_PNG = 25, (b"\0", b"\4")  # colour type: grey, grey with alpha (PNG, 11.2.1)
DEPTH = 2  # folders from an image up to its dataset: FOLDER/split/label/image.png
Image = NDArray[np.uint8]


@functools.cache
def reading_code() -> str:
    """Return a digest of the code that reads films: what an older version read is read again."""
    return code_digest(*map(str, sorted(Path(png.__file__).parent.glob("*.py"))))


@dataclass(frozen=True)
class Look:
    """How a run's images were made from films."""

    preprocess: Preprocess | None  # None where it was trained on films as they are
    unit: str  # "mammogram", "crop" or "patch"
    depth: int  # bits that a film's grey values were organised with: 8 or 16
    size: int  # side of the network's input in pixels

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Look":
        """Return that of a model.json."""
        made = facts["preprocess"]
        return cls(
            preprocess=None if made is None else known_options(made),
            unit=str(facts["unit"]),
            depth=int(facts.get("depth") or 16),
            size=int(facts["input"]["size"]),
        )


@dataclass(frozen=True)
class ReadJob:
    """A file to read, for the looks of one or several runs."""

    path: ImageFile
    looks: tuple[Look, ...]


@dataclass(frozen=True, eq=False)
class FilmImage:
    """What was read of a file."""

    inputs: tuple[Image, ...]  # (S, S) of each look
    frames: tuple[Frame | None, ...]  # where each lies in the film; None where it is the film
    thumbnail: Image | None  # of the film; None where the file was preprocessed already
    height: int
    width: int
    colour: bool = False  # whether it is no grey image
    laterality: str = ""  # "LEFT", "RIGHT" or empty, from a DICOM header
    view: str = ""  # "CC", "MLO" or empty, likewise
    study: str = ""  # digest of the study that it belongs to; empty where that is not known

    @property
    def side(self) -> int | None:
        """The film's longer side in pixels."""
        return None if self.thumbnail is None else max(self.height, self.width)


def known_options(values: Mapping[str, Any]) -> Preprocess:
    """Return the options that a record holds; paths matter for no image.

    Raises:
        UserError: One of them is none that preprocessing takes.
    """
    items = {item.name: item for item in dataclasses.fields(Preprocess)}
    known = {name: value for name, value in pixel_options(values).items() if name in items}
    return Preprocess(**{name: parse(items[name], value) for name, value in known.items()})


@contextmanager
def loading_readers(images: Sequence[Path]) -> Iterator[None]:
    """Load what reads the first image while a block opens models.

    ONNX Runtime and a digest leave the interpreter to others while they are at work.
    """
    dicom = False
    with suppress(UserError):  # a file that may not be read is set aside later
        dicom = bool(images) and is_dicom(images[0])
    if not dicom:
        yield
        return
    loading = threading.Thread(target=dicom_reader)
    loading.start()
    try:
        yield
    finally:
        loading.join()


def read_film(job: ReadJob) -> FilmImage:
    """Read a file and make of it what each look wants.

    Raises:
        UserError: It cannot be read, is too large, or shows no breast.
    """
    pixels, facts = open_film(job.path)
    return film_image(pixels, job, facts)


def open_film(path: ImageFile) -> tuple[NDArray[np.uint16], dict[str, Any]]:
    """Read the pixels of a file, and what else `FilmImage` holds of it.

    Returns:
        (H, W) uint16 in [0, 65535]; facts of `film_image`.

    Raises:
        UserError: It cannot be read, or is too large.
    """
    use_one_thread()
    if not size_of(path):
        raise UserError(f"{path}: is empty")
    header = dicom_reader().read_header(path) if is_dicom(path) else None
    _refuse_huge(path, header)
    return read_image(path), _facts_of(path, header)


def film_image(pixels: NDArray[np.uint16], job: ReadJob, facts: Mapping[str, Any]) -> FilmImage:
    """Make of a film what each look wants.

    Args:
        pixels: (H, W) uint16 in [0, 65535].
        job: Of it.
        facts: Further facts of `FilmImage`.

    Raises:
        UserError: It shows no breast.
    """
    made = [_made(job.path, pixels, look) for look in job.looks]
    done_before = any(one is None for one in made)
    inputs, frames = [], []
    for look, one in zip(job.looks, made, strict=True):
        image, frame = (pixels, None) if one is None else one
        inputs.append(fit_square(image, look.size))
        frames.append(frame)
    return FilmImage(
        inputs=tuple(inputs),
        frames=tuple(frames),
        thumbnail=None if done_before else thumbnail(pixels),
        height=pixels.shape[0],
        width=pixels.shape[1],
        **facts,
    )


def _made(
    path: ImageFile, pixels: NDArray[np.uint16], look: Look
) -> tuple[NDArray[np.uint16], Frame | None] | None:
    """Return the preprocessed film in the 16-bit range; None where the file is one already."""
    if look.preprocess is None:
        return pixels, None
    if is_preprocessed(path, look.preprocess):
        return None
    if look.depth == 8:
        pixels = np.multiply(steps.to_uint8(pixels), SPREAD, dtype=np.uint16)
    try:
        image, frame = preprocess_image(pixels, look.preprocess, look.unit)
    except UserError as error:
        raise UserError(f"{path}: {error.problem}") from None
    return np.multiply(image, SPREAD, dtype=np.uint16), frame


def is_preprocessed(path: ImageFile, options: Preprocess) -> bool:
    """Return whether a file lies in a dataset that was preprocessed in this way.

    Raises:
        UserError: It was preprocessed in another way.
    """
    if isinstance(path, MemoryFile) or len(path.absolute().parents) <= DEPTH:
        return False
    record = path.absolute().parents[DEPTH] / RECORD
    if not record.is_file():
        return False
    made = _preprocessing_of(record, record.stat().st_mtime_ns)
    if made is None:
        return False
    if differing := differences(pixel_options(plain_options(options)), pixel_options(made)):
        raise UserError(
            f"{path}: was preprocessed otherwise than the run's images ({differing})",
            "give the films that it was made from",
        )
    return True


@functools.cache  # each of its thousands of images asks
def _preprocessing_of(record: Path, changed: int) -> Mapping[str, Any] | None:
    """Return the options that a record of preprocessing holds; None of another stage's."""
    del changed  # it is read again then
    found = read_json(record)
    return found["options"] if found["stage"] == "preprocess" else None


def _facts_of(path: ImageFile, header: Any) -> dict[str, Any]:
    if header is None:
        return {"colour": _is_coloured(path)}
    # A digest: no identifier of a header goes any further.
    study = hashlib.sha256(header.study_uid.encode()).hexdigest()[:16] if header.study_uid else ""
    coloured = header.samples > 1 and dicom_reader().colour_spread(path) > COLOUR
    return {"laterality": header.laterality, "view": header.view, "study": study,
            "colour": coloured}  # fmt: skip


def _is_coloured(path: ImageFile) -> bool:
    with open_binary(path, GREY_PNG_AT + 1) as file:
        start = file.read(GREY_PNG_AT + 1)
    if start.startswith(png.SIGNATURE) and start[GREY_PNG_AT:] in GREY_PNG:
        return False  # it need not be decoded once more
    small = cv2.imdecode(read_bytes(path), cv2.IMREAD_REDUCED_COLOR_8)
    if small is None:
        return False
    spread = small.max(axis=2).astype(np.int16) - small.min(axis=2)
    return bool(spread.mean() > COLOUR * 255)


def _refuse_huge(path: ImageFile, header: Any) -> None:
    """Refuse what would take gigabytes, before it is decoded."""
    if header is not None:
        huge = header.rows * header.columns > MOST_PIXELS
    else:
        with open_binary(path) as file:
            huge = _declares_more(file)
    if huge:
        raise UserError(f"{path}: has more than {MOST_PIXELS // 10**6} million pixels")


def _declares_more(file: BinaryIO) -> bool:
    """Return whether a picture's header declares more pixels than are read."""
    from PIL import Image as Pillow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(file) as image:  # reads the header alone
                return image.width * image.height > MOST_PIXELS
        except Pillow.DecompressionBombError:
            return True
        except Exception:  # whatever a parser raises: decoding will say what is wrong
            return False
