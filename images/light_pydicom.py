"""pydicom without what it loads and a plain film never needs: half of the time that loading takes.

- requests and tqdm, with which it would fetch its own test files. It does without them where they
  are not installed, and nothing here asks it for those files. What fetches them instead, urllib,
  loads when it is used.
- gdcm and Pillow, which decompress pixels, load when the first compressed film comes.
- importlib.metadata, which it asks for its own version alone.
- Its paths of example files.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pipeline.records import versions

DOWNLOADERS = ("requests", "tqdm")
GDCM, METADATA = "gdcm", "importlib.metadata"
LATER = ("urllib.request", "PIL.Image", "PIL.ImageCms", GDCM, METADATA)
EXAMPLES = "pydicom.examples"
GDCM_AT_LEAST = "3.0.0"  # what pydicom asks for; requirements.txt asks for a later one


class _Later(ModuleType):
    """Stands for a module until something is asked of it.

    importlib's own LazyLoader would load it at the second import statement.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # pydicom loads, and wants a name of gdcm
            return object
        return getattr(importlib.import_module(self.__name__), name)


class _Gdcm(_Later):
    """Stands for gdcm, of which pydicom asks the version as it loads."""

    class Version:
        """As `gdcm.Version`."""

        @staticmethod
        def GetVersion() -> str:
            """Return a version that pydicom takes."""
            return GDCM_AT_LEAST


class _Metadata(ModuleType):
    """Stands for importlib.metadata, which reads a package's whole description for its version."""

    @staticmethod
    def version(package: str) -> str:
        """Return the version of an installed package."""
        return versions()[package]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system
            raise AttributeError(name)
        if sys.modules.get(METADATA) is self:  # another thread asks for more
            del sys.modules[METADATA]
        return getattr(importlib.import_module(METADATA), name)


STAND_INS = {GDCM: _Gdcm, METADATA: _Metadata}


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
    hidden[EXAMPLES] = _Later(EXAMPLES)
    for name in LATER:
        if name not in sys.modules and importlib.util.find_spec(name):
            hidden[name] = STAND_INS.get(name, _Later)(name)
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is allowed
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is hidden[name]:
                sys.modules.pop(name, None)
