"""Complete local copies of data on the hub, for machines whose compute nodes have no network.

A copy is made file by file beside its final name, so that an interrupted one goes on where it stopped; every file is
checked against the checksum that the hub states, also those that are there already; a manifest is written last.
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchkit.errors import DataError
from benchkit.machine.files import adding, empty, fsync_folder, make_folder, move, read, remove, write_atomic
from benchkit.media.hub import Hub, HubFile, RemoteError
from benchkit.media.ranges import BLOCK
from benchkit.progress import Progress

MANIFEST = "benchkit-manifest.json"
"""In the folder of what was copied: where it came from, and every file with its size and checksum."""
MANIFEST_BYTES = 256 << 20
"""That it may have: of a million files."""
CONNECTIONS = 4
"""Files copied at once."""


def copy(hub: Hub, files: Sequence[HubFile], folder: str, to: Path, progress: Progress) -> Path:
    """Copies `files`, all of them below `folder` of the repository, to the same names below `to`; the manifest's path.

    Raises RemoteError where a file does not arrive, DataError where `to` cannot hold it, is being written by another
    process, or holds files of this folder that are not of this commit.
    """
    try:
        make_folder(to / folder, to)
        with _alone(to / folder):
            _refuse_strangers(files, folder, to)
            _copy_all(hub, files, folder, to, progress)
            manifest = to / folder / MANIFEST
            write_atomic(manifest, _manifest(hub, files).encode(), to)
            return manifest
    except OSError as e:
        raise DataError(f"cannot write '{e.filename or to}': {e.strerror}") from e


def read_manifest(folder: Path) -> Mapping[str, Any] | None:
    """What `copy` noted, or None where the folder is no copy. Raises DataError where the note is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(read(path, MANIFEST_BYTES))
        return {"commit": manifest["commit"], "files": manifest["files"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"'{path}' is no manifest of benchkit fetch ({e}): fetch again") from e


def _copy_all(hub: Hub, files: Sequence[HubFile], folder: str, to: Path, progress: Progress) -> None:
    total = sum(f.size for f in files)
    missing = total - sum(_present(f, to) for f in files)
    free = shutil.disk_usage(to).free
    if missing > free:
        raise DataError(f"'{to}' has {free / 1e9:.1f} GB free, and {missing / 1e9:.1f} GB of '{folder}' are missing")
    stop, lock = threading.Event(), threading.Lock()
    with progress.step(f"fetch {folder}", total, "bytes") as step, ThreadPoolExecutor(CONNECTIONS) as pool:

        def advance(n: int) -> None:
            if stop.is_set():
                raise RemoteError("stopped")
            with lock:
                step.advance(n)

        running = [pool.submit(download, hub, file, to / file.path, advance, to) for file in files]
        try:
            for future in wait(running, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:  # Ctrl-C, or one file failed: the others end at their next block, and go on from it next time
            stop.set()
            pool.shutdown(cancel_futures=True)


def download(
    hub: Hub, file: HubFile, local: Path, advance: Callable[[int], None] = lambda n: None, within: Path | None = None
) -> None:
    """One file, resumed where an earlier attempt stopped, checked, and only then under its name.

    advance: called with the number of bytes that are there now and were not before. within: the folder below which no
    link is followed. Raises RemoteError.
    """
    if local.is_file() and file.matches(local):
        advance(file.size)
        return
    part = local.with_name(local.name + ".part")
    for _ in range(2):  # what was resumed may be damaged: once more from the start
        _append(hub, file, part, advance, within)
        if file.matches(part):
            move(part, local, within)
            fsync_folder(local.parent)
            return
        remove(part, within)
        advance(-file.size)
    raise RemoteError(f"'{file.path}' of {hub} arrived damaged twice: it does not match {file.checksum}")


def _append(hub: Hub, file: HubFile, part: Path, advance: Callable[[int], None], within: Path | None) -> None:
    with adding(part, within) as f:
        done = f.seek(0, os.SEEK_END)
        if done > file.size:
            empty(f.fileno())
            done = f.seek(0)
        advance(done)
        while done < file.size:
            data = hub.read(file, done, min(done + BLOCK, file.size))
            f.write(data)
            done += len(data)
            advance(len(data))
        f.flush()
        os.fsync(f.fileno())


def _present(file: HubFile, to: Path) -> int:
    local = to / file.path
    for path in (local, local.with_name(local.name + ".part")):
        if path.is_file():
            return min(path.stat().st_size, file.size)
    return 0


def _refuse_strangers(files: Sequence[HubFile], folder: str, to: Path) -> None:
    """Files of another revision beside these would make a data set that never was."""
    known = {to / f.path for f in files}
    kinds = {f.suffix for f in known}
    for path in sorted((to / folder).rglob("*")):
        if path.is_file() and path.suffix in kinds and path not in known:
            raise DataError(f"'{path}' is not among the files of this revision: remove it, or fetch to another folder")


def _manifest(hub: Hub, files: Sequence[HubFile]) -> str:
    listed = {f.path: {"bytes": f.size, "checksum": f.checksum} for f in files}
    return json.dumps({"repo": hub.repo, "kind": hub.kind, "commit": hub.commit, "files": listed}, indent=2) + "\n"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process writes a folder at a time; the lock goes with the process."""
    with adding(folder / ".benchkit-fetch.lock", folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another benchkit fetch is writing '{folder}'") from None
        yield
