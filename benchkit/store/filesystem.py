"""Which file system a registry lies on: SQLite's write-ahead log needs memory that its users share, and so one host.

Over a network two hosts would each see a log of their own, and damage the file (https://sqlite.org/wal.html). There a
rollback journal is used, which needs nothing but locks.
"""

import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
"""Linux's table of mounts. Where there is none (macOS), every file system counts as local."""

_NETWORK = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fhgfs", "glusterfs", "gfs", "gfs2",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs",
    "wekafs",
}  # fmt: skip
_LOCAL_FUSE = {"bindfs", "encfs", "fuse-overlayfs", "gocryptfs", "lxcfs", "mergerfs", "ntfs-3g", "portal"}
"""What runs in user space and yet lies on this host's disks. Of all other `fuse.x` one cannot know."""


def network_filesystem(path: Path, mountinfo: Path | None = None) -> str | None:
    """The type of the network file system that `path` is on, as `nfs4`; None where it is on this host's own disks.

    mountinfo: a file as /proc/self/mountinfo (proc(5)): of the mounts whose point is a folder above `path`, the deepest
    counts, and of several at one point the last.
    """
    source = mountinfo or MOUNTINFO
    try:
        lines = source.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, kind, deepest = path.resolve(), "", -1
    for line in lines:
        before, dash, after = line.partition(" - ")
        if not dash or len(fields := before.split(" ")) < 5:
            continue
        point = Path(_plain(fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= deepest:
            kind, deepest = after.split(" ")[0].lower(), len(point.parts)
    return kind if _is_network(kind) else None


def _is_network(kind: str) -> bool:
    base, _, program = kind.partition(".")
    return kind in _NETWORK or (base == "fuse" and bool(program) and program not in _LOCAL_FUSE)


def _plain(field: str) -> str:
    """Without the octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)
