"""What heat-maps are worth beside the radiologists' outlines: of each image, and of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.bootstrap import INTERVAL_PATIENTS, Estimate, patient_weights, tail_of, with_interval
from models.evaluation.strata import FACTORS, levels
from models.metrics import Floats, auc
from pipeline.labels import KEYS
from pipeline.manifest import Row

Heat = NDArray[np.float32]  # (S, S) in [0, 1]
Mask = NDArray[np.bool_]  # (S, S)

# How far beside a lesion a peak may lie, as a share of the image's side: 15 pixels in images of
# 500 (Zhang et al. 2018, International Journal of Computer Vision 126:1084, section 5.1).
TOLERANCE = 0.03
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # of the heat
SCORES = {"pointing": "Pointing game", "energy": "Energy in the lesion", "iou": "IoU",
          "pixel_auc": "Pixel AUC"}  # fmt: skip
ALL = "all"
GROUPS = (ALL, *KEYS)  # in JSON; the negative label's images, and the positive one's


@dataclass(frozen=True)
class Judged:
    """One heat-map beside the lesions of its image.

    A map of zeros says nothing, so it is taken as one that is equally warm everywhere.
    """

    pointing: float  # 1 where the hottest pixel hits; of several that are as hot, the share of them
    energy: float  # the share of the heat that lies in the lesions
    iou: tuple[float, ...]  # intersection over union, at each of THRESHOLDS
    # Area under the ROC curve of the pixels inside the breast, those of lesions against others;
    # None where the breast holds one kind alone.
    pixel_auc: float | None

    @classmethod
    def of(cls, heat: Heat, lesion: Mask, breast: Mask) -> "Judged":
        """Judge a map, at least 0, with a mask of the same (S, S) that marks something.

        Pointing game: Zhang et al. 2018. Share of energy: Wang et al. 2020 (Score-CAM, CVPR
        workshops, section 4.3). Pixel AUC: Bergmann et al. 2019 (MVTec AD, CVPR, p. 9592), of each
        image by itself. A map that is the same everywhere has 0.5.

        Args:
            heat: (S, S) in [0, 1].
            lesion: (S, S), true in a lesion.
            breast: (S, S), true in the breast.
        """
        total = float(heat.sum(dtype=np.float64))
        if not total:
            heat, total = np.ones_like(heat), float(heat.size)
        near = reached(lesion)
        energy = float(heat[lesion].sum(dtype=np.float64)) / total
        iou = []
        for threshold in THRESHOLDS:
            warm = heat >= threshold
            union = np.count_nonzero(warm | lesion)
            iou.append(np.count_nonzero(warm & lesion) / union)
        area = auc(lesion[breast], heat[breast].astype(np.float64))
        within = area if np.isfinite(area) else None
        return cls(float(near[heat == heat.max()].mean()), energy, tuple(iou), within)

    @classmethod
    def mean(cls, several: Sequence["Judged"]) -> "Judged":
        """Return the mean scores of several maps of one image."""
        areas = [one.pixel_auc for one in several if one.pixel_auc is not None]
        return cls(
            float(np.mean([one.pointing for one in several])),
            float(np.mean([one.energy for one in several])),
            tuple(np.mean([one.iou for one in several], axis=0).tolist()),
            float(np.mean(areas)) if areas else None,
        )


def reached(lesion: Mask) -> Mask:
    """Return where a peak counts as a hit: in an (S, S) lesion, or not far beside it."""
    away = cv2.distanceTransform((~lesion).view(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(away <= TOLERANCE * lesion.shape[0], np.bool_)


def best_threshold(judged: Sequence[Judged]) -> float:
    """Return which of THRESHOLDS gives validation images the highest mean IoU; 0.5 without any."""
    if not judged:
        return 0.5
    means = np.mean([one.iou for one in judged], axis=0)
    return THRESHOLDS[int(means.argmax())]


@dataclass(frozen=True)
class ScoredMaps:
    """Test images whose lesions are known, with what maps of one kind are worth on them."""

    values: Mapping[str, Floats]  # by score, (N,) of each image; NaN where it has none
    malignant: NDArray[np.bool_]  # (N,) the truth
    patients: Sequence[str]  # (N,)
    threshold: float  # of the IoU, chosen on validation

    @classmethod
    def of(
        cls, judged: Sequence[Judged], malignant: NDArray[np.bool_], patients: Sequence[str],
        threshold: float,
    ) -> "ScoredMaps":  # fmt: skip
        """Take the images' scores, the IoU at a threshold."""
        place = THRESHOLDS.index(threshold) if threshold in THRESHOLDS else 0
        columns = {
            "pointing": [one.pointing for one in judged],
            "energy": [one.energy for one in judged],
            "iou": [one.iou[place] for one in judged],
            "pixel_auc": [one.pixel_auc for one in judged],
        }
        values = {name: np.array(found, np.float64) for name, found in columns.items()}
        return cls(values, malignant, patients, threshold)

    def chosen(self, group: str) -> NDArray[np.bool_]:
        """Return (N,) which images are of a group: all, benign or malignant."""
        if group == ALL:
            return np.ones(len(self.malignant), np.bool_)
        return np.equal(self.malignant, group == KEYS[1])

    def figures(self, replicates: int, seed: int, beside: "ScoredMaps | None" = None) -> Any:
        """Return each score of each group with its interval, as JSON can hold it.

        Args:
            replicates: Of the bootstrap over patients.
            seed: Of its draws.
            beside: Maps of another kind of the same images: then it is the lead over them, whose
                interval comes from the same draws.
        """
        values = self.values
        if beside:
            values = {name: own - beside.values[name] for name, own in values.items()}
        return {group: self._means(values, self.chosen(group), replicates, seed)
                for group in GROUPS}  # fmt: skip

    def of_some(self, places: NDArray[np.intp], replicates: int, seed: int) -> dict[str, Any]:
        """Return each score of the images at some places, with its interval."""
        chosen = np.zeros(len(self.malignant), np.bool_)
        chosen[places] = True
        return self._means(self.values, chosen, replicates, seed)

    def _means(
        self, values: Mapping[str, Floats], chosen: NDArray[np.bool_], replicates: int, seed: int
    ) -> dict[str, Any]:
        found = {}
        for name, own in values.items():
            known = chosen & np.isfinite(own)
            patients = [who for who, is_in in zip(self.patients, known, strict=True) if is_in]
            found[name] = as_json(mean_of(own[known], patients, replicates, seed))
        return found


