"""Short fingerprints of files, folders and records: what a place parameter or a data set enters an identity as.

A digest of a file is remembered beside its size, modification time and inode (in the cache folder), so that a folder of
many gigabytes is read once.
"""

import hashlib
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchkit.errors import DataError

LENGTH = 16
"""Hexadecimal digits of a fingerprint: 64 bits."""


def fingerprint_path(path: Path, include: tuple[str, ...] = ("**/*",)) -> str:
    """Of a file: its contents. Of a folder: the relative names and contents of the files that match `include`.

    Moving the file or folder changes nothing; hidden files and folders (`.git`) count only where a pattern names them.
    Raises DataError where something cannot be read, or a folder holds nothing that matches.
    """
    path = path.absolute()
    try:
        if path.is_file():
            files = {"": path}
        else:
            files = {
                str(relative): f
                for pattern in include
                for f in path.glob(pattern)
                if f.is_file() and not _hidden(relative := f.relative_to(path), pattern)
            }
        if not files:
            raise DataError(f"'{path}' holds nothing that matches {' or '.join(include)}")
        digests = _digests(path, files)
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or path}': {e.strerror}") from e
    return fingerprint(sorted(digests.items()) if path.is_dir() else digests[""])


def fingerprint(record: Any) -> str:
    """Of anything JSON can write."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=LENGTH // 2).hexdigest()


def cache_dir() -> Path:
    """BENCHKIT_CACHE, or the user's cache folder."""
    if given := os.environ.get("BENCHKIT_CACHE"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("benchkit"))


def _hidden(relative: Path, pattern: str) -> bool:
    return any(part.startswith(".") for part in relative.parts) and not any(
        p.startswith(".") for p in Path(pattern).parts
    )


def _digests(root: Path, files: dict[str, Path]) -> dict[str, str]:
    memo_path = cache_dir() / "digests" / f"{fingerprint(str(root))}.json"
    memo = _read_memo(memo_path)
    stats = {name: [s.st_size, s.st_mtime_ns, s.st_ino] for name, f in files.items() if (s := f.stat())}
    stale = [name for name in files if memo.get(name, [None])[0] != stats[name]]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter's lock
        for name, digest in zip(stale, pool.map(lambda name: _digest(files[name]), stale), strict=True):
            memo[name] = [stats[name], digest]
    if stale:
        # A file written within the last seconds may change again without its time changing: not remembered yet.
        settled = (time.time() - 2) * 1e9
        _write_memo(memo_path, {name: memo[name] for name in files if stats[name][1] < settled})
    return {name: memo[name][1] for name in files}


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def _read_memo(path: Path) -> dict[str, Any]:
    try:
        memo = json.loads(path.read_text())
        return memo if isinstance(memo, dict) else {}
    except (OSError, ValueError):
        return {}  # only a memo: what is not there is computed


def _write_memo(path: Path, memo: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as f:
            json.dump(memo, f)
        os.replace(f.name, path)
    except OSError:
        return  # a cache folder that cannot be written costs time on the next call, nothing else
