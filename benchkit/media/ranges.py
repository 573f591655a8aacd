"""Remote files as ranges of bytes: a seekable stream, and blocks fetched once and kept on node-local scratch."""

import io
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from benchkit.machine.files import nameless

BLOCK = 8 * 2**20
"""Bytes fetched at a time: large enough that a request's latency does not matter, small enough to be tried again."""


class RangeStream(io.RawIOBase):
    """A read-only, seekable view of `size` bytes that `read_range(start, stop)` gives."""

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        self._size, self._read_range, self._at = size, read_range, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def read(self, n: int | None = -1) -> bytes:
        start = self._at
        stop = self._size if n is None or n < 0 else min(start + n, self._size)
        if stop <= start:
            return b""
        self._at = stop
        return self._read_range(start, stop)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Blocks:
    """`size` bytes fetched in blocks: all of them are kept on scratch with `keep`, else the last one in memory.

    The scratch file lies in TMPDIR and has no name: the system takes it back however the process ends. Where the disk
    has no room for it, it is as without `keep`. Safe for several threads.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, keep: bool, block: int = BLOCK) -> None:
        self._fetch, self._size, self._block = fetch, size, block
        self._lock = threading.Lock()
        self._last: tuple[int, bytes] = (-1, b"")
        self._kept: set[int] = set()
        self._scratch: IO[bytes] | None = _scratch_file(size) if keep else None

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`."""
        parts = []
        with self._lock:
            for i in range(start // self._block, -(-stop // self._block)):
                first = i * self._block
                parts.append(self._part(i, max(0, start - first), min(stop - first, self._block)))
        return b"".join(parts)

    def _part(self, i: int, start: int, stop: int) -> bytes:
        """From `start` up to `stop` of block i."""
        first = i * self._block
        if self._scratch is not None and i in self._kept:
            self._scratch.seek(first + start)
            return self._scratch.read(stop - start)
        if self._last[0] != i:
            block = self._fetch(first, min(first + self._block, self._size))
            if self._keep(i, block):
                return block[start:stop]
            self._last = (i, block)
        return self._last[1][start:stop]

    def _keep(self, i: int, block: bytes) -> bool:
        if self._scratch is None:
            return False
        try:
            self._scratch.seek(i * self._block)
            self._scratch.write(block)
            self._scratch.flush()
        except OSError:  # the disk is full: from here on, blocks are fetched again
            self._scratch, self._kept = None, set()
            return False
        self._kept.add(i)
        return True


def _scratch_file(size: int) -> IO[bytes] | None:
    """A file without a name in TMPDIR, or None where it would fill more than half of what is free."""
    folder = tempfile.gettempdir()
    return nameless(Path(folder), buffered=True) if shutil.disk_usage(folder).free > 2 * size else None