def strata_of(
    rows: Sequence[Row], scored: Mapping[str, ScoredMaps], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Return what maps are worth in each stratum of the images that they are scored on.

    Args:
        rows: Of the images, in the order of `scored`.
        scored: By kind of map.
        replicates: Of the bootstrap over patients.
        seed: Of its draws.

    Returns:
        For each level of each factor of `models.evaluation.strata` that the images have: factor,
        level, images, patients, scores (by kind of map and score: value, low, high).
    """
    return [
        {
            "factor": factor,
            "level": level,
            "images": len(places),
            "patients": len({rows[place].patient_id for place in places}),
            "scores": {
                kind: maps.of_some(places, replicates, seed) for kind, maps in scored.items()
            },
        }
        for factor in FACTORS
        for level, places in levels(rows, factor)
    ]


def known_groups(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the groups that say something of their own, of `ScoredMaps.figures`.

    Where the images of one label alone have lesions, as normal ones have none, theirs are all.
    """
    both = all(figures[group]["pointing"]["value"] is not None for group in GROUPS)
    return GROUPS if both else (ALL,)


def mean_of(values: Floats, patients: Sequence[str], replicates: int, seed: int) -> Estimate:
    """Return the mean of images (N,) with its 95 % interval, by a bootstrap over patients.

    Without an image it is NaN, and with fewer than three patients there is no interval.
    """
    nan = float("nan")
    if not len(values):
        return Estimate(nan, nan, nan)
    value, known = float(values.mean()), len(set(patients))
    if known < INTERVAL_PATIENTS:
        return Estimate(value, nan, nan)
    drawn = [
        (weights @ values) / weights.sum(axis=1)
        for weights in patient_weights(patients, replicates, seed)
    ]
    return with_interval(value, np.concatenate(drawn), tail_of(known))


def as_json(found: Estimate) -> dict[str, float | None]:
    """Return a figure with its interval; null where there is none."""
    parts = {"value": found.value, "low": found.low, "high": found.high}
    return {name: float(part) if np.isfinite(part) else None for name, part in parts.items()}
