"""The way from the raw collection to the test set as tables: who was left out where, and why."""

from collections.abc import Iterator, Sequence

from interface.report.data import Cohort, Dataset, Step
from interface.report.sheets import Cell, Sheet, SheetRow

STAGES = {"organize": "Organised", "preprocess": "Preprocessed"}
SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}


def cohort_sheets(datasets: Sequence[Dataset]) -> list[Sheet]:
    """Return how many images there were after each step, and what each step excluded."""
    sheets = []
    for place, dataset in enumerate(datasets, start=1):
        if not dataset.steps:
            continue
        mark = "" if place == 1 else f"_{place}"
        sheets.append(
            Sheet(
                f"cohort{mark}",
                f"Images and patients after each step, {dataset.folder}",
                ["Step", "Images", "Patients", "Benign", "Malignant", "Augmented copies"],
                list(_counted(dataset)),
            )
        )
        excluded = list(_excluded(dataset))
        if excluded:
            sheets.append(
                Sheet(
                    f"exclusions{mark}",
                    f"What each step could not use or left out by rule, {dataset.folder}",
                    ["Reason", "Number"],
                    excluded,
                )
            )
    return sheets


def _counted(dataset: Dataset) -> Iterator[SheetRow]:
    for step in dataset.steps:
        yield SheetRow(STAGES[step.stage], _cells(step.cohort))
    if dataset.final is not None:
        for split, cohort in dataset.final.splits.items():
            yield SheetRow(SPLITS[split], _cells(cohort))


def _cells(cohort: Cohort) -> list[Cell]:
    return [cohort.images, cohort.patients, cohort.benign, cohort.malignant, cohort.augmented]


def _excluded(dataset: Dataset) -> Iterator[SheetRow]:
    for step in dataset.steps:
        for part, found in (("set aside", step.set_aside), ("left out by rule", step.left_out)):
            for reason, number in found:
                yield SheetRow(reason, [number], part=f"{STAGES[step.stage]}: {part}")


def described(cohort: Cohort) -> str:
    """Say how large a cohort is: "361 images of 201 patients (145 malignant, 216 benign)"."""
    return (
        f"{cohort.images:,} images of {cohort.patients:,} patients "
        f"({cohort.malignant:,} malignant, {cohort.benign:,} benign)"
    )


def lost(step: Step) -> str:
    """Say what a step excluded, and how much of it; empty where it excluded nothing."""
    parts = [f"{number:,} {reason}" for reason, number in step.set_aside]
    said = [f"{step.excluded:,} could not be used ({'; '.join(parts)})"] if parts else []
    ruled = [f"{number:,} images by rule ({reason})" for reason, number in step.left_out]
    if ruled:
        said.append("left out were " + ", ".join(ruled))
    return "; ".join(said)
