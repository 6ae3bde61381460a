"""Results and tables as HTML, for a notebook; elements without colours of their own."""

from collections.abc import Iterable
from html import escape

from interface.screen import NOTICE, cell_text, duration
from pipeline.paths import from_here
from pipeline.progress import Result, Table

LEFT, RIGHT = ' style="text-align:left"', ' style="text-align:right"'

BELOW_LINES = ' style="margin-top:0.8em"'  # of what was shown while it ran


def result_as_html(result: Result, next_call: str, seconds: float, notice: bool) -> str:
    """Return a result as a notebook shows it: tables, what was made, notes, where it lies.

    Args:
        result: What a stage returned.
        next_call: The call of the stage that comes next, or empty.
        seconds: How long it took.
        notice: Whether it shows scores, so that it is said what they are not for.
    """
    parts = [table_as_html(table) for table in result.tables]
    parts.append(f"<p><b>{escape(result.headline)}</b></p>")
    if result.notes:
        parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in result.notes)}</ul>")
    lines = [f"After {duration(seconds)}."]
    if result.folder is not None:
        folder = from_here(result.folder)
        lines = [f"In <code>{escape(str(folder))}</code>, after {duration(seconds)}."]
        if result.set_aside:
            listed = escape(str(folder / result.listed_in))
            lines.append(f"{result.set_aside:,} listed with reasons in <code>{listed}</code>.")
    if next_call:
        lines.append(f"Next: <code>{escape(next_call)}</code>")
    parts.append(f"<p>{'<br>'.join(lines)}</p>")
    if notice:
        parts.append(f"<p><small>{escape(NOTICE)}</small></p>")
    return f"<div{BELOW_LINES}>{''.join(parts)}</div>"


def table_as_html(table: Table) -> str:
    """Return a table: text to the left, numbers to the right."""
    numeric = [all(not isinstance(row[i], str) for row in table.rows)
               for i in range(len(table.columns))]  # fmt: skip
    rows = "".join(f"<tr>{_cells('td', map(cell_text, row), numeric)}</tr>" for row in table.rows)
    head = f"<thead><tr>{_cells('th', table.columns, numeric)}</tr></thead>"
    # Jupyter and GitHub put a table to the right of centre and a caption below it: a line above.
    title = f"<p><b>{escape(table.title)}</b></p>" if table.title else ""
    return f'{title}<table style="margin-left:0">{head}<tbody>{rows}</tbody></table>'


def _cells(tag: str, texts: Iterable[str], numeric: Iterable[bool]) -> str:
    return "".join(
        f"<{tag}{RIGHT if right else LEFT}>{escape(text)}</{tag}>"
        for text, right in zip(texts, numeric, strict=True)
    )
