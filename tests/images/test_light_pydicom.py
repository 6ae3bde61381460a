import subprocess
import sys

import pytest
from pydicom.uid import JPEGLosslessSV1

from tests.conftest import ROOT
from tests.images.dicom_files import RAMP, write
from tests.images.test_compressed import compress

READ = """
import sys
from pathlib import Path
from images.files import read_image
assert read_image(Path(sys.argv[1])).shape == (32, 32)
print(*sorted({"requests", "tqdm", "gdcm", "ssl", "PIL.Image"} & set(sys.modules)))
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


def test_a_compressed_film_is_decoded_by_what_was_left_out(tmp_path):
    film = compress(write(tmp_path / "film.dcm", RAMP), JPEGLosslessSV1)
    command = [sys.executable, "-c", READ, str(film)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gdcm"]
