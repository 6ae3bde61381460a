"""Patches as the probe looks at them: a lesion tells the label, and that is no shortcut."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import read_image
from images.thumbnails import Thumbnail
from pipeline.errors import UserError
from pipeline.manifest import PATCH_TABLE, REMEDY, Row, read_masks
from pipeline.tables import read_table

Mask = NDArray[np.bool_]
MARGIN = 1 / 8  # of a patch's side: how far a lesion shines beyond its outline


def places_of_lesions(organised: Path, rows: Iterable[Row]) -> dict[str, Mask]:
    """Return where lesions lie in patches, and in normal ones the place of those they are like.

    Args:
        organised: The dataset of the patches, with their masks.
        rows: Of the patches that are looked at.

    Returns:
        By image_id, (side, side) bool in the pixels of the organised patch.

    Raises:
        UserError: A table or a mask cannot be read.
    """
    files = read_masks(organised)
    table = read_table(organised / PATCH_TABLE, ("image_id", "like"), REMEDY)
    like = {line.cells["image_id"]: line.cells["like"] for line in table.lines}
    known: dict[str, Mask] = {}
    for name in {like[row.image_id] for row in rows if row.image_id in like} & files.keys():
        known[name] = np.any([read_image(file.path) > 0 for file in files[name]], axis=0)
    return {name: known[other] for name, other in like.items() if other in known}


def hidden(image: Thumbnail, place: Mask | None) -> Thumbnail:
    """Return the thumbnail of a patch, (h, w), with its lesion as grey as what surrounds it.

    Preprocessing scales a patch and does no more, so the place scales with it. Where it is not
    known, or the lesion fills the patch, all of it is shown.
    """
    if place is None:
        return image
    size = image.shape[::-1]
    shown = cv2.resize(place.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    reach = 2 * int(MARGIN * max(size)) + 1
    mask = cv2.dilate(shown, np.ones((reach, reach), np.uint8)) > 0
    if mask.all():
        return image
    result = image.copy()
    result[mask] = round(float(image[~mask].mean()))
    return result


def problem_of(organised: Path | None, places: Mapping[str, Mask]) -> str:
    """Say why a dataset of patches cannot be judged; empty where it can."""
    if places:
        return ""
    where = "" if organised is None else f" in {organised}"
    return f"there are no masks{where}, and a lesion itself tells its label"


def read_places(organised: Path | None, rows: Iterable[Row]) -> tuple[dict[str, Mask], str]:
    """Return `places_of_lesions`, and why there are none."""
    found: dict[str, Mask] = {}
    if organised is not None and (organised / PATCH_TABLE).is_file():
        try:
            found = places_of_lesions(organised, rows)
        except UserError as error:
            return {}, str(error)
    return found, problem_of(organised, found)
