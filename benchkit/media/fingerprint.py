"""Short fingerprints of files, folders and records: what a place parameter or a data set enters an identity as.

A digest of a file is remembered beside its size, times and inode (in the cache folder), so that a folder of many
gigabytes is read once.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase, translate
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
            return fingerprint(_digests(path, {"": str(path)}, include)[""])
        return fingerprint(sorted(file_digests(path, include).items()))
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or path}': {e.strerror}") from e


def file_digests(folder: Path, include: tuple[str, ...] = ("**/*",)) -> dict[str, str]:
    """SHA-256, as hexadecimal digits, of the files of a folder that match, by relative name: what `fingerprint_path`
    counts. Raises DataError as that does."""
    folder = folder.absolute()
    try:
        files = dict(_found(folder, include))
        if not files:
            raise DataError(f"'{folder}' holds nothing that matches {_shown(include)}")
        return _digests(folder, files, include)
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or folder}': {e.strerror}") from e


def _shown(include: tuple[str, ...]) -> str:
    return " or ".join(include[:6]) + (" or ..." if len(include) > 6 else "")


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


def _found(folder: Path, include: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Relative names and paths of the files that match."""
    patterns = {tuple(i.split("/")) for i in include}
    if all(len(p) == 2 and p[0] == "**" and p[1] != "**" and not p[1].startswith(".") for p in patterns):
        yield from _anywhere(str(folder), re.compile("|".join(sorted(translate(p[1]) for p in patterns))))
        return
    for parts, file in _matching(folder, patterns):
        yield "/".join(parts), str(file)


def _anywhere(
    folder: str, wanted: "re.Pattern[str]", at: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, str]]:
    """As `_matching` of `**/NAME` alone, and fast enough for 100,000 files."""
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in above:
        return
    above = (*above, (here.st_dev, here.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if wanted.match(name) and entry.is_file():
                yield at + name, entry.path
            elif entry.is_dir():
                yield from _anywhere(entry.path, wanted, f"{at}{name}/", above)


def _digests(root: Path, files: Mapping[str, str], include: tuple[str, ...]) -> dict[str, str]:
    memo_path = cache_dir() / "digests" / f"{fingerprint([str(root), include])}.json"
    memo = _read_memo(memo_path)
    # The time of the last change of status is in it because a file's own time can be set back, as `cp -p` does.
    found, latest = {}, {}
    for name, file in files.items():
        s = os.stat(file)
        found[name] = f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino} "
        latest[name] = max(s.st_mtime_ns, s.st_ctime_ns)
    known = {name: memo[name] for name, stats in found.items() if memo.get(name, "").startswith(stats)}
    stale = [name for name in files if name not in known]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter's lock
        for name, digest in zip(stale, pool.map(lambda name: _digest(Path(files[name])), stale), strict=True):
            known[name] = found[name] + digest
    if stale:
        # A file written within the last seconds may change again without its time changing: not remembered yet.
        settled = (time.time() - 2) * 1e9
        _write_memo(memo_path, {n: known[n] for n in files if latest[n] < settled})
    return {name: known[name].rpartition(" ")[2] for name in files}


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()  # as the hub states it: a copy has the same fingerprint


MEMO_BYTES = 256 << 20
"""That a memo may have: of a million files."""


def _read_memo(path: Path) -> dict[str, str]:
    """By name size, times, inode and digest, in one text: a hundred thousand of them are read in a moment."""
    try:
        memo = json.loads(read(path, MEMO_BYTES))
        return {n: m for n, m in memo.items() if isinstance(m, str)}
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
