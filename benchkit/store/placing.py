"""Noting where the files are that a name holds a fingerprint of: with each report, and once for a registry from before.

The paths come with the reports, which keep every parameter as it was given: fingerprint, path, host, and when it was
first seen there.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from benchkit.records.gate import is_text
from benchkit.records.report import Report

COLUMNS = ("task", "model", "classifier")
_PLACE = re.compile(r"(?:(?<=,)(\w+)=|(?<=:))(fp-[0-9a-f]{16})(?=,|$)")
Execute = Callable[..., Any]
"""An SQL statement and its parameters, inside the caller's transaction."""


def note_places(execute: Execute, report: Report) -> None:
    """Inside the caller's transaction: the places that a report names, each with the first time it was seen."""
    names = [getattr(report.cell, column) for column in COLUMNS]
    if any("fp-" in name for name in names):
        _note(execute, names, report.params, report.environment.host, report.finished_at)


def _note(execute: Execute, names: Iterable[str], params: Any, host: str, when: str) -> None:
    for column, name in zip(COLUMNS, names, strict=True):
        given = params.get(column) if isinstance(params, dict) else None
        for key, fingerprint in fingerprints(name).items():
            path = given.get(key) if isinstance(given, dict) else None
            if isinstance(path, str) and path and is_text(path):
                execute(
                    "INSERT INTO places VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET seen_at = min(seen_at, "
                    "excluded.seen_at)",
                    (fingerprint, os.path.normpath(path), host, when),
                )


def fingerprints(name: str) -> dict[str, str]:
    """Parameter -> fingerprint, of the places in a canonical name; that of the checkpoint is under "checkpoint"."""
    return {match[1] or "checkpoint": match[2] for match in _PLACE.finditer(name)}


def place_all(execute: Execute) -> None:
    """The places of all runs, for a registry that was made before they were kept."""
    found = execute(
        "SELECT task, model, classifier, params, host, min(finished_at) FROM runs "
        "JOIN environments ON environments.id = environment_id WHERE task || model || classifier GLOB '*fp-*' "
        "GROUP BY task, model, classifier, params, host"
    ).fetchall()
    for *names, params, host, when in found:
        try:
            given = json.loads(params)
        except (ValueError, TypeError):  # damaged: `check` tells
            continue
        if all(isinstance(n, str) for n in names):
            _note(execute, names, given, host, when)
