"""Whose failure it is: the machine's (or the moment's), or the data's and the code's.

The one place that says so. What the machine caused is tried again by the same command, and its message ends with what
to raise or mend; what the data or the code caused would fail again, and is not (benchkit.records.TRIED_AGAIN).
"""

import errno
import os
import signal
from dataclasses import dataclass

from benchkit.errors import OF_ITSELF, BenchkitError, Reason

AGAIN = "then the same command tries again"


@dataclass(frozen=True)
class Trouble:
    """What of the machine is to blame. why: in one line. advice: what to raise or mend, as the end of a message."""

    reason: Reason
    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.why}: {self.advice}, {AGAIN}"


_MEMORY = "give it more memory (`ulimit -v`, the container's or the scheduler's limit), or fewer --workers or --jobs"
_THREADS = "raise `ulimit -u` (processes, threads) and `ulimit -v` (address space), or give fewer --workers or --jobs"
_FILES = "raise `ulimit -n` (open files), or give fewer --workers"
_DISK = "make room, or mend the disk"
_ACCESS = "let this user read and enter it (its permissions, and those of the folders above it)"
_GPU = "see to the GPU and its driver (nvidia-smi), or give another --device"
_NETWORK = "see to the network"

_ERRNOS: dict[int, tuple[Reason, str]] = {
    errno.EMFILE: ("machine", _FILES),
    errno.ENFILE: ("machine", "raise the system's limit of open files (fs.file-max)"),
    errno.ENOMEM: ("out of memory", _MEMORY),
    errno.EAGAIN: ("machine", _THREADS),  # of fork and pthread_create
    errno.EACCES: ("machine", _ACCESS),
    errno.EPERM: ("machine", _ACCESS),
    errno.ENOSPC: ("disk", _DISK),
    errno.EDQUOT: ("disk", "make room, or have the quota raised"),
    errno.EIO: ("disk", _DISK),
    errno.EROFS: ("disk", "mount it for writing, or name another place"),
    errno.ESTALE: ("disk", "mount the network's file system again"),
    errno.ENOLCK: ("disk", "mount the network's file system with locks"),
    errno.ENETDOWN: ("network", _NETWORK),
    errno.ENETUNREACH: ("network", _NETWORK),
    errno.EHOSTUNREACH: ("network", _NETWORK),
    errno.ETIMEDOUT: ("network", _NETWORK),
    errno.ECONNREFUSED: ("network", _NETWORK),
    errno.ECONNRESET: ("network", _NETWORK),
}
"""What the system answers when it, and not what was asked for, is at fault."""

OF_THE_MACHINE = frozenset(_ERRNOS)

_SAID: tuple[tuple[str, Reason, str], ...] = (
    ("can't start new thread", "machine", _THREADS),
    ("thread creation failed", "machine", _THREADS),  # libgomp
    ("pthread_create failed", "machine", _THREADS),  # OpenBLAS
    ("resource temporarily unavailable", "machine", _THREADS),
    ("too many open files", "machine", _FILES),
    ("failed to map segment from shared object", "out of memory", _MEMORY),
    ("cannot allocate memory", "out of memory", _MEMORY),
    ("could not create a primitive", "out of memory", _MEMORY),  # oneDNN
    ("could not create a memory object", "out of memory", _MEMORY),
    ("std::bad_alloc", "out of memory", _MEMORY),
    ("bad allocation", "out of memory", _MEMORY),
    ("unable to mmap", "out of memory", _MEMORY),
    ("out of memory", "out of memory", _MEMORY),
    ("can't allocate memory", "out of memory", _MEMORY),
    ("failed to allocate memory", "out of memory", _MEMORY),
    ("resource_exhausted", "out of memory", _MEMORY),
    ("_alloc_failed", "out of memory", _MEMORY),
    ("no space left on device", "disk", _DISK),
    ("disk quota exceeded", "disk", _DISK),
    ("no cuda-capable device", "machine", _GPU),
    ("cuda driver version is insufficient", "machine", _GPU),
    ("cuda driver initialization failed", "machine", _GPU),
    ("cuda unknown error", "machine", _GPU),
    ("all cuda-capable devices are busy", "machine", _GPU),
    ("uncorrectable ecc error", "machine", _GPU),
    ("cudnn_status_not_initialized", "machine", _GPU),
    ("cannot open shared object file", "machine", "install the library that is named"),
    ("cannot allocate memory in static tls block", "machine", "import fewer libraries, or set LD_PRELOAD to this one"),
)
"""What libraries say instead of an error with a number, in lower case."""

