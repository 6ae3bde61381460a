"""Where the lesions of an image lie, in the pixels of a network's input."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.files import WHITE_8, read_image
from images.frame import CENTRE, Box, Frame
from images.outlines import Outline, outlines_of
from pipeline.errors import UserError
from pipeline.manifest import MaskFile, Row, read_manifest, read_masks
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.provenance import source_of

Mask = NDArray[np.bool_]
Heat = NDArray[np.float32]
STRETCHED = "stretched"


@dataclass(frozen=True)
class View:
    """How a network's input lies in the image of the dataset, and that in the film."""

    film: Frame | None  # of the dataset's image in the film; None where it is the whole film
    image: Frame  # of the input in the dataset's image
    shape: tuple[int, int]  # of the dataset's image, height and width in pixels

    @classmethod
    def of(cls, row: Row, size: int) -> "View":
        """Return the view of an image in an input of `size` pixels (`fit_square` made it)."""
        film = None if row.crop_width is None else Frame.of_row(row)
        whole = Box(0, 0, row.width, row.height)
        return cls(film, Frame.around(whole, size, CENTRE), (row.height, row.width))

    def mask_to_input(self, mask: Mask) -> Mask:
        """Map an (H, W) mask of the film to (size, size)."""
        shades = np.where(mask, np.uint8(WHITE_8), np.uint8(0))
        if self.film is not None:
            shades = self.film.image_to_working(shades)
        found: Mask = self.image.image_to_working(shades) > WHITE_8 // 2
        return found

    def map_to_image(self, heat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map a (size, size) map to (H, W) of the dataset's image."""
        return self.image.image_to_original(heat, self.shape)

    def map_to_film(self, heat: NDArray[np.float32], shape: tuple[int, int]) -> Heat:
        """Map a (size, size) map to (H, W) = shape of the film."""
        found = self.map_to_image(heat)
        return found if self.film is None else self.film.image_to_original(found, shape)

    def point_to_film(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the input to the film, in pixels from its upper left corner."""
        point = self.image.to_original(np.array([x, y]))
        if self.film is not None:
            point = self.film.to_original(point)
        return float(point[0]), float(point[1])


@dataclass(frozen=True)
class Lesions:
    """The lesions of the images of a dataset, as far as their masks are known and fit."""

    masks: Mapping[str, Mask]  # by image_id, (size, size): where any lesion of the image lies
    outlines: Mapping[str, Sequence[Outline]]  # by image_id, in pixels of the film
    films: Mapping[str, Path]  # by image_id, as organised; empty where they are gone
    set_aside: Sequence[tuple[str, str]]  # (what, reason) of masks that cannot be used

    def digest_of(self, image_id: str) -> str:
        """A digest of where the lesions of an image lie, as far as that is known."""
        found = hashlib.sha256(self.masks.get(image_id, np.zeros(0)).tobytes())
        for outline in self.outlines.get(image_id, ()):
            found.update(outline.tobytes())
        return found.hexdigest()


def read_lesions(
    data: Path, record: Mapping[str, Any], rows: Sequence[Row], size: int, progress: Progress
) -> Lesions:
    """Read the masks of images; those that do not fit are set aside.

    Args:
        data: The dataset, organised or preprocessed.
        record: Its completion record.
        rows: The images.
        size: Side of the network's input in pixels.
        progress: Where it reports.
    """
    organised = data if record["stage"] == "organize" else source_of(data, record)
    masks: dict[str, Mask] = {}
    outlines: dict[str, Sequence[Outline]] = {}
    set_aside = []
    if organised is None:
        return Lesions({}, {}, {}, ())
    files = read_masks(organised)
    films = {row.image_id: row for row in read_manifest(organised)}
    marked = [row for row in rows if row.image_id in files and row.image_id in films]
    with progress.track("Reading masks", len(marked), "images") as advance:
        for row in marked:
            try:
                whole = _mask(files[row.image_id], films[row.image_id])
                view = View.of(row, size)
                masks[row.image_id] = _shown(view, whole)
                outlines[row.image_id] = outlines_of(whole)
            except UserError as error:
                set_aside.append((f"masks of {row.image_id}", str(error)))
            advance(1)
    paths = {name: inside(organised, row.path) for name, row in films.items()}
    return Lesions(masks, outlines, paths, set_aside)


def _mask(files: Sequence[MaskFile], film: Row) -> Mask:
    """Return where any lesion of a film lies, (H, W).

    Raises:
        UserError: A mask cannot be read, does not fit or is empty, or a lesion has none.
    """
    if len(files) != film.lesions:
        # What a map finds beside the masks could be the lesion without one.
        raise UserError(f"{len(files)} of {film.lesions} lesions have one")
    whole = np.zeros((film.height, film.width), np.bool_)
    for file in files:
        path = file.path
        if file.fit == STRETCHED:
            raise UserError(f"{path}: was stretched to its film, whose aspect is another")
        mask = read_image(path) > 0
        if mask.shape != whole.shape:
            found, wanted = ("{1} x {0}".format(*one) for one in (mask.shape, whole.shape))
            raise UserError(f"{path}: has {found} pixels, and its film {wanted}")
        if not mask.any():
            raise UserError(f"{path}: is empty")
        whole |= mask
    return whole


def _shown(view: View, mask: Mask) -> Mask:
    found = view.mask_to_input(mask)
    if not found.any():
        raise UserError("the lesion lies outside of what the network sees")
    return found
