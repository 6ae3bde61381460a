"""CBIS-DDSM: from planned patches and the files of a download to the rows of a dataset."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from pipeline.errors import UserError
from pipeline.manifest import Row, image_path
from sources.cbis_ddsm.cohort import PlannedImage, by_film, lesion_names
from sources.cbis_ddsm.cutting import NO_MASK, NO_ROOM, UNKNOWN, FilmJob, Patch
from sources.cbis_ddsm.files import MASK
from sources.cbis_ddsm.layout import SeriesLayout, abnormality
from sources.cbis_ddsm.tables import MALIGNANT, Lesion
from sources.dataset import Account
from sources.writing import Facts, Job, fit_of

SHARE = 0.2  # of a film's longer side
FILMS = "films"  # the ledger's names of films begin so
OF_LESIONS = ("finding", "pathology", "abnormality", "assessment", "subtlety", "shape", "margins")


@dataclass(frozen=True)
class PatchLayout(SeriesLayout):
    """Where the planned patches go; `lesions` are those of every finding."""

    side: int  # of a patch, in pixels of the film
    films: Mapping[str, Sequence[Lesion]]  # all lesions of each film
    jobs: Mapping[str, FilmJob]  # of each film that has a file
    work = ("Cutting patches", "films")

    @classmethod
    def of(cls, layout: SeriesLayout, images: Sequence[PlannedImage]) -> "PatchLayout":
        """Plan the work, film by film.

        Args:
            layout: Where the files are.
            images: The patches.
        """
        films = dict(by_film(layout.lesions))
        held: dict[str, list[PlannedImage]] = {}
        for image in images:
            held.setdefault(image.film, []).append(image)
        found = {film: layout.index.candidates(patches[0].series)
                 for film, patches in held.items()}  # fmt: skip
        sizes = [(file.rows, file.columns) for (file, *_) in filter(None, found.values())]
        given = {item.name: getattr(layout, item.name) for item in fields(layout)}
        side = layout.options.patch_side or patch_side(sizes)
        made = cls(**given, side=side, films=films, jobs={})
        there = [film for film, files in found.items() if files and made.holds_masks]
        jobs = {film: made._film_job(film, held[film]) for film in there}
        return dataclasses.replace(made, jobs=jobs)

    def _film_job(self, film: str, images: Sequence[PlannedImage]) -> FilmJob:
        lesions, out, source = self.films[film], self.options.out, self.options.source
        masks = tuple(
            Job(
                name=name,
                candidates=self.index.of_role((lesion.mask_series, lesion.crop_series), MASK),
                depth=1,
                out=out,
                source=source,
            )
            for lesion, name in zip(lesions, lesion_names(lesions), strict=True)
        )
        return FilmJob(
            name=f"{FILMS}/{self.rename(film)}",
            candidates=self.index.candidates(images[0].series),
            depth=int(self.options.depth),
            film=film,
            seed=self.options.seed,
            side=self.side,
            masks=masks,
            patches=tuple(map(self._patch, images)),
            writes_masks=self.options.masks,
            out=out,
            source=source,
        )

    def _patch(self, image: PlannedImage) -> Patch:
        image_id, split = self.rename(image.image_id), self.splits[image.patient_id]
        lesion = self.films[image.film].index(image.lesions[max(0, image.normal - 1)])
        path = image_path(split, image.label, image_id)
        return Patch(path, image_id, lesion, bool(image.normal))

    def image_job(self, image: PlannedImage) -> Job | None:
        """Return how the film of a patch is cut; None where it has no file."""
        return self.jobs.get(image.film)

    def mask_jobs(
        self, image: PlannedImage, shape: tuple[int, int]
    ) -> Iterator[tuple[Lesion, Job | None]]:
        """Yield nothing: masks are cut with their film."""
        del image, shape
        yield from ()

    def refuse_nothing(self, images: Sequence[PlannedImage]) -> NoReturn:
        """Say why none of the planned patches can be cut.

        Raises:
            UserError: Always.
        """
        if self.index.series and not self.holds_masks:
            raise UserError(
                f"{self.options.source}: holds no masks, which patches are cut by",
                "download the ROI mask images too, or choose another --unit",
            )
        super().refuse_nothing(images)

    def account_image(
        self, image: PlannedImage, job: Job | None, facts: Facts, account: Account
    ) -> None:
        """Enter one patch with its masks, or why it could not be cut."""
        if not isinstance(job, FilmJob) or "taken" not in facts:
            super().account_image(image, job, facts, account)
            return
        self._account_film(job, facts, account)
        (place,) = (place for place, one in enumerate(job.patches)
                    if one.image_id == self.rename(image.image_id))  # fmt: skip
        patch, found = job.patches[place], facts["patches"][place]
        if "why" in found:
            account.set_aside.append((patch.image_id, self._why(job, image.film, facts, found)))
            return
        source_id = self.rename(job.candidates[facts["taken"]].source_id)
        account.pixels[patch.image_id] = found["pixels"]
        account.rows.append(self._patch_row(image, job, patch, facts, found))
        like = next(one.image_id for one in job.patches if one.lesion == patch.lesion)
        account.patches.append((
            patch.image_id, self.rename(image.film), source_id, found["x"], found["y"],
            found["side"], found["breast"], found["lesion"], like,
        ))  # fmt: skip
        for one in found["masks"]:
            self._account_part(image.film, job, patch, facts, one, account)

    def _account_film(self, job: FilmJob, facts: Facts, account: Account) -> None:
        """Enter once what is known of the files of a film."""
        skipped = self._skipped(job, facts)
        for mask, found in zip(job.masks, facts["masks"], strict=True):
            skipped += self._skipped(mask, found) if "taken" in found else []
        account.set_aside += [line for line in skipped if line not in account.set_aside]
        name = self.rename.file(job.candidates[facts["taken"]].name)
        if facts["note"] and (name, facts["note"]) not in account.notes:
            account.notes.append((name, facts["note"]))

    def _why(self, job: FilmJob, film: str, facts: Facts, found: Mapping[str, Any]) -> str:
        """Return why a patch was not cut."""
        if "lesion" not in found:
            size = f"{facts['width']:,} x {facts['height']:,} pixels, side {self.side:,}"
            return found["why"] if found["why"] == NO_ROOM else f"{found['why']} ({size})"
        number = found["lesion"]
        lesion, mask = self.films[film][number], facts["masks"][number]
        reason = mask["why"] or self._no_mask(lesion, job.masks[number], mask)
        if found["why"] == UNKNOWN:
            return f"{UNKNOWN}{abnormality(lesion)}, {reason}"
        return f"{reason}: {NO_MASK}"

    def _account_part(
        self,
        film: str,
        job: FilmJob,
        patch: Patch,
        facts: Facts,
        part: Mapping[str, Any],
        account: Account,
    ) -> None:
        """Enter the mask of one lesion in a patch."""
        number = part["lesion"]
        name, read = abnormality(self.films[film][number]), facts["masks"][number]
        if number == patch.lesion and part["area"] < part["whole"]:
            share = f"{part['area'] / part['whole']:.0%}"
            account.notes.append((patch.image_id, f"{name} is larger than it: it shows {share}"))
        if not job.writes_masks:
            return
        rows, columns, height, width = read["rows"], read["columns"], *_shape(facts)
        source = job.masks[number].candidates[read["taken"]]
        account.masks.append((
            patch.image_id, name, job.mask_name(patch, number), self.rename(source.source_id),
            rows, columns, fit_of(rows, columns, height, width),
            round(height / rows, 4), round(width / columns, 4), part["area"],
        ))  # fmt: skip

    def _patch_row(
        self, image: PlannedImage, job: FilmJob, patch: Patch, facts: Facts, found: Facts
    ) -> Row:
        lesions = self.films[image.film]
        shown = [lesions[one["lesion"]] for one in found["masks"]]
        there = dataclasses.replace(image, lesions=tuple(shown) or image.lesions)
        one = dataclasses.replace(job, name=patch.name)
        size = {"height": found["side"], "width": found["side"], "taken": facts["taken"]}
        row = self._row(there, one, size)
        row = dataclasses.replace(row, density=max(lesion.density for lesion in lesions))
        if image.normal:
            nothing: dict[str, Any] = dict.fromkeys(OF_LESIONS, "")
            return dataclasses.replace(row, lesions=0, diagnosis="normal", **nothing)
        malignant = any(lesion.pathology == MALIGNANT for lesion in shown)
        return dataclasses.replace(row, diagnosis="malignant" if malignant else "benign")

    def outcome(self, account: Account) -> tuple[dict[str, Any], list[str]]:
        """Return the side of the patches, and how many films gave no normal one."""
        no_room = [what for what, why in account.set_aside if why == NO_ROOM]
        unknown = [what for what, why in account.set_aside if why.startswith(UNKNOWN)]
        facts = {"side": self.side, "no_room": len(no_room), "lesion_unknown": len(unknown)}
        notes = []
        if no_room:
            notes.append(f"patches of normal tissue that have no room: {len(no_room):,}")
        if unknown:
            notes.append(
                f"patches of normal tissue not cut, since a lesion of their film has no mask that "
                f"fits: {len(unknown):,}"
            )
        return {"patches": facts}, notes


def patch_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the side of patches in pixels: the power of two nearest a fifth of a usual film.

    One side for all, so that tissue is seen at one scale. It follows the films, since a fixed one
    would be no patch on small copies of them; and by powers of two, so that a part of a download
    gives the same side as all of it: 1,024 where the median film is 3,620 to 7,240 pixels long.

    Args:
        sizes: Height and width of each film.
    """
    if not sizes:
        return 0
    longer = statistics.median(max(size) for size in sizes)
    return int(2 ** round(math.log2(max(1, SHARE * longer))))


def _shape(facts: Facts) -> tuple[int, int]:
    return int(facts["height"]), int(facts["width"])
