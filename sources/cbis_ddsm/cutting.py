"""CBIS-DDSM: cuts the patches of a film, which is decoded once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.files import range_note, write_png
from images.frame import Box
from pipeline.paths import inside
from pipeline.records import digest
from sources.cbis_ddsm.places import Mask, Tissue, film_box, lesion_box
from sources.writing import (
    MASKS,
    PIXELS,
    Facts,
    Job,
    fit_of,
    fitted_mask,
    read_first,
    thumbnail_path,
    write_image,
)

RULES = 1  # to be raised when places are chosen by other rules, so that patches are cut anew
STRETCHED = "stretched"
SMALL_FILM = "its film is smaller than a patch"
NO_MASK = "nobody knows where the lesion is"
NO_ROOM = "no room: nowhere in the breast is a place that is clear of lesions and like theirs"
UNKNOWN = "no normal tissue is known: "  # where a lesion of the film may lie anywhere


@dataclass(frozen=True)
class Patch:
    """One patch to cut."""

    name: str  # of the file, relative to the dataset
    image_id: str  # as the dataset shows it
    lesion: int  # number of the lesion that it shows or is matched to, in the order of the masks
    normal: bool = False  # whether it is of normal tissue


@dataclass(frozen=True, kw_only=True)
class FilmJob(Job):
    """The patches of one film to write, with the masks of the lesions that they show."""

    film: str  # what places are drawn by
    seed: int
    side: int  # of a patch in pixels
    masks: tuple[Job, ...]  # how the mask of each lesion of the film is read, by its name
    patches: tuple[Patch, ...]
    writes_masks: bool

    @property
    def key(self) -> str:
        """Digest of what the patches are made from."""
        masks = [(job.name, [file.facts() for file in job.candidates]) for job in self.masks]
        chosen = RULES, self.seed, self.film, self.side, self.writes_masks
        patches = [(patch.name, patch.lesion, patch.normal) for patch in self.patches]
        films = [file.facts() for file in self.candidates]
        return digest(PIXELS, chosen, self.depth, films, masks, patches)

    @property
    def names(self) -> tuple[str, ...]:
        """What it may write, relative to the dataset; its own name first, which is no file's."""
        cut = (patch.name for patch in self.patches)
        shown = (self.mask_name(patch, number) for patch in self.patches
                 for number in range(len(self.masks)) if not patch.normal)  # fmt: skip
        return (self.name, *cut, *(shown if self.writes_masks else ()))

    @property
    def images(self) -> int:
        """How many images it writes at most."""
        return len(self.patches)

    def mask_name(self, patch: Patch, number: int) -> str:
        """Return the file of the mask of a lesion, by its number, in a patch."""
        return f"{MASKS}/{patch.image_id}_{self.masks[number].name}.png"

    def pixels_written(self, pixels: int) -> int:
        """Return how many pixels it writes, at most."""
        return self.images * min(pixels, self.side**2)

    def is_there(self, facts: Facts) -> bool:
        """Return whether the patches that it could cut are there, with their masks."""
        for patch, found in zip(self.patches, facts["patches"], strict=True):
            if "why" not in found:
                shown = [self.mask_name(patch, one["lesion"]) for one in found["masks"]]
                paths = [inside(self.out, name) for name in (patch.name, *shown)]
                paths.append(thumbnail_path(self.out, patch.name))
                if not all(path.is_file() for path in paths):
                    return False
        return True

    def files(self) -> list[Any]:
        """Return what it may write."""
        written = [inside(self.out, name) for name in self.names[1:]]
        return written + [thumbnail_path(self.out, patch.name) for patch in self.patches]

    def write(self, image: NDArray[np.uint16]) -> dict[str, Any]:
        """Cut and write the patches of a film.

        Args:
            image: (H, W) uint16 in [0, 65535].

        Returns:
            height and width of the film; note on its range; masks, what was learnt of that of
            each lesion; patches, of each where it lies and which lesions it shows, or why it could
            not be cut.
        """
        masks, told = self._read_masks(image.shape)
        made: list[dict[str, Any]] = [{"why": SMALL_FILM}] * len(self.patches)
        if min(image.shape) >= self.side:
            made = self._cut(image, masks)
        kept = set()
        for patch, found in zip(self.patches, made, strict=True):
            if "why" not in found:
                shown = [self.mask_name(patch, one["lesion"]) for one in found["masks"]]
                kept |= {inside(self.out, name) for name in (patch.name, *shown)}
                kept.add(thumbnail_path(self.out, patch.name))
        for stale in set(self.files()) - kept:
            stale.unlink(missing_ok=True)  # of an earlier run, when it could be cut
        height, width = image.shape
        return {
            "height": height, "width": width, "note": range_note(image), "masks": told,
            "patches": made,
        }  # fmt: skip

    def _read_masks(self, shape: tuple[int, ...]) -> tuple[list[Mask], list[dict[str, Any]]]:
        """Return each lesion's mask, (H, W), empty where there is none that fits; and its facts."""
        masks, told = [], []
        for job in self.masks:
            image, facts = read_first(job)
            mask = np.zeros(shape, np.bool_)
            if image is None:
                facts["why"] = ""  # the account says which file is missing or damaged
            else:
                (rows, columns), fit = image.shape, fit_of(*image.shape, *shape)
                facts |= {"rows": rows, "columns": columns, "fit": fit}
                if fit == STRETCHED:
                    sizes = f"{columns} x {rows} pixels against {shape[1]} x {shape[0]}"
                    facts["why"] = f"its mask has another aspect than its film ({sizes})"
                else:
                    mask = fitted_mask(image, shape)
                    if not mask.any():
                        facts["why"] = "its mask is empty"
            masks.append(mask)
            told.append(facts)
        return masks, told

    def _cut(self, image: NDArray[np.uint16], masks: Sequence[Mask]) -> list[dict[str, Any]]:
        """Choose the places of all patches, and write them."""
        box = film_box(image, self.side)
        known = [bool(mask.any()) for mask in masks]
        boxes = [lesion_box(mask, self.side, box) if there else None
                 for mask, there in zip(masks, known, strict=True)]  # fmt: skip
        tissue = Tissue.of(image, masks, self.side, box)
        made: list[dict[str, Any]] = []
        taken: list[Box] = []
        for patch in self.patches:
            around = boxes[patch.lesion]
            if patch.normal and not all(known):
                made.append({"why": UNKNOWN, "lesion": known.index(False)})
                continue
            if around is None:
                made.append({"why": NO_MASK, "lesion": patch.lesion})
                continue
            place: Box | None = around
            if patch.normal:
                name = f"{self.film} {patch.lesion}"
                place = tissue.normal_box(around, taken, self.seed, name)
            if place is None:
                made.append({"why": NO_ROOM})
                continue
            taken += [place] * patch.normal
            made.append(self._write(patch, place, image, masks, tissue))
        return made

    def _write(
        self,
        patch: Patch,
        place: Box,
        image: NDArray[np.uint16],
        masks: Sequence[Mask],
        tissue: Tissue,
    ) -> dict[str, Any]:
        """Write one patch, and the masks of the lesions in it, its own first."""
        facts = write_image(self.out, patch.name, self.depth, np.ascontiguousarray(place.of(image)))
        breast, lesion = tissue.shares(place, masks[patch.lesion])
        numbers = () if patch.normal else range(len(masks))
        shown = [number for number in numbers if place.of(masks[number]).any()]
        shown.sort(key=lambda number: number != patch.lesion)
        found = []
        for number in shown:
            mask = np.ascontiguousarray(place.of(masks[number]))
            if self.writes_masks:
                write_png(inside(self.out, self.mask_name(patch, number)), mask)
            whole = int(np.count_nonzero(masks[number]))
            found.append({"lesion": number, "area": int(np.count_nonzero(mask)), "whole": whole})
        return {
            "x": place.x, "y": place.y, "side": self.side, "pixels": facts["pixels"],
            "breast": round(breast, 4), "lesion": round(lesion, 4), "masks": found,
        }  # fmt: skip
