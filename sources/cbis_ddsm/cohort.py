"""CBIS-DDSM: which images a dataset should hold, in which official split, and what is left out.

The case descriptions alone decide; no file is looked at, so that a partial download gets the same
images in the same splits as a whole one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from pipeline.errors import UserError
from pipeline.options import defaults
from pipeline.stages.data import Organize
from sources.cbis_ddsm.tables import CALCIFICATION, MALIGNANT, MASS, SHORT, WITHOUT_CALLBACK, Lesion
from sources.exclusion import LeftOut, breast_rules, listed_names

UNITS = {"mammogram": "mammograms", "crop": "lesion crops", "patch": "patches"}
FINDINGS = {"mass": (MASS,), "calc": (CALCIFICATION,), "both": (MASS, CALCIFICATION)}
PRESETS: dict[str, dict[str, Any]] = {
    # It sorted films into a folder for each pathology, so a film with both was counted twice.
    "original": {
        "unit": "mammogram", "finding": "mass", "without_callback": "leave-out", "mixed": "each",
    },
}  # fmt: skip
FILMS_HOME = {"drop-train": "test", "drop-test": "train"}  # where pooled patients stay


@dataclass(frozen=True)
class PlannedImage:
    """One image that a dataset should hold."""

    # "P_00001_LEFT_CC", for a crop or a patch "P_00001_LEFT_CC_mass_1", for a patch of normal
    # tissue "P_00001_LEFT_CC_normal_1".
    image_id: str
    unit: str  # "mammogram", "crop" or "patch"
    split: str  # the official one, "train" or "test"
    lesions: tuple[Lesion, ...]  # what it shows, masses first, by number; at least one
    # SeriesInstanceUIDs whose files may hold it, in the order of preference.
    series: tuple[str, ...]
    # Number of a patch of normal tissue in its film, from 1; its lesions are those of the film, of
    # which it shows none. 0 for what shows lesions.
    normal: int = 0

    @property
    def patient_id(self) -> str:
        """The patient, who is the same in the mass and the calcification CSVs."""
        return self.lesions[0].patient_id

    @property
    def breast(self) -> tuple[str, str]:
        """The patient and the side."""
        return self.patient_id, self.lesions[0].laterality

    @property
    def film(self) -> str:
        """Which film it is or comes from: "P_00001_LEFT_CC"."""
        return f"{self.patient_id}_{self.lesions[0].laterality}_{self.lesions[0].view}"

    @property
    def label(self) -> str:
        """Malignant where any of the lesions is; of a patch whether it shows one."""
        if self.unit == "patch":
            return "normal" if self.normal else "abnormal"
        return "malignant" if any(x.pathology == MALIGNANT for x in self.lesions) else "benign"

    @property
    def mixed(self) -> bool:
        """Whether it has malignant lesions and others."""
        return len({lesion.pathology == MALIGNANT for lesion in self.lesions}) > 1


@dataclass(frozen=True)
class Cohort:
    """The images of a dataset, and what was left out on the way."""

    images: tuple[PlannedImage, ...]  # sorted by image_id
    # One entry for each rule that took something, in the order of the rules.
    left_out: tuple[LeftOut, ...]
    moved: int  # training images that became test images, since their patient is in test
    pooled: tuple[str, ...]  # patients in train for one finding and in test for the other


def resolved(options: Organize) -> Organize:
    """Return the options with those that a preset stands for.

    Raises:
        UserError: An option was given that contradicts the preset.
    """
    preset = PRESETS.get(options.cohort, {})
    standard = defaults(Organize)
    for name, value in preset.items():
        given = getattr(options, name)
        if given not in (value, standard[name]):
            flag = name.replace("_", "-")
            raise UserError(
                f"--cohort {options.cohort} means --{flag} {value}, not {given}",
                "leave one of the two out",
            )
    return replace(options, **preset)


def plan_cohort(
    lesions: Iterable[Lesion], options: Organize, rename: Callable[[str], str] = str
) -> Cohort:
    """Choose lesions, group them into images and keep training and test patients apart.

    A film that is stored twice, once for its masses and once for its calcifications, is one
    image, with all that is known of its lesions.

    Args:
        lesions: Rows of the case descriptions, in any order.
        options: Of the stage; those of the cohort count.
        rename: Gives the pseudonym of an id, under which it may be listed to be left out.

    Raises:
        UserError: The file of what to leave out cannot be read, or the preset is contradicted.
    """
    rules = resolved(options)
    group = {"mammogram": _films, "crop": _crops, "patch": _patches}[rules.unit]
    known = list(lesions)
    kept = [lesion for lesion in known if lesion.finding in FINDINGS[rules.finding]]
    left_out = []
    images = group(kept)
    for why, keep in _lesion_rules(rules):
        taken = [lesion for lesion in kept if keep(lesion)]
        remaining = group(taken)
        left_out.append(_cost(why, images, remaining))
        kept, images = taken, remaining
    for why, fits in _film_rules(rules):
        images = _dropped(why, images, fits, left_out)
    if rules.mixed == "each" and rules.unit == "mammogram":
        images = [part for image in images for part in _by_label(image)]
    if rules.exclude is not None:
        there = group(known)
        if rules.mixed == "each" and rules.unit == "mammogram":
            there += [part for image in there for part in _by_label(image)]
        names = {name for image in there for name in _names(image, rename)}
        unwanted = listed_names(rules.exclude, names)
        why = f"listed in {rules.exclude.name}"
        images = _dropped(why, images, lambda image: not _names(image, rename) & unwanted, left_out)
    pooled = _pooled(images)
    together, moved = _settle_pooled(images, pooled, rules.pooled)
    why = f"patients in train and in test, by --pooled {rules.pooled}"
    left_out.append(_cost(why, images, together))
    return Cohort(
        images=tuple(sorted(together, key=lambda image: image.image_id)),
        left_out=tuple(entry for entry in left_out if entry.lesions or entry.images),
        moved=moved,
        pooled=tuple(sorted(pooled)),
    )


def _lesion_rules(rules: Organize) -> Iterator[tuple[str, Callable[[Lesion], bool]]]:
    yield from breast_rules(rules)
    if rules.without_callback == "leave-out":
        yield WITHOUT_CALLBACK, lambda lesion: lesion.pathology != WITHOUT_CALLBACK


def _film_rules(rules: Organize) -> Iterator[tuple[str, Callable[[PlannedImage], bool]]]:
    if rules.unit == "mammogram" and rules.mixed == "leave-out":
        yield "benign and malignant lesions", lambda image: not image.mixed
    if rules.unit == "mammogram" and rules.twins == "leave-out":
        yield "stored twice", lambda image: len({x.finding for x in image.lesions}) == 1


def _dropped(
    why: str,
    images: list[PlannedImage],
    fits: Callable[[PlannedImage], bool],
    left_out: list[LeftOut],
) -> list[PlannedImage]:
    """Return the images that fit, and enter what that cost."""
    remaining = [image for image in images if fits(image)]
    left_out.append(_cost(why, images, remaining))
    return remaining


def _names(image: PlannedImage, rename: Callable[[str], str]) -> set[str]:
    """Return every name under which an image may be listed to be left out."""
    own = {image.image_id, image.patient_id, image.film}
    return own | {rename(name) for name in own}


def _cost(why: str, before: Sequence[PlannedImage], after: Sequence[PlannedImage]) -> LeftOut:
    def lesions(images: Sequence[PlannedImage]) -> int:
        shown = (image.lesions for image in images if not image.normal)
        return len({id(lesion) for held in shown for lesion in held})

    def patients(images: Sequence[PlannedImage]) -> int:
        return len({image.patient_id for image in images})

    return LeftOut(
        why,
        lesions(before) - lesions(after),
        len(before) - len(after),
        patients(before) - patients(after),
    )


def _pooled(images: Sequence[PlannedImage]) -> set[str]:
    """Return the patients whose lesions are partly in train and partly in test."""
    homes: dict[str, set[str]] = {}
    for image in images:
        for lesion in image.lesions:
            homes.setdefault(lesion.patient_id, set()).add(lesion.split)
    return {patient for patient, splits in homes.items() if len(splits) > 1}


def _settle_pooled(
    images: Sequence[PlannedImage], pooled: set[str], rule: str
) -> tuple[list[PlannedImage], int]:
    """Give each of their images one home, or none; count those that moved from train to test.

    A film of which one copy is in train and one in test goes where the patient stays.
    """
    homes: dict[tuple[Any, ...], set[str]] = {}
    for image in images:
        homes.setdefault(_film_of(image), set()).update(lesion.split for lesion in image.lesions)
    kept, moved = [], 0
    for image in images:
        splits = homes[_film_of(image)]
        if image.patient_id not in pooled:
            kept.append(image)
        elif rule == "move-to-test":
            moved += splits == {"train"}
            kept.append(replace(image, split="test"))
        elif FILMS_HOME[rule] in splits:
            kept.append(replace(image, split=FILMS_HOME[rule]))
    return kept, moved


def _film_of(image: PlannedImage) -> tuple[Any, ...]:
    """Return what stays together: a film under both labels or in patches, and each crop alone."""
    first = image.lesions[0]
    alone = image.image_id if image.unit == "crop" else ""
    return (*image.breast, first.view, alone)


def _by_label(image: PlannedImage) -> list[PlannedImage]:
    if not image.mixed:
        return [image]
    parts: dict[bool, list[Lesion]] = {}
    for lesion in image.lesions:
        parts.setdefault(lesion.pathology == MALIGNANT, []).append(lesion)
    return [
        replace(image, image_id=f"{image.image_id}_{name}", lesions=tuple(parts[malignant]))
        for malignant, name in ((False, "benign"), (True, "malignant"))
    ]


def _films(lesions: Sequence[Lesion]) -> list[PlannedImage]:
    images = []
    for film, held in by_film(lesions):
        # A film stored twice may be listed in both: test wins, or its twin would leak into train.
        split = "test" if any(lesion.split == "test" for lesion in held) else "train"
        series = tuple(dict.fromkeys(lesion.mammogram_series for lesion in held))
        images.append(PlannedImage(film, "mammogram", split, held, series))
    return images


def _crops(lesions: Sequence[Lesion]) -> list[PlannedImage]:
    images = []
    for film, held in by_film(lesions):
        for lesion, name in zip(held, lesion_names(held), strict=True):
            # Some rows have crop and mask exchanged, and mostly they share a series anyway: the
            # files tell which is which.
            series = tuple(dict.fromkeys((lesion.crop_series, lesion.mask_series)))
            images.append(PlannedImage(f"{film}_{name}", "crop", lesion.split, (lesion,), series))
    return images


def _patches(lesions: Sequence[Lesion]) -> list[PlannedImage]:
    """Return a patch around each lesion, and for each another of normal tissue of its film."""
    images = []
    for film in _films(lesions):
        for number, name in enumerate(lesion_names(film.lesions), start=1):
            patch = replace(film, unit="patch")
            lesion = film.lesions[number - 1]
            images += [
                replace(patch, image_id=f"{film.image_id}_{name}", lesions=(lesion,)),
                replace(patch, image_id=f"{film.image_id}_normal_{number}", normal=number),
            ]
    return images


def by_film(lesions: Iterable[Lesion]) -> list[tuple[str, tuple[Lesion, ...]]]:
    """Return the lesions of each film, masses first, then by number; the rows' order is moot."""

    def order(lesion: Lesion) -> tuple[str, bool, int, str]:
        return _film_name(lesion), lesion.finding != MASS, lesion.number, lesion.crop_series

    ordered = sorted(lesions, key=order)
    return [(name, tuple(held)) for name, held in groupby(ordered, _film_name)]


def _film_name(lesion: Lesion) -> str:
    return f"{lesion.patient_id}_{lesion.laterality}_{lesion.view}"


def lesion_names(lesions: Iterable[Lesion]) -> list[str]:
    """Return a name of each lesion within its film: "mass_1", of another so called "mass_1-2"."""
    seen: list[str] = []
    names = []
    for lesion in lesions:
        name = f"{SHORT[lesion.finding]}_{lesion.number}"
        seen.append(name)
        copies = seen.count(name)
        names.append(name if copies == 1 else f"{name}-{copies}")
    return names
