"""Executes the walkthrough anew, and keeps in it what its cells show.

    python docs/notebook.py

It takes some three minutes on two cores. The notebook works in a temporary folder; what it holds
afterwards is what a reader sees who does not execute it.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
WALKTHROUGH = ROOT / "notebooks" / "walkthrough.ipynb"
SECONDS = 600  # that a cell may take
# The kernel finds the source from any folder, and reaches for no weights.
PLACE = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
DIGEST = "sources_sha256"  # in the metadata: of the cells that were executed


def executed(notebook: Any, folder: Path) -> Any:
    """Execute a notebook from its first cell to its last.

    Args:
        notebook: As nbformat reads it; it is changed.
        folder: Where it works; it is taken for the folder that the notebook lies in.

    Returns:
        The notebook with what its cells showed, and nothing of the machine.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    client = NotebookClient(
        notebook, timeout=SECONDS, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute(env=os.environ | PLACE)
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if not _is_empty(one)]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "mammolab": {DIGEST: digest_of(notebook)},
    }
    return notebook


def digest_of(notebook: Any) -> str:
    """Return a digest of a notebook's cells without what they showed."""
    sources = "\0".join(f"{cell.cell_type} {cell.source}" for cell in notebook.cells)
    return hashlib.sha256(sources.encode()).hexdigest()


def _is_empty(output: Any) -> bool:
    """Return whether an output shows nothing: the place where a bar was."""
    data = output.get("data", {})
    return output.output_type == "display_data" and not any(data.values())


def main() -> int:
    """Execute the walkthrough in a temporary folder and write it back."""
    notebook = nbformat.read(WALKTHROUGH, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(notebook, Path(folder)), WALKTHROUGH)
    print(f"{WALKTHROUGH.relative_to(ROOT)}: {WALKTHROUGH.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
