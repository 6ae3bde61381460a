"""Which of the runs on the same test images differ by more than chance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interface.report.reading.runs import RunView
from interface.report.reading.scores import Interval, number
from interface.report.sheets import Note, Sheet, SheetRow, figure

if TYPE_CHECKING:
    from models.comparison.significance import Pair

COMPARED = 16  # models at most: more pairs than a page can show or a correction can bear


@dataclass(frozen=True)
class Significance:
    """All pairs of the runs of a group, or of those that were best on validation."""

    pairs: Sequence["Pair"]  # as models.comparison.significance gives them
    words: str  # what can be ranked and what cannot
    matrix: Sheet  # differences and corrected p-values, as the page shows them
    sheet: Sheet  # the pairs, one a line
    left_out: str  # what was not compared, and why; empty where all were


def titles_of(runs: Sequence[RunView]) -> dict[str, str]:
    """Return what each run, by name, is called among these: its model, or more where needed.

    Runs of one model are told apart by their seeds, or else by the names of their folders.
    """
    titles = {run.name: run.title for run in runs}
    for more in (lambda run: f"seed {run.options.get('seed')}", lambda run: run.folder.name):
        called = {run.name: f"{run.title} ({more(run)})" for run in runs}
        counts, finer = Counter(titles.values()), Counter(called.values())
        for name, title in titles.items():
            if counts[title] > 1 and finer[called[name]] == 1:
                titles[name] = called[name]
    return titles


def significance(runs: Sequence[RunView], mark: str) -> Significance | None:
    """Compare every two runs on the same test images."""
    from models.comparison.significance import compare_all, in_words

    chosen = sorted(runs, key=lambda run: -run.val_auc)[:COMPARED]
    ids = [one.image_id for one in chosen[0].predictions["test"]]
    same = [
        run for run in runs
        if run in chosen and ids and [one.image_id for one in run.predictions["test"]] == ids
    ]  # fmt: skip
    if len(same) < 2:
        return None
    titles = titles_of(same)
    first = same[0].predictions["test"]
    pairs = compare_all(
        names=list(titles.values()),
        targets=np.array([one.malignant for one in first], bool),
        scores=np.array([[o.probability for o in run.predictions["test"]] for run in same]),
        called=np.array([[o.positive for o in run.predictions["test"]] for run in same], bool),
        patients=[one.patient_id for one in first],
        replicates=same[0].replicates,
        seed=same[0].seed,
    )
    left = len(runs) - len(same)
    left_out = (
        f"{left} of the {len(runs)} runs were not compared: at most {COMPARED}, those best on "
        "validation, and only runs that scored the same images."
        if left
        else ""
    )
    return Significance(
        pairs, in_words(pairs), _matrix(same, titles, pairs, mark), _pair_sheet(pairs, mark),
        left_out,
    )  # fmt: skip


def _matrix(
    runs: Sequence[RunView], titles: Mapping[str, str], pairs: Sequence["Pair"], mark: str
) -> Sheet:
    found = {(pair.first, pair.second): pair for pair in pairs}
    rows = []
    for place, run in enumerate(runs):
        cells: list[Note | str] = []
        for other in runs[:-1]:
            pair = found.get((titles[other.name], titles[run.name]))
            cells.append("" if pair is None else Note(
                f"{-pair.difference:+.3f}", f"p {_p(pair.p_adjusted)}", pair.differ))  # fmt: skip
        rows.append(SheetRow(f"{place + 1}. {titles[run.name]}", cells))
    caption = (
        "AUC of the run of the row minus that of the run of the column, with the p-value of the "
        "paired bootstrap over patients after Holm's correction over all pairs. Bold: below 0.05."
    )
    columns = ["Run", *(f"{place}" for place in range(1, len(runs)))]
    return Sheet(f"pair_matrix{mark}", caption, columns, rows)


def _p(value: float) -> str:
    return "unknown" if value != value else "< 0.001" if value < 0.001 else figure(value)


def _pair_sheet(pairs: Sequence["Pair"], mark: str) -> Sheet:
    rows = [
        SheetRow(
            head=pair.first,
            cells=[
                pair.second,
                Interval(number(pair.difference), number(pair.low), number(pair.high)),
                *(
                    number(p)
                    for p in (pair.p_bootstrap, pair.p_adjusted, pair.p_delong, pair.p_mcnemar)
                ),
            ],
        )
        for pair in pairs
    ]
    columns = ["First", "Second", "Difference in AUC", "p, bootstrap", "p, Holm", "p, DeLong",
               "p, McNemar"]  # fmt: skip
    caption = (
        "All pairs. The bootstrap draws patients; DeLong's test and McNemar's take every image "
        "for independent."
    )
    return Sheet(f"pairs{mark}", caption, columns, rows)
