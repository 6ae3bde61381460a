"""The page's own process: Streamlit, told to keep uploads in memory and to call nobody.

`python -m interface.webapp.server` takes the flags of `streamlit run`. Its parent holds its
standard input open; when that ends, so does this process.
"""

import os
import sys
import threading
from pathlib import Path

UPLOAD_MEGABYTES = 100  # of one file; four times a film of CBIS-DDSM
PAGE = Path(__file__).with_name("page.py")  # what is drawn for each person
SERVED = Path(__file__).with_name("served.py")  # that, with what stands before it


def keep_uploads_in_memory() -> None:
    """Let the server write no upload to disk, not even to a temporary file.

    Starlette, which Streamlit serves with, moves what is larger than a megabyte there.
    """
    from starlette.formparsers import MultiPartParser

    MultiPartParser.spool_max_size = (UPLOAD_MEGABYTES + 2) * 2**20


def call_nobody() -> None:
    """Let Streamlit not ask the internet for this machine's address.

    It does so when a page of another origin knocks, to see whether that is its own.
    """
    from streamlit import net_util

    net_util.get_external_ip = lambda: None


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass  # nothing is ever sent
    os._exit(0)


def main() -> None:
    """Serve the page until the parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_uploads_in_memory()
    call_nobody()
    from streamlit.web.cli import main as streamlit

    streamlit(["run", str(SERVED), *sys.argv[1:]], prog_name="streamlit")


if __name__ == "__main__":
    main()
