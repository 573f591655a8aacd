"""The lock of a cache entry: who holds it extracts, and when its process dies, in whatever way, the kernel gives it up.

It is flock(2). On NFS, Linux turns it into a lock at the server, which then also holds between machines; with the mount
option local_lock, or where a file system has no locks at all, it does not. Then two machines may extract the same rows
at once, which costs time and nothing else: both write the same rows to the same places, and a row that was mixed from
two writers does not match its digest and is computed again.
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchkit.errors import StoreError
from benchkit.features.cache import unwritable
from benchkit.machine import files

_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Lock:
    descriptor: int

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.descriptor)


def try_lock(folder: Path) -> Lock | None:
    """The lock of the entry in `folder`, which is made if need be; None where another process (or thread) has it.

    Raises StoreError where the folder cannot be written.
    """
    path = folder / "lock"
    for _ in range(100):
        try:
            files.make_folder(folder)
        except OSError as e:
            raise unwritable(folder, e) from e
        try:
            descriptor = files.open_in_place(path)
        except FileNotFoundError:
            continue  # prune removed the folder between the two
        except OSError as e:
            raise unwritable(folder, e) from e
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in _NO_LOCKS_HERE:
                os.close(descriptor)
                if isinstance(e, BlockingIOError):
                    return None
                raise unwritable(folder, e) from e
        if _is_at(path, descriptor):
            with suppress(OSError):  # a courtesy to those who wait
                files.empty(descriptor)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return Lock(descriptor)
        os.close(descriptor)  # prune removed the file while it was being locked
    raise StoreError(f"cannot lock '{folder}': something removes it again and again")


def holder(folder: Path) -> str:
    """Who has the lock, as it wrote itself there."""
    try:
        return files.read(folder / "lock", 1000).decode(errors="replace") or "another process"
    except OSError:
        return "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
