"""The bytes of a recording, wherever they are: what a container says of itself is read from here, not by a decoder."""

import io
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any


class View:
    """A file, or bytes in memory. Use it in a `with`. Raises OSError where a file cannot be opened."""

    def __init__(self, source: Path | bytes) -> None:
        self.data = source if isinstance(source, bytes) else None
        self.descriptor: int | None = None
        if isinstance(source, bytes):
            self.size = len(source)
            return
        found = os.stat(source)
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(0, "it is no file")  # a pipe would be waited for, and for ever
        self.descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self.size = found.st_size

    def __enter__(self) -> "View":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def read(self, at: int, n: int) -> bytes:
        """Up to `n` bytes from `at`, fewer at the end."""
        if at < 0 or n <= 0:
            return b""
        if self.data is not None:
            return self.data[at : at + n]
        assert self.descriptor is not None
        return os.pread(self.descriptor, n, at)

    def number(self, at: int, n: int, *, big: bool = False, signed: bool = False) -> int:
        """The integer of `n` bytes at `at`; 0 where the file ends before."""
        data = self.read(at, n)
        return int.from_bytes(data, "big" if big else "little", signed=signed) if len(data) == n else 0


class Mended(io.RawIOBase):
    """The same bytes to read, as a file, with some of the header in place of what it has."""

    def __init__(self, view: View, at: int, new: bytes) -> None:
        super().__init__()
        self.view, self.at, self.new = view, at, new
        self.place = 0

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        self.place = to + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.view.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        data = bytearray(self.view.read(self.place, len(target)))
        for i, byte in enumerate(self.new, self.at - self.place):
            if 0 <= i < len(data):
                data[i] = byte
        target[: len(data)] = data
        self.place += len(data)
        return len(data)
