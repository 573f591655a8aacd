"""Bytes of a registry changed at random: what a user sees is as before, or `check` finds it; nothing is a traceback."""

import io
import os
import random
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchkit.cli import with_commands
from benchkit.errors import BenchkitError
from benchkit.progress import Silent
from benchkit.records.report import Report
from benchkit.store import open_store
from benchkit.store.check import check

CHANGES = int(os.environ.get("BENCHKIT_CHANGES", "40"))
"""How many are tried: BENCHKIT_CHANGES=7253 for a thorough look."""
COMMANDS = (
    ["ls", "--json"], ["show", "1", "--json"], ["show", "2", "--json"], ["show", "failed", "--json"],
    ["table", "--format", "json"], ["status", "--all", "--json"],
)  # fmt: skip


def seen(path: Path) -> list[str]:
    """What the commands say; an error is a line."""
    said = []
    for words in COMMANDS:
        ran = CliRunner().invoke(with_commands(), [*words, "--db", str(path)])
        if ran.exception and not isinstance(ran.exception, BenchkitError | SystemExit):
            raise ran.exception
        said.append(ran.stdout if ran.exit_code == 0 else f"error: {ran.exception}")
    return said


def findings(path: Path) -> list[str]:
    try:
        with open_store(path, create=False, ingest=False) as store:
            return [str(f) for f in check(store, Silent())]
    except BenchkitError as e:
        return [str(e)]


@pytest.mark.timeout(1800)
def test_no_changed_byte_is_silently_wrong_and_none_a_traceback(
    tmp_path: Path, add: Callable[..., Report], with_the_rest: Callable[[Path], None]
) -> None:
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        for i in range(2):
            add(store, i)
    with_the_rest(path)
    with open_store(path) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    expected, rng, wrong = seen(path), random.Random(0), []
    assert findings(path) == []
    places = [i for i, byte in enumerate(whole) if byte]  # most of it is empty
    for _ in range(CHANGES):
        data = bytearray(whole)
        place = rng.choice(places)
        data[place] = rng.randrange(256)
        path.write_bytes(data)
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        with redirect_stdout(io.StringIO()):
            said: Any = seen(path)
        if said != expected and not any(line.startswith("error: ") for line in said) and findings(path) == []:
            wrong.append((place, bytes(whole[place : place + 1]), bytes(data[place : place + 1])))
    assert wrong == [], f"of {CHANGES} changes, {sys.platform}"
