"""CBIS-DDSM: everything that the case descriptions decide, and what a person is shown of it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.labels import Labels, what_normal_is
from pipeline.manifest import QUESTIONS
from pipeline.progress import Progress, Table
from pipeline.resources.places import CHECKED, HEADERS
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import FINDINGS, UNITS, Cohort, PlannedImage, plan_cohort, resolved
from sources.cbis_ddsm.collection import KINDS, describe, description_table
from sources.cbis_ddsm.files import index_files
from sources.cbis_ddsm.layout import SeriesLayout
from sources.cbis_ddsm.patches import PatchLayout
from sources.cbis_ddsm.tables import (
    MALIGNANT,
    OFFICIAL_CSVS,
    SHORT,
    CaseCsv,
    Lesion,
    read_case_csvs,
)
from sources.plan import Plan, split_counts
from sources.pseudonyms import OpenNames
from sources.splits import Stratum, assign_folds, assign_splits


@dataclass(frozen=True)
class CaseDescriptionPlan(Plan):
    """What the case descriptions alone decide."""

    options: Organize  # of the stage, presets resolved
    tables_read: list[CaseCsv]  # the case descriptions, of every finding
    missing_csvs: list[str]  # names of those of the wanted findings that are not there
    cohort: Cohort  # the images
    splits: dict[str, str]  # patient_id -> split
    folds: dict[str, int]  # patient_id -> fold; empty where none are wanted
    rename: OpenNames  # pseudonyms, or names as they are
    private_files: Sequence[str] = (HEADERS, *CHECKED)

    @property
    def images(self) -> Sequence[PlannedImage]:  # type: ignore[override]  # no field here
        """The images that the dataset should hold."""
        return self.cohort.images

    @property
    def unit(self) -> str:  # type: ignore[override]  # no field here
        """What its images are called."""
        return UNITS[self.options.unit]

    @property
    def labels(self) -> tuple[str, str]:  # type: ignore[override]  # no field here
        """The two of the dataset: the collection has no normal films, but normal tissue."""
        return QUESTIONS[self._question]

    @property
    def _question(self) -> str:
        return "abnormal-normal" if self.options.unit == "patch" else "benign-malignant"

    @property
    def lesions(self) -> list[Lesion]:
        """The rows of the wanted findings; for patches of all, which normal tissue is clear of."""
        wanted = FINDINGS["both" if self.options.unit == "patch" else self.options.finding]
        return [x for table in self.tables_read if table.finding in wanted for x in table.lesions]

    def facts(self) -> dict[str, Any]:
        """Return what is known before a file is looked at."""
        options, cohort = self.options, self.cohort
        facts = {
            "unit": options.unit,
            "finding": options.finding,
            "cohort": options.cohort,
            "collection": describe(self.tables_read),
            "left_out": [asdict(entry) for entry in cohort.left_out],
            "pooled_patients": len(cohort.pooled),
            "moved_to_test": cohort.moved,
            "planned": split_counts(cohort.images, self.splits, self.labels),
        }
        if options.unit == "patch":
            normal = what_normal_is(Labels(*self.labels), options.unit)
            facts |= {"question": self._question, "labels": list(self.labels), "normal": normal}
        if self.folds:
            facts["folds"] = {
                fold: sum(mine == fold for mine in self.folds.values())
                for fold in range(1, options.folds + 1)
            }
        return facts

    def tables(self, facts: Mapping[str, Any]) -> Iterator[Table]:
        """Yield what the case descriptions hold."""
        yield description_table(facts["collection"])

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of the cohort; see `cohort_notes`."""
        return cohort_notes(self)

    def collection_notes(self) -> Iterator[str]:
        """Yield what the case descriptions hold that is easily counted wrongly."""
        return _collection_notes(describe(self.tables_read))

    def locate(self, keep: Path | None, progress: Progress) -> SeriesLayout:
        """Read the headers of the download."""
        options = self.options
        index = index_files(options.source, keep, options.workers, progress)
        found = options, index, self.splits, self.rename, self.lesions
        if options.unit == "patch":
            return PatchLayout.of(SeriesLayout(*found), self.images)
        return SeriesLayout(*found)


