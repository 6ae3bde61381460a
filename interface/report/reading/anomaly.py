"""What evaluation says of an anomaly detector: errors, their threshold, normal images it flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ABOVE = "standard deviations {} normal images"
CALLS = "not anomalous", "anomalous"
ERRORS = {  # what a score is, by its name in metrics.json
    "mse": "the mean squared error inside the breast",
    "l1": "the mean absolute error inside the breast",
    "ssim": "the mean structural dissimilarity inside the breast (Wang et al. 2004)",
    "mix": "structural dissimilarity and a little of the absolute error (Zhao et al. 2017)",
    "patches": "the largest distance of a patch to the nearest one of the memory bank",
    "elsewhere": "what an anomaly detector elsewhere gave",
}


@dataclass(frozen=True)
class Anomaly:
    """An anomaly detector's threshold; its scores are errors, and no probabilities."""

    error: str  # a key of ERRORS
    mean: float  # of the errors of normal validation images
    sd: float  # their standard deviation
    threshold: float  # an image whose error reaches it is called anomalous
    normals: Mapping[str, int]  # normal images by split
    flagged: Mapping[str, float | None]  # share of them that the threshold flags, by split

    @classmethod
    def recorded(cls, facts: Mapping[str, Any] | None) -> "Anomaly | None":
        """Read what metrics.json has under "anomaly"; None of a classifier."""
        if not facts:
            return None
        return cls(
            error=str(facts["error"]),
            mean=float(facts["mean"]),
            sd=float(facts["sd"]),
            threshold=float(facts["threshold"]),
            normals={name: int(number) for name, number in facts["normals"].items()},
            flagged=dict(facts["flagged"]),
        )

    @property
    def score(self) -> str:
        """What a score is, in words."""
        return ERRORS.get(self.error, self.error)

    def away(self, error: float) -> float:
        """Return how many standard deviations an error lies above the mean of normal images."""
        return (error - self.mean) / self.sd

    def short(self, error: float) -> str:
        """Return that as a table has it: "+2.7 SD"."""
        return f"{self.away(error):+.1f} SD".replace("-", "\N{MINUS SIGN}")

    def words(self, error: float) -> str:
        """Return that in words: "2.7 standard deviations above normal images"."""
        away = self.away(error)
        return f"{abs(away):.1f} " + ABOVE.format("above" if away >= 0 else "below")