_OF_THE_CODE = frozenset({"SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP"})
"""Signals that a process brings upon itself: it would again."""


def trouble_of(error: BaseException) -> Trouble | None:
    """What of the machine made this error, or one that it was raised from; None where the data or the code did."""
    seen: set[int] = set()
    e: BaseException | None = error
    while e is not None and id(e) not in seen:
        seen.add(id(e))
        if found := _of_one(e):
            return found
        e = e.__cause__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Of Python, numpy, torch (on a CPU or a GPU), JAX or onnxruntime."""
    found = _of_one(error)
    return found is not None and found.reason == "out of memory"


def explained(error: BenchkitError) -> tuple[Reason, str]:
    """Why a cell fails that comes to this error, and that in one line: with what to mend, where the machine made it."""
    if error.reason != "error" or error.__cause__ is None:
        return error.reason, str(error)
    found = trouble_of(error.__cause__)
    return (found.reason, f"{error} ({found.advice}, {AGAIN})") if found else ("error", str(error))


class MachineError(BenchkitError):
    """This machine, or this moment, could not do what was asked: the same command tries again."""

    def __init__(self, message: str, reason: Reason = "machine") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["MachineError"], tuple[str, Reason]]:
        return type(self), (str(self), self.reason)


def ended_by(code: int, said: str = "") -> tuple[Reason, str]:
    """Of a process that ended before its work was done: whose failure that is, and how it ended, in a few words.

    code: as subprocess has it, negative for a signal. said: the end of what it printed.
    """
    found = _of_text(said[-4000:])
    if code < 0:
        name = _signal(-code)
        how = f"was ended by {name}" + (" (out of memory, or somebody's kill)" if name == "SIGKILL" else "")
        reason: Reason = "crash" if name in _OF_THE_CODE else "killed"
    else:
        how, reason = f"ended with code {code} before its work was done", "crash"
    return (found.reason, f"{how} ({found})") if found and reason == "crash" else (reason, how)


def _of_one(e: BaseException) -> Trouble | None:
    line = _line(e)
    if isinstance(e, BenchkitError):
        return None if e.reason in OF_ITSELF else Trouble(e.reason, str(e), "mend that")
    if isinstance(e, MemoryError) or any(c.__name__ == "OutOfMemoryError" for c in type(e).__mro__):
        return Trouble("out of memory", line, _MEMORY)
    if isinstance(e, ModuleNotFoundError):
        why = f"this needs the package '{e.name}', which is not installed"
        return Trouble("machine", why, "pip install it, or its extra")
    if isinstance(e, OSError) and e.errno in _ERRNOS:
        reason, advice = _ERRNOS[e.errno]
        where = f"'{os.fsdecode(e.filename)}': " if isinstance(e.filename, str | bytes) else ""
        return Trouble(reason, f"{where}{e.strerror or line}", advice)
    framework = isinstance(e, RuntimeError | ImportError | OSError) or type(e).__module__.startswith(_FRAMEWORKS)
    return _of_text(str(e), line) if framework else None


_FRAMEWORKS = ("onnxruntime.", "jaxlib.", "tensorflow.", "soundfile", "PIL.")


def _of_text(text: str, line: str | None = None) -> Trouble | None:
    lower = text.lower()
    for said, reason, advice in _SAID:
        if said in lower:
            shown = line or next(row.strip() for row in text.splitlines() if said in row.lower())
            return Trouble(reason, shown, advice)
    return None


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
