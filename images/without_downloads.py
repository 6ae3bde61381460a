"""pydicom without what it would fetch its own test files with: a third of what it takes to load.

pydicom imports requests and tqdm where they are installed and does without them where they are not.
Nothing here asks it for its test files.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

DOWNLOADERS = ("requests", "tqdm")


@contextmanager
def without_downloads() -> Iterator[None]:
    """Have pydicom find none of them within a block that imports it; what is loaded stays."""
    hidden = [] if "pydicom" in sys.modules else [n for n in DOWNLOADERS if n not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
