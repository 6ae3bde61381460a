"""Whether a DICOM image is meant to be seen through its window, and what that makes of values.

Of an X-ray image that is made for presentation the VOI transformation is a part: its maker says
with it which stored values are dark and which are bright (PS3.3, C.8.11.3.1.5 and C.11.2). In any
other image, such as the secondary captures of CBIS-DDSM or an image for processing, a window is
what somebody looked through once: it is not applied, so that a crop and its mammogram keep one
grey scale.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # PS3.3, C.11.2.1.2 and C.11.2.1.3
# X-ray images for presentation (PS3.4, B.5): of mammography, other digital X-ray, inside the mouth,
# breast tomosynthesis and projections; and of computed radiography, which knows no other intent.
PRESENTED = {f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in (
    "1.2", "1.1", "1.3", "13.1.3", "13.1.4", "1")}  # fmt: skip
WHITE, WHITE_BITS = 65535, 16


@dataclass(frozen=True)
class Window:
    """A window (PS3.3, C.11.2.1.2), in values after the modality LUT or rescale."""

    centre: float
    width: float
    function: str = "LINEAR"  # one of FUNCTIONS

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is seen of values, (N,): (N,) in [0, 65535], 0 for the lowest ones."""
        seen = Dataset()
        seen.PhotometricInterpretation = "MONOCHROME2"  # polarity comes after the window
        seen.BitsStored, seen.PixelRepresentation = WHITE_BITS, 0  # of what comes out
        seen.WindowCenter, seen.WindowWidth = self.centre, self.width
        seen.VOILUTFunction = self.function
        with np.errstate(over="ignore"):  # of values far below a sigmoid, which become 0
            shown: NDArray[np.float64] = apply_windowing(values, seen)
        return shown


def is_seen_through_voi(dataset: pydicom.Dataset) -> bool:
    """Return whether the VOI transformation of a header is a part of its image.

    The presentation intent tells, or else the SOP class. An image without either, as some
    anonymisers leave it, is taken for one that is made to be seen.
    """
    intent = str(dataset.get("PresentationIntentType") or "").strip().upper()
    if intent in ("FOR PRESENTATION", "FOR PROCESSING"):
        return intent == "FOR PRESENTATION"
    meta = getattr(dataset, "file_meta", None)
    kind = dataset.get("SOPClassUID") or (meta and meta.get("MediaStorageSOPClassUID"))
    return not kind or str(kind) in PRESENTED


def read_window(dataset: pydicom.Dataset) -> Window | None:
    """Return the first window of a header; None where it has none that can be applied."""
    centre, width = (_first(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if not (math.isfinite(centre) and math.isfinite(width)) or function not in FUNCTIONS:
        return None
    least = 1 if function == "LINEAR" else 0
    # A width of 1 is a threshold (PS3.3, C.11.2.1.2.1), through which no film is looked at.
    return Window(centre, width, function) if width > least else None


def _first(dataset: pydicom.Dataset, name: str) -> float:
    """Return the first number of a header's value; not a number where there is none."""
    try:
        value: Any = dataset.get(name)
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        return float(values[0])
    except (TypeError, ValueError, IndexError):
        return math.nan
