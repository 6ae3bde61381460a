"""Whether an image is like those that a run was trained on; light, no torch.

The film as it was read and the network's input are each held against a few statistics of the
training images: all together, by their normal distribution, and each alone, by its range, since one
that is far off would be lost among many that are not. The features are held against the nearest
training images. Each way has a limit that new images keep. Beyond one the score says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.statistics import STATISTICS, film_statistics
from pipeline.errors import UserError
from pipeline.records import atomic, read_json, write_json

FACTS_FILE, ARRAYS_FILE = "domain.json", "domain.safetensors"
NEIGHBOURS = 5  # the distance in feature space is that to the fifth nearest training image
LEAST_SPREAD = 0.01  # of a statistic: what does not vary in training may vary a little
SIZE_MARGIN = 1.5  # times the smallest and the largest training film's longer side
FARTHEST = {  # what the statistic that is farthest off says, by whether it is too large
    ("aspect", True): "narrower; a part of a film?",
    ("aspect", False): "wider; turned, or several films in one?",
    ("mirror correlation", True): "both sides are alike; two breasts in one?",
    ("detail", True): "finer detail; noise?",
    ("detail", False): "hardly any fine detail; blurred?",
    ("black share", True): "a black background; a digital mammogram?",
}
PARTS = "mean", "precision", "lowest", "highest"  # of a normal distribution, as arrays
Floats = NDArray[np.float64]
Image = NDArray[np.uint8]  # (H, W), [0, 255]


@dataclass(frozen=True)
class Normal:
    """A normal distribution of statistics, and how far from its mean an image may be."""

    mean: Floats  # (D,)
    precision: Floats  # (D, D), the inverse of the covariance
    lowest: Floats  # (D,) of the training images
    highest: Floats  # (D,) of them
    limit: float  # of `distance`
    reach: float  # of `excess`

    def is_beyond(self, values: NDArray[Any]) -> bool:
        """Return whether (D,) statistics are beyond one of the two limits."""
        return self.distance(values) > self.limit or float(self.excess(values).max()) > self.reach

    def excess(self, values: NDArray[Any]) -> Floats:
        """Return how far each of (D,) statistics is from the middle of its range in the training.

        Returns:
            (D,) in half ranges: 1 at the ends of the range.
        """
        middle, half = (self.lowest + self.highest) / 2, (self.highest - self.lowest) / 2
        off: Floats = np.abs(np.asarray(values, np.float64) - middle)
        return off / np.maximum(half, LEAST_SPREAD)

    def distance(self, values: NDArray[Any]) -> float:
        """Return the Mahalanobis distance of (D,) statistics, over the square root of D."""
        off = np.asarray(values, np.float64) - self.mean
        squared = float(off @ self.precision @ off)
        return float(np.sqrt(max(0.0, squared) / len(off)))


@dataclass(frozen=True)
class Domain:
    """What a run knows of the images that it was trained on."""

    working: Normal  # of the network's input
    film: Normal | None  # of the film as it was read; None where the films were not at hand
    sides: tuple[int, int] | None  # the films' longer sides in pixels, smallest and largest
    features: NDArray[np.float32]  # (N, F), each of unit length
    features_limit: float  # of `feature_distance`
    key: str = ""  # digest of what it was made from

    def feature_distance(self, features: NDArray[Any]) -> float:
        """Return the distance of (F,) features to the fifth nearest training image's, in [0, 2].

        Both have unit length (Sun et al. 2022, ICML 162:20827).
        """
        return float(nearest(unit_length(features[None]), self.features)[0])

    def complaints(
        self,
        film: Image | None,
        side: int | None,
        working: Image,
        features: NDArray[Any] | None,
        unit: str = "mammogram",
    ) -> list[str]:
        """Return in words how an image differs from the training images; empty where it does not.

        Each text goes on from "This image", and a full stop can follow it.

        Args:
            film: Thumbnail (H, W) of the image as it was read, from `images.thumbnails.thumbnail`;
                None where only the network's input is known.
            side: Its longer side in pixels, likewise.
            working: (S, S), the network's input.
            features: (F,) of the network; None where they are not known.
            unit: What an image of the training was, as `Row.unit` says.
        """
        found = []
        if film is not None and self.film is not None:
            found += self._film_complaints(film, self.film, unit)
        if side is not None and self.sides is not None:
            low, high = self.sides
            if not low / SIZE_MARGIN <= side <= high * SIZE_MARGIN:
                found.append(
                    f"is {side:,} pixels long; those of the training had {_span(low, high)}"
                )
        if not found and self.working.is_beyond(film_statistics(working)):
            found.append("does not look like the training images after preprocessing")
        if not found and features is not None and self._is_far(features):
            found.append("shows the network something that it was not trained on")
        return found

    def _is_far(self, features: NDArray[Any]) -> bool:
        return self.feature_distance(features) > self.features_limit

    def _film_complaints(self, film: Image, known: Normal, unit: str) -> list[str]:
        values = film_statistics(film)
        if not known.is_beyond(values):
            return []
        if unit == "patch":
            return ["does not look like the patches of the training (a whole mammogram?)"]
        turned = {
            "inverted: dark tissue on a bright ground": [255 - film],
            "turned on its side": [np.rot90(film), np.rot90(film, 3)],
        }
        for what, images in turned.items():
            if not all(known.is_beyond(film_statistics(image)) for image in images):
                return [f"seems to be {what}"]
        named = dict(zip(STATISTICS, values, strict=True))
        lowest = dict(zip(STATISTICS, known.lowest, strict=True))
        if named["dark share"] < 0.5 * lowest["dark share"]:
            return ["shows hardly any background: a crop, or no mammogram"]
        farthest = int(known.excess(values).argmax())
        above = bool(values[farthest] > known.highest[farthest])
        what = FARTHEST.get((STATISTICS[farthest], above), "no mammogram?")
        return [f"does not look like the films of the training ({what})"]

    def save(self, folder: Path) -> None:
        """Write it into a run's folder: the arrays, then domain.json."""
        from safetensors.numpy import save

        normals = {"working": self.working, "film": self.film}
        arrays: dict[str, NDArray[Any]] = {"features": self.features.astype(np.float16)}
        limits = {"features": self.features_limit}
        for name, normal in normals.items():
            if normal is not None:
                arrays |= {f"{name}.{part}": getattr(normal, part)
                           for part in PARTS}  # fmt: skip
                limits |= {name: normal.limit, f"{name} range": normal.reach}
        with atomic(folder / ARRAYS_FILE) as temporary:
            temporary.write_bytes(save(arrays))
        write_json(folder / FACTS_FILE, {
            "key": self.key,
            "statistics": list(STATISTICS),
            "limits": limits,
            "sides": None if self.sides is None else list(self.sides),
        })  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> "Domain | None":
        """Read it from a run's folder; None where it is not there, or of another version.

        Raises:
            UserError: A file of it is damaged.
        """
        if not (folder / FACTS_FILE).is_file():
            return None
        facts = read_json(folder / FACTS_FILE)
        if facts["statistics"] != list(STATISTICS):
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return cls._of(facts, load_file(folder / ARRAYS_FILE))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            problem = f"{folder / ARRAYS_FILE}: cannot be read ({error})"
            raise UserError(problem, "evaluate the run again") from None

    @classmethod
    def _of(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Domain":
        def normal(name: str) -> Normal | None:
            if f"{name}.mean" not in arrays:
                return None
            count = len(STATISTICS)
            parts = {part: arrays[f"{name}.{part}"] for part in PARTS}
            for part, values in parts.items():
                if values.shape != ((count, count) if part == "precision" else (count,)):
                    raise ValueError(f"{name}.{part} has the shape {values.shape}")
            limits = facts["limits"]
            return Normal(**parts, limit=float(limits[name]), reach=float(limits[f"{name} range"]))

        working, sides = normal("working"), facts["sides"]
        if working is None or arrays["features"].ndim != 2:
            raise ValueError("a part of it is missing")
        return cls(
            working=working,
            film=normal("film"),
            sides=None if sides is None else (int(sides[0]), int(sides[1])),
            features=arrays["features"].astype(np.float32),
            features_limit=float(facts["limits"]["features"]),
            key=str(facts["key"]),
        )


def unit_length(features: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N, F) features scaled to unit length."""
    values = features.astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = values / np.maximum(length, np.float32(1e-12))
    return scaled


def nearest(features: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distances (N,) of features to the fifth nearest known ones.

    Args:
        features: (N, F) of unit length.
        known: (M, F) of unit length.
    """
    squared = np.maximum(2 - 2 * features @ known.T, 0)  # (N, M)
    place = min(NEIGHBOURS, squared.shape[1]) - 1
    found: NDArray[np.float32] = np.sqrt(np.partition(squared, place, axis=1)[:, place])
    return found


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
