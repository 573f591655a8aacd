"""Moments as the store and its records write them."""

from datetime import UTC, datetime


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds: such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
