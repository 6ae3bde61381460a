import shutil
from pathlib import Path

import pytest

from tests.conftest import write_collection
from tests.organize_data.reading import run


@pytest.fixture
def copy(collection, tmp_path):
    """A copy of the synthetic collection that a test may damage."""
    return Path(shutil.copytree(collection, tmp_path / "raw"))


@pytest.fixture(scope="session")
def whole(collection, once):
    """Its mass mammograms, organised undisturbed; not to be written to."""
    return once("whole", lambda folder: run(collection, folder / "dataset"))


@pytest.fixture(scope="session")
def kaggle(once):
    """The same collection in JPEG files; not to be written to."""
    return once("kaggle", lambda folder: write_collection(folder / "raw", layout="kaggle"))
