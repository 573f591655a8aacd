"""A launcher's lock: held by it and by every worker process that it starts, as long as any of them lives.

So nobody on this host takes a dead launcher's cells while a worker that it left behind may still be sealing a report.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchkit.machine import files
from benchkit.records.gate import OWNER, Refused, short

NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers."""


@contextmanager
def locked(side: Path, token: str, who: str = "") -> Iterator[int]:
    """Holds the lock of the owner `token`; gives its file descriptor, for workers to inherit. side: of the store. who:
    what is written into it, by which it is known for a dead process's."""
    path = lock_file(side, token)
    descriptor = files.open_in_place(path, side)
    try:
        with suppress(OSError):  # a file system without locks: then the process's own life is all that is known
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(OSError):  # a full disk: then it is its age that tells
            files.empty(descriptor)
            os.pwrite(descriptor, who.encode(), 0)
        yield descriptor
    finally:
        with suppress(OSError):  # something else lies in its place now
            files.remove(path, side)
        os.close(descriptor)


def is_held(side: Path, token: str) -> bool | OSError:
    """Whether any process on this host still holds it; the reason where that cannot be found out.

    It is read, not written, and locked with others: it may be another user's, NFS grants an exclusive lock only on a
    file that is open for writing, and two who look at once must not take each other for the owner.
    """
    try:
        file = files.reading(lock_file(side, token), side)
    except FileNotFoundError:
        return False
    except OSError as e:
        return e
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as e:
        return False if e.errno in NO_LOCKS_HERE else e
    finally:
        file.close()
    return False


def lock_file(side: Path, token: str) -> Path:
    """Raises Refused where the token is none that benchkit makes, and might lead elsewhere."""
    if not OWNER(token):
        raise Refused(f"an owner is {short(token)}, and must be {OWNER.what}")
    return side / "owners" / f"{token}.lock"
