import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.images.dicom_files import RAMP, write

READ = """
import sys
from pathlib import Path
from images.files import read_image
assert read_image(Path(sys.argv[1])).shape == (32, 32)
print(*sorted({"requests", "tqdm"} & set(sys.modules)))
import tqdm
"""


@pytest.mark.parametrize(("before", "told"), [("", []), ("import tqdm\n", ["tqdm"])])
def test_reading_a_film_loads_nothing_that_downloads_and_hides_nothing_afterwards(
    tmp_path, before, told
):
    film = write(tmp_path / "film.dcm", RAMP)
    command = [sys.executable, "-c", before + READ, str(film)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == told
