"""What a job printed, and how much of it is kept with its failures."""

from pathlib import Path

from benchkit.records.others import LOG_TAIL


def tail(log: Path | None) -> str:
    """The last LOG_TAIL characters of a log file; nothing where there is none."""
    if log is None:
        return ""
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - 4 * LOG_TAIL))  # a character has up to four bytes
            return f.read().decode(errors="replace")[-LOG_TAIL:]
    except OSError:
        return ""
