"""What stops one job of several, in one line; and what it leaves behind. Light: no torch."""

import gc
import sys
import traceback
from pathlib import Path

LONGEST = 300  # characters of what torch says
# What torch says of memory that it lacks, in lower case: of the processor and of GPUs, also those
# that are full outside of torch's own allocator; of NVIDIA's libraries; the last where none of
# cuDNN's algorithms got the memory to be tried.
OUT_OF_MEMORY = (
    "out of memory", "allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
    "was unable to find an engine to execute this computation",
)  # fmt: skip


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch failed for want of memory, on a GPU or on the processor."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(one in text for one in OUT_OF_MEMORY)


def torch_reason(error: RuntimeError, remedy: str) -> str:
    """Return in one line why torch failed.

    Args:
        error: What it raised.
        remedy: What to do where memory was short, such as "give a smaller --batch-size".
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0][:LONGEST]
    if is_out_of_memory(error):
        return f"not enough memory ({text}); {remedy}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def free_memory() -> None:
    """Give back what the last job held, so that the next one has it."""
    gc.collect()
    if "torch" in sys.modules:
        from models.devices import empty_cache

        empty_cache()
