"""Is a heat-map true to its network? Checks that need no radiologist."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from models.explanation.baselines import copied, untrained
from models.explanation.maps import maps_of
from models.explanation.occlusion import blurred
from models.inference import Compute, TrainedModel, image_logits
from models.metrics import Floats
from models.networks import units
from pipeline.progress import Advance
from pipeline.stages.explanation import SIGNS

Images = NDArray[np.uint8]  # (N, S, S)
Maps = NDArray[np.float32]  # (N, S, S) in [0, 1]
Masks = NDArray[np.bool_]  # (N, S, S)

STEPS = 16  # of deletion and insertion: how often the score is taken after the first
COARSE = 48  # pixels of the side at which maps are ranked


def deletion_and_insertion(
    model: TrainedModel, image: Images, heat: Maps, compute: Compute, evidence: str
) -> tuple[float, float]:
    """Return how the score of an image follows its heat-map.

    Deletion blurs pixels, the hottest first, and insertion starts from the blurred image and shows
    them. The areas are those under the probability of the class whose evidence is mapped, over the
    share of pixels (Petsiuk et al. 2018, BMVC, RISE). RISE deletes to black; a black hole in a
    breast would be a finding itself, so that both use its blurred image here.

    Args:
        model: In eval mode.
        image: (S, S) uint8 in [0, 255].
        heat: (S, S).
        compute: Device and arithmetic; computed in float32.
        evidence: "malignant" or "benign".

    Returns:
        Areas under the curves of deletion (low is good) and insertion (high is good), 0 to 1.
    """
    order = np.argsort(-heat, axis=None, kind="stable")
    rank = np.empty(heat.shape, np.int64)
    rank.flat[order] = np.arange(heat.size)
    hidden = blurred(image)
    limits = [round(heat.size * step / STEPS) for step in range(STEPS + 1)]
    shown = [np.where(rank < limit, hidden, image) for limit in limits]
    shown += [np.where(rank < limit, image, hidden) for limit in limits]
    exact = Compute(compute.device, None)
    found = image_logits(model.network, np.stack(shown), model.transform(exact), exact)
    scores = 1 / (1 + np.exp(-SIGNS[evidence] * found.astype(np.float64)))
    deleted, inserted = scores[: STEPS + 1], scores[STEPS + 1 :]
    return float(np.trapezoid(deleted, dx=1 / STEPS)), float(np.trapezoid(inserted, dx=1 / STEPS))


def randomised(
    model: TrainedModel,
    images: Images,
    maps: Maps,
    breasts: Masks,
    compute: Compute,
    method: str,
    evidence: Sequence[str],
    seed: int,
    advance: Advance,
) -> Iterator[tuple[str, float]]:
    """Yield how far maps stay as they were while a network loses what it learnt, from its head on.

    The cascading randomisation of Adebayo et al. 2018 (NeurIPS, Sanity checks for saliency maps): a
    map that stays the same does not depend on what was learnt.

    Args:
        model: In eval mode; it stays as it is.
        images: Some of its images.
        maps: Their maps.
        breasts: Where the breast is in each: maps are compared there alone, as they agree about the
            background anyway.
        compute: Device and arithmetic.
        method: Of the maps.
        evidence: Of each map.
        seed: Of the random weights.
        advance: Called with the number of images done.

    Yields:
        The unit that was randomised last, and Spearman's rank correlation with the maps of before,
        the mean over images; NaN where every map is flat.
    """
    changed, fresh = copied(model), units(untrained(model, compute, seed).network)
    chain = units(changed.network)
    for name in reversed(learnt_units(changed.network)):
        chain[name].load_state_dict(fresh[name].state_dict())
        found = maps_of(changed, images, compute, method, evidence, advance)
        each = [rank_correlation(*one) for one in zip(maps, found, breasts, strict=True)]
        yield name, _mean(each)


def learnt_units(network: nn.Module) -> list[str]:
    """Return the units of a network that have weights, in the order of computing."""
    chain = units(network).items()
    return [name for name, unit in chain if any(True for _ in unit.parameters())]


def rank_correlation(first: Maps, second: Maps, where: Masks) -> float:
    """Return Spearman's rank correlation of two (S, S) maps in a mask; NaN where one is flat."""
    size = (COARSE, COARSE)
    small = [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (first, second)]
    shown = cv2.resize(where.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    return correlation(*(rankdata(one[shown]) for one in small))


def mirror_correlations(
    model: TrainedModel,
    images: Images,
    compute: Compute,
    method: str,
    evidence: Sequence[str],
    advance: Advance,
) -> Floats:
    """Return (N,) Pearson's correlation of the map of each mirror image with the mirrored map.

    It is that of single maps. A classifier's maps that are shown are means over an image and its
    mirror image, whose correlation is 1 by construction and says nothing of the network.
    """
    turned = np.ascontiguousarray(images[:, :, ::-1])
    single = maps_of(model, images, compute, method, evidence, mirrored=False)
    found = maps_of(model, turned, compute, method, evidence, advance, mirrored=False)
    each = [correlation(*one) for one in zip(found[:, :, ::-1], single, strict=True)]
    return np.array(each, np.float64)


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return Pearson's correlation of two arrays of one shape; NaN where one is constant."""
    left, right = (one.astype(np.float64).ravel() - one.mean() for one in (first, second))
    scale = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / scale) if scale > 0 else float("nan")


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
