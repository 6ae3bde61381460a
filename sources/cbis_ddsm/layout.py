"""CBIS-DDSM: from a planned cohort and the files of a download to the rows of a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from pipeline.errors import UserError
from pipeline.manifest import Row, image_path
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import UNITS, PlannedImage, lesion_names
from sources.cbis_ddsm.files import MASK, Index
from sources.cbis_ddsm.tables import Lesion
from sources.dataset import MISSING, Account
from sources.plan import Layout
from sources.pseudonyms import OpenNames
from sources.writing import GREY_IN_PLACE, MASK_IN_PLACE, MASKS, Facts, Job, fit_of, skipped_files


@dataclass(frozen=True)
class SeriesLayout(Layout):
    """Where the planned images go."""

    options: Organize
    index: Index
    splits: Mapping[str, str]
    rename: OpenNames
    lesions: Sequence[Lesion]  # of the wanted findings

    @property
    def unreadable(self) -> list[tuple[str, str]]:  # type: ignore[override]  # no field here
        """What should have been an image, as the dataset may name it."""
        return [(self.rename.file(name), self.rename(why)) for name, why in self.index.unreadable]

    @property
    def holds_masks(self) -> bool:  # type: ignore[override]  # no field here
        """Whether there is a mask."""
        return any(file.role == MASK for files in self.index.series.values() for file in files)

    def inputs(self) -> Any:
        """Return what the dataset is made from."""
        sizes = [(uid, [file.size for file in held]) for uid, held in self.index.series.items()]
        return [asdict(lesion) for lesion in self.lesions], sizes

    def refuse_nothing(self, images: Sequence[PlannedImage]) -> NoReturn:
        """Say why none of the planned images has a file.

        Raises:
            UserError: Always.
        """
        files = sum(map(len, self.index.series.values()))
        if not files and not self.index.unreadable:
            problem = f"{self.options.source}: holds no DICOM or JPEG file of the collection"
            raise UserError(problem, "give --source the folder of the download")
        if not files:
            name, reason = self.index.unreadable[0]
            count = f"none of its {len(self.index.unreadable):,} image files can be read"
            raise UserError(
                f"{self.options.source}: {count} ({name}: {reason})", "download them again"
            )
        unit = UNITS[self.options.unit]
        wanted = f"{len(images):,} {self.options.finding} {unit}"
        raise UserError(
            f"{self.options.source}: none of its {files:,} image files is one of the {wanted}",
            "choose another --unit, --finding or --source",
        )

    def image_job(self, image: PlannedImage) -> Job | None:
        """Return how an image is written; None where it has no file."""
        candidates = self.index.candidates(image.series)
        if not candidates:
            return None
        split, image_id = self.splits[image.patient_id], self.rename(image.image_id)
        return Job(
            name=image_path(split, image.label, image_id),
            out=self.options.out,
            source=self.options.source,
            candidates=candidates,
            depth=int(self.options.depth),
        )

    def mask_jobs(
        self, image: PlannedImage, shape: tuple[int, int]
    ) -> Iterator[tuple[Lesion, Job | None]]:
        """Yield each lesion of an image with how its mask is written, or None without a file."""
        for lesion, name in zip(image.lesions, lesion_names(image.lesions), strict=True):
            candidates = self.index.of_role((lesion.mask_series, lesion.crop_series), MASK)
            job = Job(
                name=f"{MASKS}/{self.rename(image.image_id)}_{name}.png",
                out=self.options.out,
                source=self.options.source,
                candidates=candidates,
                depth=1,
                shape=shape,
            )
            yield lesion, job if candidates else None

    def account_image(
        self, image: PlannedImage, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one image: its row if it was written, and what was set aside on the way."""
        image_id = self.rename(image.image_id)
        if job is None:
            lesion = image.lesions[0]
            where = f"{lesion.finding} {lesion.split}, {lesion.subject}"
            reason = f"{MISSING}no file of series {' or '.join(image.series)} ({where})"
            account.set_aside.append((image_id, self.rename(reason)))
            return
        if "taken" not in facts:
            account.set_aside.append((image_id, self._refusal(job, facts)))
            return
        account.set_aside += self._skipped(job, facts)
        if facts["note"]:
            name = job.candidates[facts["taken"]].name
            account.notes.append((self.rename.file(name), facts["note"]))
        account.pixels[image_id] = facts["pixels"]
        account.rows.append(self._row(image, job, facts))

    def account_mask(
        self, image: PlannedImage, lesion: Lesion, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one mask, as `account_image` enters an image."""
        name = abnormality(lesion)
        image_id = self.rename(image.image_id)
        if job is None or "taken" not in facts:
            reason = self._no_mask(lesion, job, facts)
            account.set_aside.append((f"mask of {image_id}, {name}", reason))
            return
        account.set_aside += self._skipped(job, facts)
        height, width = job.shape or (0, 0)
        rows, columns = facts["rows"], facts["columns"]
        account.masks.append((
            image_id, name, job.name, self.rename(job.candidates[facts["taken"]].source_id),
            rows, columns, fit_of(rows, columns, height, width),
            round(height / rows, 4), round(width / columns, 4), facts["area"],
        ))  # fmt: skip

    def _no_mask(self, lesion: Lesion, job: Job | None, facts: Facts) -> str:
        """Return why there is no mask of a lesion."""
        if job is not None and job.candidates:
            return self._refusal(job, facts)
        series = " or ".join(dict.fromkeys((lesion.mask_series, lesion.crop_series)))
        return self.rename(f"{MISSING}no mask in series {series}")

    def _skipped(self, job: Job, facts: Facts) -> list[tuple[str, str]]:
        found = skipped_files(job, facts)
        return [(self.rename.file(name), self.rename(why)) for name, why in found]

    def _refusal(self, job: Job, facts: Facts) -> str:
        """Return why none of the candidates would do."""
        if reasons := [f"{name}: {reason}" for name, reason in self._skipped(job, facts)]:
            return "; ".join(reasons)
        role = {MASK_IN_PLACE: "the mask", GREY_IN_PLACE: "what is no mask"}
        return f"{MISSING}its series holds nothing but {role[facts['skipped'][0][1]]}"

    def remarks(self) -> list[tuple[str, str]]:
        """Return `remarks` as the dataset may show them."""
        files = {file.name for held in self.index.series.values() for file in held}
        return sorted(
            (self.rename.file(what) if what in files else self.rename(what), self.rename(remark))
            for what, remark in remarks(self.lesions, self.index)
        )

    def _row(self, image: PlannedImage, job: Job, facts: Facts) -> Row:
        first, shown = image.lesions[0], image.lesions

        def joined(field: str) -> str:
            return "|".join(str(getattr(lesion, field)) for lesion in shown)

        return Row(
            image_id=self.rename(image.image_id),
            patient_id=self.rename(image.patient_id),
            split=self.splits[image.patient_id],
            label=image.label,
            path=job.name,
            unit=image.unit,
            laterality=first.laterality,
            view=first.view,
            finding="|".join(dict.fromkeys(lesion.finding for lesion in shown)),
            pathology=joined("pathology"),
            lesions=len(shown),
            abnormality="|".join(map(abnormality, shown)),
            # The lesions of one mammogram sometimes disagree, and one row of all says 0.
            density=max(lesion.density for lesion in shown),
            assessment=joined("assessment"),
            subtlety=joined("subtlety"),
            shape=joined("shape"),
            margins=joined("margins"),
            height=facts["height"],
            width=facts["width"],
            source_id=self.rename(job.candidates[facts["taken"]].source_id),
        )


def abnormality(lesion: Lesion) -> str:
    """Return how a lesion is called within its breast: "mass 1"."""
    return f"{lesion.finding} {lesion.number}"


def remarks(lesions: Sequence[Lesion], index: Index) -> list[tuple[str, str]]:
    """Return (file or row, remark) of what is usable but says two things at once."""
    found = []
    for lesion in lesions:
        where = f"{lesion.subject}, {abnormality(lesion)}"
        if lesion.crop_series != lesion.mask_series and (
            _only_masks(index, lesion.crop_series) and not _only_masks(index, lesion.mask_series)
        ):
            found.append((where, "its CSV has crop and mask in each other's column"))
    expected = {lesion.mammogram_series: lesion for lesion in lesions}
    parts = {uid for lesion in lesions for uid in (lesion.crop_series, lesion.mask_series)}
    for uid, files in index.series.items():
        for file in files:
            role = file.role if file.role == MASK else "crop" if uid in parts else "mammogram"
            if uid in parts or uid in expected:
                found += [(file.name, remark) for remark in _contradictions(file, role)]
            if uid in expected and file.role != MASK:
                found += [(file.name, remark) for remark in _other_film(file, expected[uid])]
    return sorted(found)


def _contradictions(file: Any, role: str) -> Iterator[str]:
    called = file.description.lower()
    known = {"mask": "mask", "crop": "cropped", "mammogram": "full mammogram"}
    if not called and not file.is_copy:
        yield f"its header has no SeriesDescription; by bits and series it is a {role}"
    elif called and known[role] not in called:
        yield f"its header calls it {file.description!r}; by bits and series it is a {role}"
    if file.oddity:
        yield file.oddity


def _other_film(file: Any, lesion: Lesion) -> Iterator[str]:
    for name in ("laterality", "view"):
        said, listed = getattr(file, name), getattr(lesion, name)
        if said and said != listed:
            yield f"its header says {said}, its CSV {listed}; the CSV is followed"


def _only_masks(index: Index, series: str) -> bool:
    files = index.series.get(series, ())
    return bool(files) and all(file.role == MASK for file in files)
