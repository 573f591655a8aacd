"""Short fingerprints of files, folders and records: what a place parameter or a data set enters an identity as.

A digest of a file is remembered beside its size, times and inode (in the cache folder), so that a folder of many
gigabytes is read once.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchkit.errors import DataError, StoreError
from benchkit.machine.files import read, write_atomic
from benchkit.machine.home import expanded, has_home, private_folder

if TYPE_CHECKING:
    import numpy as np

LENGTH = 16
"""Hexadecimal digits of a fingerprint: 64 bits."""


def fingerprint_path(path: Path, include: tuple[str, ...] = ("**/*",)) -> str:
    """Of a file: its contents. Of a folder: the relative names and contents of the files that match `include`.

    Moving the file or folder changes nothing. Links are followed. Hidden files and folders (`.git`) count only where a
    pattern names them. Raises DataError where something cannot be read, or a folder holds nothing that matches.
    """
    path = path.absolute()
    try:
        if path.is_file():
            return fingerprint(_digests(path, {"": path}, include)[""])
        files = {"/".join(parts): f for parts, f in _matching(path, {tuple(i.split("/")) for i in include})}
        if not files:
            raise DataError(f"'{path}' holds nothing that matches {' or '.join(include)}")
        return fingerprint(sorted(_digests(path, files, include).items()))
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or path}': {e.strerror}") from e


def fingerprint(record: Any) -> str:
    """Of anything JSON can write."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=LENGTH // 2).hexdigest()


def cache_dir() -> Path:
    """BENCHKIT_CACHE, or the user's cache folder; in a container whose user has no home, one of the user's own among
    the temporary files. Raises StoreError where that one is somebody else's."""
    if given := os.environ.get("BENCHKIT_CACHE"):
        return expanded(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("benchkit")) if has_home() else private_folder("benchkit")


def _matching(
    folder: Path, patterns: set[tuple[str, ...]], above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The files under `folder` that a pattern matches, each with the parts of its relative name.

    Path.glob would not do: it follows no links to folders, and passes over folders that may not be read.

    patterns: what is left to match below this folder, part by part.
    above: the folders on the way here, so that a link back to one of them ends.
    """
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:
        return
    above = (*above, (here.st_dev, here.st_ino))
    # `**` stands for any number of folders, none too.
    patterns = patterns | {p[i:] for p in patterns for i in range(1, len(p)) if set(p[:i]) == {"**"}}
    for entry in os.scandir(folder):
        left = {p if p[0] == "**" else p[1:] for p in patterns if _part_matches(entry.name, p[0])}
        if not left:
            continue
        if entry.is_dir():
            if below := left - {()}:
                for parts, file in _matching(folder / entry.name, below, above):
                    yield (entry.name, *parts), file
        elif entry.is_file() and not left.isdisjoint({(), ("**",)}):
            yield (entry.name,), folder / entry.name


def _part_matches(name: str, part: str) -> bool:
    if name.startswith(".") and not part.startswith("."):
        return False
    return part == "**" or fnmatchcase(name, part)


def _digests(root: Path, files: dict[str, Path], include: tuple[str, ...]) -> dict[str, str]:
    memo_path = cache_dir() / "digests" / f"{fingerprint([str(root), include])}.json"
    memo = _read_memo(memo_path)
    # The time of the last change of status is in it because a file's own time can be set back, as `cp -p` does.
    stats = {n: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for n, f in files.items() if (s := f.stat())}
    stale = [name for name in files if memo.get(name, [None])[0] != stats[name]]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter's lock
        for name, digest in zip(stale, pool.map(lambda name: _digest(files[name]), stale), strict=True):
            memo[name] = [stats[name], digest]
    if stale:
        # A file written within the last seconds may change again without its time changing: not remembered yet.
        settled = (time.time() - 2) * 1e9
        _write_memo(memo_path, {n: memo[n] for n in files if max(stats[n][1:3]) < settled})
    return {name: memo[name][1] for name in files}


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()  # as the hub states it: a copy has the same fingerprint


MEMO_BYTES = 256 << 20
"""That a memo may have: of a million files."""


def _read_memo(path: Path) -> dict[str, Any]:
    try:
        memo = json.loads(read(path, MEMO_BYTES))
        return {n: m for n, m in memo.items() if isinstance(m, list) and len(m) == 2}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}  # only a memo: what is not there is computed


def _write_memo(path: Path, memo: dict[str, Any]) -> None:
    with suppress(StoreError):  # a cache folder that cannot be written costs time on the next call, nothing else
        write_atomic(path, json.dumps(memo).encode())


def fingerprint_tensors(tensors: Iterable[tuple[str, "np.ndarray"]]) -> str:
    """Of a model's weights: names, types, shapes and bytes, in the order given."""
    digest = hashlib.blake2b(digest_size=LENGTH // 2)
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes() if not tensor.flags.c_contiguous else tensor.reshape(-1).view("u1").data)
    return digest.hexdigest()
