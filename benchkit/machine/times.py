"""Moments: UTC where the store and its records write them, local time with its offset where a person reads them."""

from datetime import UTC, datetime


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds: such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def local(stamp: str) -> datetime:
    """A moment that was written by `now` (or without a zone, which is UTC), in this machine's time zone."""
    moment = datetime.fromisoformat(stamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone()


def shown(stamp: str) -> str:
    """The same as a person reads it: local time with its offset from UTC, `2026-03-01 14:05:09 +01:00`."""
    moment = local(stamp)
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.isoformat()[-6:]}"