def plan_dataset(options: Organize, rename: OpenNames | None = None) -> CaseDescriptionPlan:
    """Read the case descriptions and decide everything that they decide.

    Raises:
        UserError: They are not there or not what they should be, or leave no image.
    """
    rules = resolved(options)
    tables = read_case_csvs(options.source, options.csv)
    wanted = tuple(SHORT[finding] for finding in FINDINGS[rules.finding])
    missing = [name for name in _unlisted(tables) if name.startswith(wanted)]
    lesions = [lesion for table in tables for lesion in table.lesions]
    names = rename or OpenNames()
    cohort = plan_cohort(lesions, options, names)
    if not any(lesion.finding in FINDINGS[rules.finding] for lesion in lesions):
        raise UserError(
            f"{options.csv or options.source}: holds neither {' nor '.join(missing)}",
            "get them from the CBIS-DDSM page of the Cancer Imaging Archive, "
            "or choose another --finding",
        )
    if not cohort.images:
        why = ", ".join(entry.why for entry in cohort.left_out)
        raise UserError(f"no image is left of the {rules.finding} cases ({why})", "leave out less")
    strata = strata_of(cohort.images)
    splits = assign_splits(cohort.images, strata, options.val_share, options.seed)
    folds = assign_folds(splits, strata, options.folds, options.seed) if options.folds else {}
    if options.folds and len(set(folds.values())) < options.folds:
        raise UserError(
            f"--folds {options.folds}: there are only {len(folds)} patients in train and val",
            "ask for fewer folds",
        )
    return CaseDescriptionPlan(rules, tables, missing, cohort, splits, folds, names)


def strata_of(images: Sequence[PlannedImage]) -> dict[str, Stratum]:
    """Return label, findings and density of each patient."""
    lesions: dict[str, list[Lesion]] = defaultdict(list)
    for image in images:
        lesions[image.patient_id] += image.lesions
    return {
        patient: (
            "malignant" if any(x.pathology == MALIGNANT for x in shown) else "benign",
            "|".join(sorted({lesion.finding for lesion in shown})),
            str(max(lesion.density for lesion in shown)),
        )
        for patient, shown in lesions.items()
    }


def cohort_notes(plan: CaseDescriptionPlan) -> Iterator[str]:
    """Yield what a person should know of the cohort before trusting a figure made with it."""
    cohort, options = plan.cohort, plan.options
    if plan.missing_csvs:
        yield f"not found, so its cases are not in the dataset: {', '.join(plan.missing_csvs)}"
    for table in plan.tables_read:
        if table.repeated:
            first = ", ".join(map(str, table.repeated[:5]))
            yield (
                f"{table.path}: {len(table.repeated):,} rows repeat an earlier one and count "
                f"once (row {first}{' and so on' if len(table.repeated) > 5 else ''})"
            )
    if cohort.pooled:
        cost = next((x.images for x in cohort.left_out if "--pooled" in x.why), 0)
        what = f"moved to test: {cohort.moved:,}" if cohort.moved else f"left out: {cost:,}"
        yield (
            f"patients in train for one finding and in test for the other: "
            f"{len(cohort.pooled):,}; images of theirs {what} (--pooled {options.pooled})"
        )
    if options.unit == "patch" and (unknown := _unlisted(plan.tables_read)):
        yield (
            "a patch of normal tissue may show a lesion that these list, since they were not "
            f"found: {', '.join(unknown)}"
        )
    films = {(image.breast, image.lesions[0].view) for image in cohort.images}
    if options.unit == "mammogram" and len(films) < len(cohort.images):
        twice = len(cohort.images) - len(films)
        yield (
            f"{twice:,} films stand under both labels: the {len(cohort.images):,} images are "
            f"{len(films):,} films"
        )


def _unlisted(tables: Sequence[CaseCsv]) -> list[str]:
    """Return the names of the case descriptions, of any finding, that were not found."""
    present = {(table.finding, table.split) for table in tables}
    return [name for kind, name in zip(KINDS, OFFICIAL_CSVS, strict=True) if kind not in present]


def _collection_notes(collection: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the case descriptions hold that is easily counted wrongly."""
    pooled, twins = collection["pooled_patients"], collection["twins"]
    mixed = collection["mixed_mammograms"]
    if pooled["all"]:
        parts = ", ".join(f"{count} {kind}" for kind, count in pooled.items() if kind != "all")
        yield f"in train and in test once both findings are pooled: {pooled['all']} patients"
        yield f"of these: {parts}"
    if twins["all"]:
        parts = ", ".join(f"{count} {kind}" for kind, count in twins.items() if kind != "all")
        yield f"stored twice, as mass and as calcification: {twins['all']} mammograms ({parts})"
    if mixed["as stored"]:
        yield (
            f"with benign and malignant lesions: {mixed['as stored']} mammograms as stored, "
            f"{mixed['twins merged']} once those stored twice are merged"
        )
