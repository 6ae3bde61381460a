"""From the planned records of a collection to the rows of a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pipeline.errors import UserError
from pipeline.manifest import Row, image_path
from pipeline.stages.data import Organize
from sources.dataset import MISSING, Account
from sources.plan import Layout
from sources.pseudonyms import OpenNames
from sources.records import CircleMask, MaskImage, PlannedRecord, RecordFile
from sources.writing import MASKS, Candidate, Facts, Job, fit_of


@dataclass(frozen=True)
class RecordLayout(Layout):
    """Where the planned images go."""

    options: Organize
    splits: Mapping[str, str]
    rename: OpenNames
    unreadable: Sequence[tuple[str, str]]  # set aside when the tables were read
    noted: Sequence[tuple[str, str]] = ()  # usable, but worth knowing, likewise

    def inputs(self) -> Any:
        """Return what the dataset is made from: the pixels' digest tells the rest."""
        return sorted(self.splits.items())

    def refuse_nothing(self, images: Sequence[PlannedRecord]) -> NoReturn:
        """Say why none of the planned images has a file.

        Raises:
            UserError: Always.
        """
        del images
        first = f" ({': '.join(self.unreadable[0])})" if self.unreadable else ""
        problem = f"{self.options.source}: holds none of the images that its tables name{first}"
        raise UserError(problem, "give --source the folder of the download")

    def image_job(self, image: PlannedRecord) -> Job:
        """Return how an image is written."""
        split, image_id = self.splits[image.patient_id], self.rename.whole(image.image_id)
        return self._job(
            image_path(split, image.label, image_id),
            RecordFile(image.record),
            int(self.options.depth),
        )

    def mask_jobs(
        self, image: PlannedRecord, shape: tuple[int, int]
    ) -> Iterator[tuple[str, Job | None]]:
        """Yield the name of each lesion of an image with how its mask is written."""
        name = f"{MASKS}/{self.rename.whole(image.image_id)}"
        for number, circle in enumerate(image.record.circles, start=1):
            # The circle's pixels are those of the film as the collection has it.
            mask = CircleMask(f"{image.image_id}, lesion {number}", circle, *shape)
            yield f"lesion {number}", self._job(f"{name}_{number}.png", mask, 1, shape)
        for number, file in enumerate(image.record.mask_files, start=1):
            place = MaskImage(file)
            yield f"lesion {number}", self._job(f"{name}_{number}.png", place, 1, shape)

    def _job(
        self, name: str, file: Candidate, depth: int, shape: tuple[int, int] | None = None
    ) -> Job:
        out, source = self.options.out, self.options.source
        return Job(name=name, out=out, source=source, candidates=(file,), depth=depth, shape=shape)

    def account_image(
        self, image: PlannedRecord, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one image: its row if it was written, or why not."""
        image_id = self.rename.whole(image.image_id)
        if job is None or "taken" not in facts:
            account.set_aside.append((image_id, _refusal(job, facts, self.rename)))
            return
        if facts["note"]:
            account.notes.append((self.rename.file(job.candidates[0].name), facts["note"]))
        account.pixels[image_id] = facts["pixels"]
        account.rows.append(self._row(image, job, facts))

    def account_mask(
        self, image: PlannedRecord, lesion: str, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one mask."""
        image_id = self.rename.whole(image.image_id)
        if job is None or "taken" not in facts:
            reason = _refusal(job, facts, self.rename)
            account.set_aside.append((f"mask of {image_id}, {lesion}", reason))
            return
        height, width = job.shape or (0, 0)
        rows, columns = facts["rows"], facts["columns"]
        account.masks.append((
            image_id, lesion, job.name, self.rename.file(job.candidates[0].name), rows, columns,
            fit_of(rows, columns, height, width), round(height / rows, 4),
            round(width / columns, 4), facts["area"],
        ))  # fmt: skip

    def remarks(self) -> list[tuple[str, str]]:
        """Return what was odd when the tables were read."""
        return [*self.noted]

    def _row(self, image: PlannedRecord, job: Job, facts: Facts) -> Row:
        record, rename = image.record, self.rename
        lesions = max(1, len(record.circles) + len(record.mask_files))
        row = Row(
            image_id=rename.whole(record.image_id),
            patient_id=rename.whole(record.patient_id),
            split=self.splits[image.patient_id],
            label=image.label,
            path=job.name,
            unit=record.unit,
            laterality=record.laterality,
            view=record.view,
            finding=record.finding,
            pathology=record.pathology,
            lesions=0 if record.diagnosis == "normal" else lesions,
            density=record.density,
            assessment=record.assessment,
            height=facts["height"],
            width=facts["width"],
            source_id=rename.file(job.candidates[0].name),
            parent=rename.whole(record.variant_of) if record.variant_of else "",
            diagnosis=record.diagnosis,
            age=record.age,
            site=record.site,
            machine=record.machine,
            implant=record.implant,
            collection=record.collection,
        )
        return replace(row, **dict(record.also))


def _refusal(job: Job | None, facts: Facts, rename: OpenNames) -> str:
    if job is None or not facts["skipped"]:
        return f"{MISSING}no file"
    name, reason = job.candidates[0].name, str(facts["skipped"][0][1])
    # The reason may begin with the path of a folder of a merged dataset, or of a zip file.
    reason = reason.replace(name, rename.file(name))
    name = rename.file(name)
    return f"{MISSING}{name}: {reason}" if "no such file" in reason else f"{name}: {reason}"
