"""How other processes of benchkit are started."""

import sys

SAFE = (sys.executable, "-P")
"""Python without the working folder on its search path: a file `pyarrow.py` or a folder `benchkit/` beside the user's
data is data."""
BENCHKIT = (*SAFE, "-m", "benchkit")
"""The command line in a process of its own."""
