"""Goes through the images: maps of each kind, judged beside the lesions, and drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images import breast, frame, outlines
from images.files import WHITE_8, read_image
from images.jobs import code_digest
from models.anomaly import maps as error_parts
from models.explanation import (
    baselines,
    cams,
    checks,
    errors,
    lesions,
    maps,
    occlusion,
    pictures,
    scores,
)
from models.explanation.baselines import BASELINES, DRAWS, blob_in, breast_in, without_weights
from models.explanation.cams import normalised
from models.explanation.errors import restored_images, restores
from models.explanation.lesions import View
from models.explanation.maps import maps_of, normal_scale
from models.explanation.pictures import draw_panels, draw_reduced, write_picture
from models.explanation.scores import Judged
from models.explanation.subject import Subject
from models.inference import TrainedModel, scoring_batch
from models.registry import TARGET_LAYERS
from models.training import memory_bank
from models.training.normals import normals_of
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.records import digest
from pipeline.stages.explanation import CALLED, Explain
from pipeline.work import Ledger

Heat = NDArray[np.float32]
Mask = NDArray[np.bool_]
Images = NDArray[np.uint8]
# Maps (N, S, S) of images and of the evidence to show of each.
Maker = Callable[[Images, Sequence[str]], Heat]

MAP = "map"
KINDS = {MAP: "Heat-map", **BASELINES}


def kinds(errors: bool) -> dict[str, str]:
    """Return the titles of all kinds of maps beside an error map, or else a heat-map."""
    return KINDS | ({MAP: "Error map"} if errors else {})


@dataclass(frozen=True)
class Found:
    """What is known of one image's map."""

    judged: Judged | None  # None where its lesions are not known
    # The hottest pixel, x and y in pixels of the film; None where no pixel is warm.
    peak: tuple[float, float] | None

    @classmethod
    def mean(cls, several: Sequence["Found"]) -> "Found":
        """Return the mean of what is known of several maps of an image; the first one's peak."""
        judged = [one.judged for one in several if one.judged is not None]
        return cls(Judged.mean(judged) if judged else None, several[0].peak)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> "Found":
        """Read what the ledger keeps."""
        judged, peak = facts["judged"], facts["peak"]
        return cls(
            judged and Judged(**judged | {"iou": tuple(judged["iou"])}), peak and (peak[0], peak[1])
        )


