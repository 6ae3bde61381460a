"""What came of a planned dataset, and the guard against leaks; for every collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.thumbnails import Thumbnail
from pipeline.errors import UserError
from pipeline.manifest import Row
from pipeline.records import write_table
from sources.splits import Planned
from sources.twins import SIDE, fingerprint, near_duplicates

MISSING = "missing: "  # how the reason begins where there is no file
LEAKS = "leaks.csv"
NEAR = "near_duplicates.csv"
MASK_COLUMNS = (
    "image_id", "abnormality", "path", "source_id", "rows", "columns", "fit", "scale_y", "scale_x",
    "area",
)  # fmt: skip
# x, y, side in pixels of the film, from its upper left corner; shares of the patch's area; like
# names the patch of the lesion that a normal one is like, or itself.
PATCH_COLUMNS = (
    "image_id", "film", "source_id", "x", "y", "side", "breast_share", "lesion_share",
    "like",
)  # fmt: skip


@dataclass
class Account:
    """What came of the planned images."""

    rows: list[Row] = field(default_factory=list)  # of the manifest
    images: list[Planned] = field(default_factory=list)  # that they stand for
    masks: list[tuple[Any, ...]] = field(default_factory=list)  # lines of masks.csv
    patches: list[tuple[Any, ...]] = field(default_factory=list)  # lines of patches.csv
    # (what, reason) of what could not be used.
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (file, what to know of it)
    # Digest of the pixels of each image, by image_id.
    pixels: dict[str, str] = field(default_factory=dict)


def guard_against_leaks(out: Path, account: Account) -> None:
    """Stop where two splits hold the same pixels; that no patient is in two is checked elsewhere.

    Raises:
        UserError: Two images in different splits are the same, pixel for pixel; all such
            are listed in leaks.csv.
    """
    by_pixels: dict[str, list[Row]] = {}
    for row in sorted(account.rows, key=lambda row: row.image_id):
        by_pixels.setdefault(account.pixels[row.image_id], []).append(row)
    leaks = [rows for rows in by_pixels.values() if len({row.split for row in rows}) > 1]
    (out / LEAKS).unlink(missing_ok=True)
    if not leaks:
        return
    lines = [
        (row.image_id, row.split, number)
        for number, rows in enumerate(leaks, start=1)
        for row in rows
    ]
    write_table(out / LEAKS, ("image_id", "split", "same_pixels"), lines)
    row = leaks[0][0]
    other = next(other for other in leaks[0] if other.split != row.split)
    raise UserError(
        f"{row.image_id} ({row.split}) and {other.image_id} ({other.split}): the same pixels in "
        f"two splits, so a model would be tested on what it learnt (all such: {out / LEAKS})",
        "list all but one split's of each number in a file and give it as --exclude",
    )


def near_duplicates_note(
    out: Path, rows: Sequence[Row], thumbnails: Mapping[str, Thumbnail]
) -> list[str]:
    """Say which images look the same and count as of several patients; list them in a file.

    Copies that were saved anew, reduced, turned or mirrored are found; those that were cropped or
    are brighter are not. Two women may look alike at this size: nothing is left out.

    Args:
        out: The dataset.
        rows: Of its manifest.
        thumbnails: By image_id.
    """
    seen = [row for row in rows if min(thumbnails[row.image_id].shape) >= SIDE]
    groups = []
    for places in near_duplicates([fingerprint(thumbnails[row.image_id]) for row in seen]):
        group = [seen[place] for place in places]
        if len({row.patient_id for row in group}) > 1:
            groups.append(group)
    (out / NEAR).unlink(missing_ok=True)
    if not groups:
        return []
    lines = [(row.image_id, row.patient_id, row.split, row.label, number)
             for number, group in enumerate(groups, start=1) for row in group]  # fmt: skip
    write_table(out / NEAR, ("image_id", "patient_id", "split", "label", "looks_like"), lines)
    crossing = sum(len({row.split for row in group}) > 1 for group in groups)
    return [
        f"{len(lines):,} images look like one of another patient, {crossing:,} of "
        f"{len(groups):,} such groups in several splits: {out / NEAR} lists them; where they are "
        "copies, give all but one of each group to --exclude"
    ]
