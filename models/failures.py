"""What stops one job of several, in one line; and what it leaves behind. Light: no torch."""

import gc
import sys
import traceback
from pathlib import Path

LONGEST = 300  # characters of what torch says


def torch_reason(error: RuntimeError, remedy: str) -> str:
    """Return in one line why torch failed.

    Args:
        error: What it raised.
        remedy: What to do where memory was short, such as "give a smaller --batch-size".
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0][:LONGEST]
    lowered = text.lower()
    if "out of memory" in lowered or "allocate memory" in lowered:
        return f"not enough memory ({text}); {remedy}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def free_memory() -> None:
    """Give back what the last job held, so that the next one has it."""
    gc.collect()
    if "torch" in sys.modules:
        from models.devices import empty_cache

        empty_cache()
