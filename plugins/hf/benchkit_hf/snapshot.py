"""One folder with everything transformers needs of a hub repository, without writing to the hub's shared cache."""

import os
import uuid
from fnmatch import fnmatch
from pathlib import Path

from benchkit import Hub, HubFile, cache_dir

SMALL = ("*.json", "*.txt", "*.model")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def snapshot(repo: str, revision: str, code: bool) -> Path:
    """A local folder with configuration, processor and weights. code: with the repository's Python files too.

    The hub's own cache is used where it holds them all; else they are downloaded, checked, into benchkit's. Raises
    RemoteError.
    """
    if there := _cached(repo, revision):
        return there
    hub = Hub(repo, "model", revision, instead=f"download it there first (hf download {repo}), or give a local folder")
    folder = cache_dir() / "snapshots" / repo / hub.commit
    for file in _needed(hub.files(), code):
        _link(hub.file(file.path), folder / file.path)
    return folder


def _cached(repo: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    complete = (folder / "config.json").is_file() and any(next(folder.glob(p), None) for p in WEIGHTS)
    return folder if complete else None


def _needed(files: tuple[HubFile, ...], code: bool) -> list[HubFile]:
    """Files at the top of the repository; torch files only where there are no safetensors."""
    top = [f for f in files if "/" not in f.path]
    weights: list[HubFile] = []
    for pattern in WEIGHTS:
        weights = weights or [f for f in top if fnmatch(f.path, pattern)]
    small = [f for f in top if any(fnmatch(f.path, p) for p in (*SMALL, *(("*.py",) if code else ())))]
    return [*small, *weights]


def _link(target: Path, link: Path) -> None:
    """Atomically, so that jobs that do the same at once do not meet."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    os.symlink(target.absolute(), temporary)
    os.replace(temporary, link)
