"""pydicom without what it loads and a plain film never needs: half of the time that loading takes.

- requests and tqdm, with which it would fetch its own test files. It does without them where they
  are not installed, and nothing here asks it for those files.
- gdcm and Pillow, which decompress pixels. They load when the first compressed film comes.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

DOWNLOADERS = ("requests", "tqdm")
PICTURES = ("PIL.Image", "PIL.ImageCms")
GDCM = "gdcm"
GDCM_AT_LEAST = "3.0.0"  # what pydicom asks for; requirements.txt asks for a later one


class _Gdcm(ModuleType):
    """Stands for gdcm, of which pydicom asks the version as it loads, until it decompresses."""

    class Version:
        """As `gdcm.Version`."""

        @staticmethod
        def GetVersion() -> str:
            """Return a version that pydicom takes."""
            return GDCM_AT_LEAST

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system
            raise AttributeError(name)
        if sys.modules.get(GDCM) is self:  # pydicom loads, and its old handler wants a name
            return object
        return getattr(importlib.import_module(GDCM), name)


@contextmanager
def light_pydicom() -> Iterator[None]:
    """Leave the others out where a block imports pydicom; what is loaded already stays."""
    if "pydicom" in sys.modules:
        yield
        return
    hidden: dict[str, ModuleType | None] = {
        name: None  # cannot be imported
        for name in DOWNLOADERS
        if name not in sys.modules
    }
    if GDCM not in sys.modules and importlib.util.find_spec(GDCM):
        hidden[GDCM] = _Gdcm(GDCM)
    for name in PICTURES:
        if name not in sys.modules:
            _load_when_used(name)
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is allowed
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is hidden[name]:
                sys.modules.pop(name, None)


def _load_when_used(name: str) -> None:
    """Put a module in place whose code runs when something is first asked of it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
