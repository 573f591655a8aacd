"""The diagnosis as one HTML page without anything from outside."""

from benchkit.diagnose.run import Looked


def html(looked: Looked, against: Looked | None, made_at: str) -> str:
    return f"<!doctype html><title>{looked.model}</title><p>{looked.verdict}"
