"""An upload on its way: read, scored, explained; all in memory. No torch at the first page."""

from dataclasses import dataclass

import numpy as np

from images.archives import MemoryFile
from interface.webapp.pictures import Grey, Map, View, first_view, reduced
from models.prediction.predictor import Prediction, Predictor
from models.prediction.reading import FilmImage, ReadJob, open_film, read_film
from pipeline.errors import UserError

ZIPPED = b"PK\x03\x04"  # APPNOTE.TXT of PKWARE, 4.3.7
DEFLATED = b"1.2.840.10008.1.2.1.99"  # Deflated Explicit VR Little Endian (PS3.5, A.5)


@dataclass(frozen=True, eq=False)
class Film:
    """What the page shows of an upload."""

    name: str  # of the file, for the eyes of who uploaded it alone
    pixels: Grey  # (H, W), reduced where it is large
    height: int  # of the film as it was uploaded
    width: int
    laterality: str
    view: str
    first: View


@dataclass(frozen=True, eq=False)
class Answer:
    """What one run says of one film."""

    said: Prediction
    heat: Map | None  # (h, w) uint8 in [0, 255], of the film; None where it would mean nothing


def read_upload(file: MemoryFile) -> Film:
    """Read an upload for the eye.

    Raises:
        UserError: It cannot be read, or is too large.
    """
    if file.content.startswith(ZIPPED):
        raise UserError(f"{file}: is a zip file", "unpack it and drop the images that lie in it")
    # It may unpack to a thousand times its size, and only pydicom could tell, by unpacking it.
    if DEFLATED in file.content:
        raise UserError(f"{file}: is a deflated DICOM file, which this page does not take")
    pixels, facts = open_film(file)
    shown = reduced(pixels)
    return Film(
        name=file.name,
        pixels=shown,
        height=pixels.shape[0],
        width=pixels.shape[1],
        laterality=str(facts.get("laterality", "")),
        view=str(facts.get("view", "")),
        first=first_view(shown),
    )


def answer(file: MemoryFile, predictor: Predictor) -> Answer:
    """Score an upload, and show where the evidence of malignancy lies.

    Raises:
        UserError: It shows no breast.
    """
    film = read_film(ReadJob(file, predictor.looks))
    (said,) = predictor.predict([film])
    # Of an image that is unlike those of the training a map would mean nothing either.
    return Answer(said, None if said.complaints else _heat(film, predictor))


def _heat(film: FilmImage, predictor: Predictor) -> Map | None:
    from models.prediction.heat import film_heat

    heat = film_heat(film, predictor)
    return None if heat is None else np.asarray(np.rint(heat * 255), np.uint8)
