"""Whether a registry is sound: its file, what its rows say of each other, and the files beside it."""

import hashlib
import itertools
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import listed, reading, remove_all
from benchkit.progress import Progress
from benchkit.records.gate import COUNT, PREDICTIONS, SHA256
from benchkit.records.sealing import unseal
from benchkit.store.claims import alive, owners, release_dead
from benchkit.store.connection import ANEW
from benchkit.store.database import Store
from benchkit.store.ingest import waiting
from benchkit.store.leases import sightings
from benchkit.store.leftovers import GRACE, leftovers, older, sweep
from benchkit.store.migrations import MIGRATIONS, schema
from benchkit.store.remove import UNUSED
from benchkit.store.sound import Finding, few, remove_nonsense, rows_that_make_no_sense, whole

AT_ONCE = 100
"""Files that are looked at between two signs of progress: a sign takes longer than a look."""
_RECOMPUTE = "`benchkit merge BACKUP` brings it back, `benchkit run --force` computes it again"


def check(store: Store, progress: Progress, *, quick: bool = False) -> list[Finding]:
    """Every finding; none where the registry is sound.

    store: opened without taking its inbox in. quick: files are looked at, not read, and indexes are not compared with
    their tables.
    """
    with progress.step("check the file", None):
        damaged = _integrity(store, quick)
    if damaged:
        return damaged  # what else it says cannot be trusted
    if other := list(_schema(store)):
        return other  # likewise, and it may go on for ever
    findings = [*_foreign_keys(store), *_rows(store, quick)]
    if not quick:
        findings += whole(store, progress)
    strange = list(rows_that_make_no_sense(store))
    findings += strange or _claims(store)
    return [*findings, *_artifacts(store, progress, quick), *_leftovers(store), *_set_aside(store)]


def fix(store: Store) -> list[str]:
    """Mends what can be mended without losing anything: a line for each."""
    done = []
    if n := remove_nonsense(store):
        done.append(f"{n} rows removed that make no sense")
    if n := release_dead(store):
        done.append(f"{n} stale claims released")
    with store.write():
        if n := store.execute(f"DELETE FROM {UNUSED}").rowcount:
            done.append(f"{n} unused environments removed")
    if left := sweep(store):
        done.append(f"{left} removed")
    if orphans := _orphans(store, _predictions(store.side) - _of_runs(store)):
        n = remove_all(store.side / "predictions", [path.name for path in orphans], store.side)
        done.append(f"{n} files of predictions removed that no run names")
    return done


def _integrity(store: Store, quick: bool) -> list[Finding]:
    pragma = "quick_check" if quick else "integrity_check"
    try:
        found = [row[0] for row in store.execute(f"PRAGMA {pragma}(20)").fetchall()]
    except (StoreError, sqlite3.Error, UnicodeDecodeError) as e:
        found = [str(e.__cause__ or e)]
    return [Finding(f"the file is damaged: {' '.join(line.split())}", ANEW) for line in found if line != "ok"]


def _schema(store: Store) -> Iterator[Finding]:
    """Tables, indexes and views of a new registry that this one lacks, or has otherwise."""
    listing = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    mine = {(kind, name): sql for kind, name, sql in store.execute(listing).fetchall()}
    remedy = "restore a backup; only benchkit may change the schema"
    for (kind, name), sql in schema().items():
        if (kind, name) not in mine:
            yield Finding(f"the {kind} {name} is missing", remedy)
        elif mine[kind, name] != sql:
            yield Finding(f"the {kind} {name} is not that of schema {len(MIGRATIONS)}", remedy)


def _foreign_keys(store: Store) -> Iterator[Finding]:
    broken = store.execute("PRAGMA foreign_key_check").fetchall()
    for (table, parent), rows in itertools.groupby(sorted((r[0], r[2]) for r in broken)):
        n = len(list(rows))
        yield Finding(f"{n:,} rows of {table} refer to {parent} that are not there", "restore a backup")


_CONTRADICTIONS = (
    (
        "SELECT count(*) FROM runs LEFT JOIN metrics ON run_id = id AND name = metric "
        "WHERE metrics.value IS NULL OR metrics.value <> runs.value",
        "{n:,} runs do not have the value of their primary metric",
        "something else than benchkit has written here: restore a backup",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM runs GROUP BY model, classifier, task, n_train, seed "
        "HAVING sum(current) <> 1)",
        "{n:,} cells do not have exactly one current run",
        "something else than benchkit has written here: restore a backup",
    ),
    (
        "SELECT count(*) FROM runs "
        "WHERE warnings <> (SELECT count(*) FROM checks WHERE run_id = id AND status <> 'ok')",
        "{n:,} runs are not marked as their checks say",
        "something else than benchkit has written here: restore a backup",
    ),
)


_WITHOUT_PREDICTIONS = """
SELECT count(*) FROM runs WHERE NOT EXISTS (SELECT 1 FROM artifacts WHERE run_id = id AND kind = 'predictions')
"""


def _rows(store: Store, quick: bool) -> Iterator[Finding]:
    if not quick:
        for sql, what, remedy in _CONTRADICTIONS:
            if n := store.execute(sql).fetchone()[0]:
                yield Finding(what.format(n=n), remedy)
    if n := store.execute(_WITHOUT_PREDICTIONS).fetchone()[0]:
        yield Finding(f"{n:,} runs have no predictions", "`benchkit run --force` computes them again")
    if n := store.execute(f"SELECT count(*) FROM {UNUSED}").fetchone()[0]:
        yield Finding(f"{n:,} environments that no run was made with", "`benchkit check --fix` removes them", True)