class Judge:
    """Makes maps of each kind and judges them; what an earlier run did is not done again."""

    def __init__(
        self, subject: Subject, options: Explain, folder: Path, draw: set[str], progress: Progress
    ) -> None:
        """Begin; of a detector, measure the scale that all its maps are drawn on.

        Args:
            subject: What is explained.
            options: How.
            folder: Where pictures and the ledger go.
            draw: The image_ids of the test images that are drawn.
            progress: Where the measuring of the scale reports.
        """
        self._subject, self._folder, self._draw = subject, folder, draw
        self._ledger = Ledger(folder)
        self._options, self._makers = options, _makers(subject, options)
        self._breasts: dict[str, Mask] = {}  # by image_id, of those that are judged
        self._keys: dict[str, str] = {}  # by image_id
        code = _code()
        self.scale = None
        if subject.detector:
            self.scale = normal_scale(subject, self._ledger, code, progress)
        layer = TARGET_LAYERS.get(str(subject.model.facts["architecture"]))
        calls = subject.calls if options.evidence == CALLED else {}
        way = options.method, options.evidence, calls, options.seed
        drawn = self.scale and self.scale.record
        self._key = digest(code, subject.digest, layer and asdict(layer), way, drawn)

    def found(self, kind: str, split: str, progress: Progress) -> dict[str, Found]:
        """Return what is found in the images of a split, by image_id, as far as it is of use.

        That is in those whose lesions are known; on test images the heat-map's peak is told of all.
        """
        every = kind == MAP and split == "test"
        names = [
            row.image_id
            for row in self._subject.splits[split].rows
            if every or row.image_id in self._subject.lesions.masks
        ]
        left = [name for name in names if not self._done(kind, name)]
        if left:
            self._make(kind, split, left, len(names), progress)
        found = {name: self._ledger.facts(f"{kind}/{name}", self._key_of(name)) for name in names}
        return {name: Found.of_facts(facts) for name, facts in found.items() if facts}

    def maps(self, kind: str, split: str, names: Sequence[str]) -> Heat:
        """Return the maps of one kind (N, S, S) of images of a split: of several, the first."""
        return next(self._maps(kind, split, names))

    def _maps(self, kind: str, split: str, names: Sequence[str]) -> Iterator[Heat]:
        evidence = self._subject.evidence(self._options.evidence, names)
        images = self._subject.images(split, names)
        return (maker(images, evidence) for maker in self._makers[kind])

    def known(self, name: str) -> Any:
        """Return what was kept of its maps under a name; None where it must be found."""
        return self._ledger.facts(name, self._key)

    def keep(self, name: str, facts: Any) -> Any:
        """Keep what was found of its maps under a name, and return it."""
        self._ledger.add(name, self._key, facts)
        return facts

    def _key_of(self, name: str) -> str:
        """Return what the scores and the picture of an image depend on: its masks, too."""
        if name not in self._keys:
            self._keys[name] = digest(self._key, self._subject.lesions.digest_of(name))
        return self._keys[name]

    def _done(self, kind: str, name: str) -> bool:
        if self._ledger.facts(f"{kind}/{name}", self._key_of(name)) is None:
            return False
        if kind != MAP or name not in self._draw:
            return True
        drawn = self._ledger.facts(f"{name}.png", self._key_of(name)) is not None
        return drawn and inside(self._folder, f"{name}.png").is_file()

    def _make(
        self, kind: str, split: str, names: Sequence[str], total: int, progress: Progress
    ) -> None:
        batch = scoring_batch(self._subject.model.size)
        title = kinds(self._subject.detector)[kind]
        text = f"{title}, {'validation' if split == 'val' else split}"
        with progress.track(text, total, "images", done=total - len(names)) as advance:
            for start in range(0, len(names), batch):
                part = names[start : start + batch]
                images = self._subject.images(split, part)
                several = [*self._maps(kind, split, part)]
                found = [
                    [self._look(*one) for one in zip(part, images, normalised(maps), strict=True)]
                    for maps in several
                ]
                entries: list[tuple[str, str, Any]] = []
                for name, image, heat, *looked in zip(
                    part, images, several[0], *found, strict=True
                ):
                    key = self._key_of(name)
                    if kind == MAP and name in self._draw:
                        self._write(name, image, heat)
                        entries.append((f"{name}.png", key, {}))
                    entries.append((f"{kind}/{name}", key, asdict(Found.mean(looked))))
                self._ledger.add_all(entries)
                advance(len(part))

    def _look(self, name: str, image: NDArray[np.uint8], heat: Heat) -> Found:
        """Judge a map, divided by its maximum: scores of a map do not depend on its unit."""
        lesion = self._subject.lesions.masks.get(name)
        judged = None
        if lesion is not None:
            breast = self._breasts.setdefault(name, breast_in(image))
            judged = Judged.of(heat, lesion, breast)
        if not heat.any():
            return Found(judged, None)
        y, x = np.unravel_index(int(heat.argmax()), heat.shape)
        view = View.of(self._subject.row(name), heat.shape[0])
        return Found(judged, view.point_to_film(float(x) + 0.5, float(y) + 0.5))

    def _write(self, name: str, given: NDArray[np.uint8], heat: Heat) -> None:
        """Draw a map over the film, or over the dataset's image where the films are gone."""
        row, subject = self._subject.row(name), self._subject
        view = View.of(row, subject.model.size)
        film = subject.lesions.films.get(name)
        image = read_image(film or inside(subject.data, row.path))
        shape = image.shape[0], image.shape[1]

        def placed(one: Heat) -> Heat:
            return view.map_to_film(one, shape) if film else view.map_to_image(one)

        outlines = subject.lesions.outlines.get(name, ())
        whole = placed(self.scale.heat(heat) if self.scale else heat)
        if restores(subject.model):
            (again,) = restored_images(subject.model, given[None], subject.compute)
            shown = placed(np.asarray(given / WHITE_8, np.float32))
            picture = draw_panels(image, shown, placed(again), whole, outlines)
        else:
            picture = draw_reduced(image, whole, outlines)
        write_picture(inside(self._folder, f"{name}.png"), picture)


def _makers(subject: Subject, options: Explain) -> Mapping[str, Sequence[Maker]]:
    """Return by kind what makes its maps: several for untrained networks, whose mean counts."""
    model, compute, method = subject.model, subject.compute, options.method

    @cache
    def blank(draw: int) -> TrainedModel:  # once some of its maps are to be made
        normals = normals_of(subject.splits["val"]).images
        return without_weights(model, normals, compute, options.seed, draw)

    def trained(images: Images, evidence: Sequence[str]) -> Heat:
        return maps_of(model, images, compute, method, evidence)

    def untrained(draw: int) -> Maker:
        return lambda images, evidence: maps_of(blank(draw), images, compute, method, evidence)

    def blobs(images: Images, _evidence: Sequence[str]) -> Heat:
        return np.stack([blob_in(breast_in(image)) for image in images])

    def breasts(images: Images, _evidence: Sequence[str]) -> Heat:
        return np.stack([breast_in(image) for image in images]).astype(np.float32)

    return {
        MAP: [trained],
        "blob": [blobs],
        "breast": [breasts],
        "untrained": [untrained(draw) for draw in range(DRAWS)],
    }


def _code() -> str:
    """Return a digest of the code behind the figures: an older version's are made again."""
    parts = (baselines, cams, checks, error_parts, errors, lesions, maps, memory_bank, occlusion,
             pictures, scores, breast, frame, outlines)  # fmt: skip
    return code_digest(__file__, *(part.__file__ for part in parts))
