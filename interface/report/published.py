"""What others published on the same collection, as a scale for the runs' AUCs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interface.report.reading.runs import RunView
from interface.report.reading.scores import Interval
from interface.report.sheets import Note, Sheet, SheetRow, forest_of, run_row

MAMMOGRAM, CROP = "mammogram", "crop"
OFFICIAL = "official test set"
LEAK = (
    "Accuracies of 0.93 to 0.99 on this collection should be presumed to come from a leak: the "
    "same patient, or the same film, in training and in test."
)


@dataclass(frozen=True)
class Published:
    """One published AUC, or a range of them."""

    source: str
    input: str
    unit: str
    split: str
    low: float
    high: float


PETRINI = "Petrini et al. 2022, IEEE Access 10:77723"
SHEN = "Shen et al. 2019, Sci Rep 9:12495"
FROZEN = "Frozen ResNet50 on masses, patients grouped, 2026"
RESULTS: tuple[Published, ...] = (
    Published(PETRINI, "CC and MLO, two-view EfficientNet", "breast", "5-fold", 0.934, 0.934),
    Published(PETRINI, "CC and MLO, two-view EfficientNet", "breast", OFFICIAL, 0.848, 0.848),
    Published(SHEN, "1152x896, pretrained on patches", MAMMOGRAM, "their own", 0.86, 0.91),
    Published(f"{SHEN}, re-tested by others", "1152x896, pretrained on patches", MAMMOGRAM,
              OFFICIAL, 0.69, 0.75),
    Published(FROZEN, "whole image", MAMMOGRAM, "5-fold", 0.646, 0.646),
    Published(FROZEN, "crop", CROP, "5-fold", 0.697, 0.697),
    Published(FROZEN, "whole image and crop fused", "lesion", "5-fold", 0.733, 0.733),
)  # fmt: skip
# What to expect of whole mammograms on the official test set; drawn behind every AUC.
EXPECTED = (
    ("frozen", "Expected: frozen network, 224 pixels", 0.60, 0.72),
    ("tuned", "Expected: fine-tuned, 512 pixels and more", 0.70, 0.79),
)


def published_sheet(runs: Sequence[RunView]) -> Sheet:
    """Put the test AUCs of runs on the same real test images beside what was published.

    What shares split and unit with the runs is marked; the expected ranges lie behind all rows.
    """
    unit = runs[0].unit
    forest = forest_of("AUC", [run.test.of("auc") for run in runs], width=170, floor=0.5)
    if unit == MAMMOGRAM:
        bands = tuple((kind, forest.scale(low), forest.scale(high))
                      for kind, _, low, high in EXPECTED)  # fmt: skip
        forest = replace(forest, bands=bands)
    rows = [
        run_row(
            run,
            [run.test.of("auc"), f"{run.architecture}, {run.size} pixels", unit, OFFICIAL],
            "Here",
            forest.whisker(run.test.of("auc")),
        )
        for run in runs
    ]
    listed = RESULTS
    if unit == MAMMOGRAM:
        listed += tuple(Published(text, "whole image", unit, OFFICIAL, low, high)
                        for _, text, low, high in EXPECTED)  # fmt: skip
    for one in listed:
        comparable = (one.unit, one.split) == (unit, OFFICIAL)
        rows.append(
            SheetRow(
                head=one.source,
                cells=[_range(one), one.input, one.unit, one.split],
                detail="same unit and test set as here" if comparable else "",
                part="Published",
                kind="" if comparable else "other",
                whisker=forest.whisker(
                    Interval((one.low + one.high) / 2, one.low, one.high)
                ),
            )
        )  # fmt: skip
    caption = (
        "Results on CBIS-DDSM that hold patients apart. Only rows of the same unit and the same "
        f"split compare: here a {unit}, on the collection's official test set"
        + (
            ". Shaded: what to expect of whole mammograms there, of a frozen network (lower band) "
            "and of a fine-tuned one (upper band)."
            if unit == MAMMOGRAM
            else "."
        )
    )
    columns = ["Source", "AUC", "Input", "Unit", "Split"]
    return Sheet("published", caption, columns, rows, forest)


def _range(one: Published) -> Note:
    same = one.low == one.high
    return Note(f"{one.low:.3f}" if same else f"{one.low:.2f} to {one.high:.2f}")