def _claims(store: Store) -> Iterator[Finding]:
    seen = sightings(store)
    for owner, beat in owners(store):
        if not alive(store.side, owner, beat, seen.get(owner.token)):
            n = store.execute("SELECT count(*) FROM claims WHERE owner = ?", (owner.token,)).fetchone()[0]
            yield Finding(
                f"{n:,} cells are claimed by {owner}, which is gone",
                "the next `benchkit run`, or `benchkit check --fix`, releases them",
                True,
            )


def _artifacts(store: Store, progress: Progress, quick: bool) -> Iterator[Finding]:
    """Files that runs name and that are missing or altered, and files in their place that no run names."""
    if not (store.side / "predictions").exists() and (n := _named(store)):
        moved = f"where the registry was moved or renamed, bring its folder, as '{store.side}'; else {_RECOMPUTE}"
        yield Finding(f"the folder '{store.side / 'predictions'}' is missing, with {n:,} files of runs", moved)
        return
    unnamed = _predictions(store.side)

    def problems() -> Iterator[Finding]:
        n = _named(store)
        found = store.execute("SELECT run_id, kind, path, sha256, bytes FROM artifacts ORDER BY run_id")
        with progress.step("check the predictions", n, "files") as step:
            while rows := found.fetchmany(AT_ONCE):
                for run, kind, path, sha256, size in rows:
                    if problem := file_problem(store.side, path, sha256, size, quick):
                        yield Finding(f"'{path}', the {kind} of run {run}, {problem}", _RECOMPUTE)
                    unnamed.discard(path)
                step.advance(len(rows))

    yield from few(problems(), "files of runs are missing or altered", _RECOMPUTE)
    remedy = "`benchkit check --fix` removes {}; if another registry names {}, merge that first"
    found = (
        Finding(f"no run names '{path.relative_to(store.side)}'", remedy.format("it", "it"), True)
        for path in _orphans(store, unnamed)
    )
    yield from few(found, "files are named by no run", remedy.format("them", "them"))


def _orphans(store: Store, unnamed: set[str]) -> list[Path]:
    """Those of the files that no run names which no report that waits will name, and that nobody is writing."""
    waits = {p.stem for p in [*waiting(store), *(store.inbox / "damaged").glob("*.json")]}
    return older((path for name in sorted(unnamed) if (path := store.side / name).stem not in waits), GRACE)


def _of_runs(store: Store) -> set[str]:
    """The paths of all files that runs name."""
    return {row[0] for row in store.execute("SELECT path FROM artifacts").fetchall()}


def _named(store: Store) -> int:
    """How many files runs name."""
    return int(store.execute("SELECT count(*) FROM artifacts").fetchone()[0])


def _predictions(side: Path) -> set[str]:
    """The paths in `side` of all files of predictions. Looks none of them up: there may be a million."""
    try:
        return {f"predictions/{name}" for name in listed(side / "predictions", side) if name[0] != "."}
    except OSError:  # there is no such folder, or it cannot be read: then each file that a run names says so
        return set()


def file_problem(side: Path, path: str, sha256: str, size: int, quick: bool = False) -> str | None:
    """What is wrong with a file that a run names; None where it is what the run has left."""
    if not is_named(path, sha256, size):
        return f"is no file of predictions: those are {PREDICTIONS.what}"
    file = os.path.join(side, path)
    try:
        if quick:
            found = os.stat(file)
            if not stat.S_ISREG(found.st_mode):
                return "is no plain file"
            return None if found.st_size == size else f"is altered: {found.st_size:,} bytes instead of {size:,}"
        with reading(Path(file)) as f:
            if (n := os.fstat(f.fileno()).st_size) != size:
                return f"is altered: {n:,} bytes instead of {size:,}"
            return None if hashlib.file_digest(f, "sha256").hexdigest() == sha256 else "is altered: another checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as e:
        return f"cannot be read: {e.strerror}"


def is_named(path: object, sha256: object, size: object) -> bool:
    """Whether a run names a file as benchkit names those of predictions, which stay in the registry's folder."""
    return PREDICTIONS(path) and SHA256(sha256) and COUNT(size)


def _leftovers(store: Store) -> Iterator[Finding]:
    if left := leftovers(store):
        first = (*left.locks, *left.jobs, *left.parts)[0]
        yield Finding(
            f"{left} of processes that are gone, as '{first}'",
            "the next `benchkit run`, or `benchkit check --fix`, removes them",
            True,
        )


def _set_aside(store: Store) -> Iterator[Finding]:
    try:
        names = listed(store.inbox / "damaged", store.side)
    except OSError as e:
        yield Finding(f"'{store.inbox / 'damaged'}' cannot be read: {e.strerror}", "remove it")
        return
    for path in sorted(store.inbox / "damaged" / name for name in names if name.endswith(".json")):
        try:
            unseal(path)
        except (StoreError, OSError) as e:
            yield Finding(f"set aside: {e}", f"compute its cell again, then delete '{path}'")
        else:
            yield Finding(f"set aside, but whole: '{path}'", f"move it back into '{store.inbox}'")
