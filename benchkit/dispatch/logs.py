"""What a job printed, and how much of it is kept with its failures."""

import os
from pathlib import Path

from benchkit.machine.files import reading
from benchkit.records.others import LOG_TAIL


def tail(log: Path | None) -> str:
    """The last LOG_TAIL characters of a log file; nothing where there is none."""
    if log is None:
        return ""
    try:
        with reading(log) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 4 * LOG_TAIL))  # a character has up to four bytes
            return f.read(4 * LOG_TAIL).decode(errors="replace")[-LOG_TAIL:]
    except OSError:
        return ""
