"""One folder with everything transformers needs of a hub repository, without writing to the hub's shared cache."""

from fnmatch import fnmatch
from pathlib import Path

from benchkit import Hub, HubFile, RemoteError, cache_dir, point_link

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
        there = hub.file(file.path).absolute()
        try:
            point_link(folder / file.path, there, cache_dir())  # atomically: jobs that do the same at once do not meet
        except OSError as e:
            raise RemoteError(f"cannot write '{folder / file.path}': {e.strerror}") from e
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
