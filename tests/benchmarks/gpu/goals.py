"""What the figures are held against, and the tables that they are shown in."""

import dataclasses

from models.registry import MODELS
from tests.benchmarks.gpu.memory import TRIED
from tests.benchmarks.gpu.networks import FROM_FILES, IN_MEMORY, MEASURED, row_of
from tests.benchmarks.gpu.record import FAILED, FIGURE, NOTE, UNMEASURED

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"
WIDEST = 34  # columns of a figure's name


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that should be reached."""

    text: str
    part: str
    row: str
    column: str
    least: float

    def state(self, figures):
        """Return whether it is met, and the figure."""
        cell = figures.get(self.part, {}).get(self.row, {}).get(self.column)
        if cell is None:
            return NOT_MEASURED, None
        return MET if cell["value"] >= self.least else NOT_MET, cell["value"]


def goals():
    """Return all of them."""
    found = [
        Goal(
            f"{model} trains, continues after a stop, is evaluated", "models", model, "test AUC", 0
        )
        for model in MODELS
    ]
    for model in MEASURED:
        for situation, least in ((FROM_FILES, 3.0), (IN_MEMORY, 1.3)):
            row = row_of(model, situation)
            text = f"{row}: at least {least:g} times the plain loop"
            found.append(Goal(text, "speed", row, "ratio", least))
        row = row_of(model, IN_MEMORY)
        found.append(Goal(f"{row}: GPU busy 80 % of an epoch", "speed", row, "GPU busy", 80))
    found.append(Goal("torchrun finishes a run", "processes", "1 process", "finished", 1))
    found += [
        Goal(f"out of memory, {name}", "memory", name, "as it should be", 1) for name in TRIED
    ]
    return found


def judged(figures, on_gpu):
    """Return each goal with its state; without a GPU a figure says nothing of any."""
    found = []
    for goal in goals():
        state, value = goal.state(figures) if on_gpu else (NOT_MEASURED, None)
        found.append({"goal": goal.text, "state": state, "value": value})
    return found


def sorted_out(lines):
    """Return figures by part, row and column; failures; what was not measured; notes."""
    figures, failed, unmeasured, said = {}, [], [], []
    for line in lines:
        if line["kind"] == FIGURE:
            row = figures.setdefault(line["part"], {}).setdefault(line["row"], {})
            row[line["column"]] = {"value": line["value"], "unit": line["unit"]}
        elif line["kind"] == FAILED:
            failed.append({"what": f"{line['part']}: {line['what']}", "why": line["why"]})
        elif line["kind"] == UNMEASURED:
            unmeasured.append({"what": f"{line['part']}: {line['what']}", "why": line["why"]})
        elif line["kind"] == NOTE:
            said.append(line["text"])
    return figures, failed, unmeasured, said


def tables(figures):
    """Return the lines of a table for each part: its rows, and below each its figures."""
    lines = []
    for part, rows in figures.items():
        lines += ["", part]
        for row, cells in rows.items():
            lines.append(f"  {row}")
            for column, cell in cells.items():
                value = cell["value"]
                shown = f"{value:,.3f}" if isinstance(value, float) else f"{value}"
                lines.append(f"    {column:<{WIDEST}}{shown:>14} {cell['unit']}".rstrip())
    return lines


def summary(figures, failed, unmeasured, said, judgement):
    """Return all that was found, in lines."""
    lines = [*tables(figures), "", *said]
    lines += ["", "goals"]
    for state in (MET, NOT_MET, NOT_MEASURED):
        for one in (one for one in judgement if one["state"] == state):
            value = "" if one["value"] is None else f" ({one['value']:.3g})"
            lines.append(f"  {state}: {one['goal']}{value}")
    lines += ["", *(f"not measured: {one['what']}: {one['why']}" for one in unmeasured)]
    for one in failed:
        lines += [f"FAILED: {one['what']}", *(f"    {line}" for line in one["why"].splitlines())]
    return lines
