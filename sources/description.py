"""One figure that describes a dataset: who and what is in each split, and what is not known."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.manifest import DESCRIPTION, SPLITS, Row
from pipeline.records import atomic

COLOURS = dict(zip(SPLITS, ("#0b5394", "#b45f06", "#666666"), strict=True))
STYLE = {"font.size": 8.0, "axes.spines.top": False, "axes.spines.right": False}
ACROSS, PANEL = 3, (3.2, 2.0)  # panels in a row; inches of a panel with the texts around it
HEAD, FOOT = 0.3, 0.3  # inches above and below all panels
DOTS = 110  # an inch
DECADE = 10  # years of age in a bar
MOST = 8  # bars of a panel: rarer values are one bar
ORDER = ("not_malignant", "normal", "benign", "malignant", "abnormal")
UNKNOWN, OTHERS = "not known", "others"
Value = Callable[[Row], str]


def write_description(folder: Path, rows: Sequence[Row]) -> None:
    """Write the figure of a dataset as `folder/description.png`; the same rows, the same bytes.

    Each panel shows one variable: for each value the share of a split's images that have it.
    What is not known of some images is a bar of its own; what is known of none is named below.

    Args:
        folder: The dataset.
        rows: Its manifest; augmented images are left out.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    originals = [row for row in rows if not row.parent]
    known = {name: value for name, value in _variables(originals).items()
             if any(value(row) != UNKNOWN for row in originals)}  # fmt: skip
    missing = [name for name in _variables(originals) if name not in known]
    down = -(-len(known) // ACROSS)
    with rc_context(STYLE):
        high = HEAD + down * PANEL[1] + FOOT
        figure = Figure(figsize=(ACROSS * PANEL[0], high), facecolor="white")
        # Fixed: to have matplotlib find the room for each text takes half of the time.
        figure.subplots_adjust(
            left=0.06, right=0.99, top=1 - (HEAD + 0.2) / high, bottom=(FOOT + 0.55) / high,
            wspace=0.22, hspace=0.75,
        )  # fmt: skip
        panels = [*figure.subplots(down, ACROSS, squeeze=False).flat]
        for axes in panels:
            axes.set_visible(False)
        for axes, (name, value) in zip(panels, known.items(), strict=False):
            axes.set_visible(True)
            _draw(axes, name, value, originals)
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="upper center", ncols=len(SPLITS), frameon=False)
        text = f"Not known of any image: {', '.join(missing)}" if missing else ""
        figure.text(0.5, 0.1 / high, text, fontsize=8, color="#444444", ha="center")
        with atomic(folder / DESCRIPTION) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS, metadata={"Software": None})


def _variables(rows: Sequence[Row]) -> dict[str, Value]:
    """Return what is shown, with how it is read off a row; always the same for one collection."""
    found: dict[str, Value] = {
        "label": lambda row: row.label,
        "age in years": lambda row: _decade(row.age),
        "side": lambda row: row.laterality.lower() or UNKNOWN,
        "view": lambda row: row.view or UNKNOWN,
        "BI-RADS density": lambda row: str(row.density) if row.density else UNKNOWN,
        "BI-RADS assessment": lambda row: _worst(row.assessment),
        "finding": lambda row: row.finding.lower().replace("|", " and ") or _without(row),
    }
    if any(row.diagnosis and row.diagnosis not in (row.label, "") for row in rows):
        found["diagnosis"] = lambda row: row.diagnosis or UNKNOWN
    for name in ("site", "machine", "implant", "collection"):
        if any(getattr(row, name) for row in rows):
            found[name] = lambda row, name=name: getattr(row, name) or UNKNOWN  # type: ignore[misc]
    return found


def _decade(age: int | None) -> str:
    return UNKNOWN if age is None else f"{age // DECADE * DECADE}-{age // DECADE * DECADE + 9}"


def _worst(assessment: str) -> str:
    """Return the highest of the assessments of an image's lesions."""
    return max((part for part in assessment.split("|") if part), default=UNKNOWN)


def _without(row: Row) -> str:
    return "none" if row.diagnosis == "normal" else UNKNOWN


def _draw(axes: Any, name: str, value: Value, rows: Sequence[Row]) -> None:
    """Draw one panel: a bar for each value and split."""
    counts = {split: Counter(value(row) for row in rows if row.split == split) for split in SPLITS}
    totals = Counter[str]()
    for found in counts.values():
        totals.update(found)
    common = [text for text, _ in totals.most_common(MOST)]
    rare = [text for text in totals if text not in common]

    def place(text: str) -> tuple[Any, ...]:
        last = text in (UNKNOWN, OTHERS)
        return last, ORDER.index(text) if text in ORDER else len(ORDER), text

    shown = sorted(common, key=place) + ([OTHERS] if rare else [])
    width = 0.8 / len(SPLITS)
    for number, split in enumerate(SPLITS):
        found, total = counts[split], max(1, counts[split].total())
        shares = [
            100 * (sum(found[one] for one in rare) if text == OTHERS else found[text]) / total
            for text in shown
        ]
        places = [at + (number - 1) * width for at in range(len(shown))]
        label = f"{split} ({counts[split].total():,} images)"
        axes.bar(places, shares, width, color=COLOURS[split], label=label)
    axes.set_title(name, fontsize=9)
    axes.set_ylabel("% of the split", fontsize=7)
    long = sum(map(len, shown)) > 30  # characters that fit below a panel
    axes.set_xticks(range(len(shown)), [text.replace("_", " ") for text in shown],
                    rotation=25 if long else 0, ha="right" if long else "center")  # fmt: skip
