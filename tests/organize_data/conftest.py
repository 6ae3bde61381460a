import shutil
from pathlib import Path

import pytest

from pipeline.progress import Silent
from pipeline.stages.data import Synthesize
from sources.synthetic.stage import synthesize
from tests.conftest import COLLECTION
from tests.organize_data.reading import run


@pytest.fixture
def copy(collection, tmp_path):
    """A copy of the synthetic collection that a test may damage."""
    return Path(shutil.copytree(collection, tmp_path / "raw"))


@pytest.fixture(scope="session")
def whole(collection, tmp_path_factory):
    """Its mass mammograms, organised undisturbed; not to be written to."""
    out = tmp_path_factory.mktemp("whole") / "dataset"
    return run(collection, out)


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory):
    """The same collection in JPEG files; not to be written to."""
    folder = tmp_path_factory.mktemp("kaggle") / "raw"
    synthesize(Synthesize(out=folder, layout="kaggle", **COLLECTION), Silent())
    return folder
