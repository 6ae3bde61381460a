"""What Streamlit runs for each person, anew at each step: `page.py RUNS RUN`."""

import sys
from pathlib import Path

from interface.webapp.layout import draw

draw(Path(sys.argv[1]), Path(sys.argv[2]))
