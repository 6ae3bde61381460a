"""CBIS-DDSM: everything that the case descriptions decide, and what a person is shown of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import LABELS, SPLITS
from pipeline.progress import Table
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import FINDINGS, Cohort, plan_cohort, resolved
from sources.cbis_ddsm.collection import KINDS, describe, description_table, split_counts
from sources.cbis_ddsm.splits import assign_folds, assign_splits
from sources.cbis_ddsm.tables import OFFICIAL_CSVS, CaseCsv, Lesion, read_case_csvs

UNITS = {"mammogram": "mammograms", "crop": "lesion crops"}
SPLIT_COLUMNS = ("images", "patients", "breasts", *LABELS)


@dataclass(frozen=True)
class Plan:
    """What the case descriptions alone decide."""

    options: Organize  # of the stage, presets resolved
    tables: list[CaseCsv]  # the case descriptions, of every finding
    missing_csvs: list[str]  # names of those of the wanted findings that are not there
    cohort: Cohort  # the images
    splits: dict[str, str]  # patient_id -> split
    folds: dict[str, int]  # patient_id -> fold; empty where none are wanted

    @property
    def lesions(self) -> list[Lesion]:
        """The rows of the wanted findings."""
        wanted = FINDINGS[self.options.finding]
        return [x for table in self.tables if table.finding in wanted for x in table.lesions]

    def facts(self) -> dict[str, Any]:
        """Return what is known before a file is looked at."""
        options, cohort = self.options, self.cohort
        facts = {
            "unit": options.unit,
            "finding": options.finding,
            "cohort": options.cohort,
            "collection": describe(self.tables),
            "left_out": [asdict(entry) for entry in cohort.left_out],
            "pooled_patients": len(cohort.pooled),
            "moved_to_test": cohort.moved,
            "planned": split_counts(cohort.images, self.splits),
        }
        if self.folds:
            facts["folds"] = {
                fold: sum(mine == fold for mine in self.folds.values())
                for fold in range(1, options.folds + 1)
            }
        return facts


def planned_images(options: Organize) -> dict[str, int]:
    """Return how many images each split will have, by what the case descriptions say alone.

    Raises:
        UserError: As `plan_dataset`.
    """
    counts = plan_dataset(options).facts()["planned"]
    return {split: counts[split]["images"] for split in ("train", "val", "test")}


def plan_dataset(options: Organize, rename: Callable[[str], str] = str) -> Plan:
    """Read the case descriptions and decide everything that they decide.

    Raises:
        UserError: They are not there or not what they should be, or leave no image.
    """
    rules = resolved(options)
    tables = read_case_csvs(options.source, options.csv)
    present = {(table.finding, table.split) for table in tables}
    missing = [
        name
        for kind, name in zip(KINDS, OFFICIAL_CSVS, strict=True)
        if kind[0] in FINDINGS[rules.finding] and kind not in present
    ]
    lesions = [lesion for table in tables for lesion in table.lesions]
    cohort = plan_cohort(lesions, options, rename)
    if not any(lesion.finding in FINDINGS[rules.finding] for lesion in lesions):
        raise UserError(
            f"{options.csv or options.source}: holds neither {' nor '.join(missing)}",
            "get them from the CBIS-DDSM page of the Cancer Imaging Archive, "
            "or choose another --finding",
        )
    if not cohort.images:
        why = ", ".join(entry.why for entry in cohort.left_out)
        raise UserError(f"no image is left of the {rules.finding} cases ({why})", "leave out less")
    splits = assign_splits(cohort.images, options.val_share, options.seed)
    folds = assign_folds(cohort.images, options.folds, options.seed) if options.folds else {}
    if options.folds and len(set(folds.values())) < options.folds:
        raise UserError(
            f"--folds {options.folds}: there are only {len(folds)} patients in train and val",
            "ask for fewer folds",
        )
    return Plan(rules, tables, missing, cohort, splits, folds)


def cohort_tables(plan: Plan, facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield what the case descriptions hold, the cohort by split, and what was left out."""
    yield description_table(facts["collection"])
    yield split_table(plan.options, facts)
    yield from left_out_table(facts)


def left_out_table(facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield what was left out by rule, if anything was."""
    if facts["left_out"]:
        columns = ("why", "lesions", "images", "patients")
        rows = tuple(tuple(entry[name] for name in columns) for entry in facts["left_out"])
        yield Table("Left out", columns, rows)


def split_table(options: Organize, facts: Mapping[str, Any]) -> Table:
    """Return images, patients, breasts and labels by split."""
    splits = facts["splits"]
    total = {name: sum(splits[split][name] for split in SPLITS) for name in SPLIT_COLUMNS}
    rows = [(split, *(splits[split][name] for name in SPLIT_COLUMNS)) for split in SPLITS]
    return Table(
        f"{UNITS[options.unit].capitalize()} by split",
        ("split", *SPLIT_COLUMNS),
        (*rows, ("all", *total.values())),
    )


def cohort_notes(plan: Plan) -> Iterator[str]:
    """Yield what a person should know of the cohort before trusting a figure made with it."""
    cohort, options = plan.cohort, plan.options
    if plan.missing_csvs:
        yield f"not found, so its cases are not in the dataset: {', '.join(plan.missing_csvs)}"
    for table in plan.tables:
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
    films = {(image.breast, image.lesions[0].view) for image in cohort.images}
    if options.unit == "mammogram" and len(films) < len(cohort.images):
        twice = len(cohort.images) - len(films)
        yield (
            f"{twice:,} films stand under both labels: the {len(cohort.images):,} images are "
            f"{len(films):,} films"
        )


def collection_notes(collection: Mapping[str, Any]) -> Iterator[str]:
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
