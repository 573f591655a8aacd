"""Files on the Hugging Face hub, read so that many jobs at once on a cluster neither fail nor disturb one another.

    hub = Hub("samuelstevens/BirdSet", "dataset", instead="run benchkit fetch --task hsn --to DIR where there is one")
    for file in hub.files("HSN"):
        with hub.open(file) as f: ...          a seekable stream; only what is read is transferred
    weights = Hub("ORG/NAME").file("model.safetensors")          a local path

Reading goes through one primitive, a range of bytes of one file at one commit, which is tried again with growing waits
when the network or the server falters. A machine without a network is told so within seconds. Nothing is written to
the hub's shared cache, whose lock and `.incomplete` files break on network file systems; it is only ever read.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere.
"""

import hashlib
import os
import queue
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from benchkit.errors import DataError, StoreError, redacted, require
from benchkit.machine import files
from benchkit.media.fingerprint import cache_dir
from benchkit.media.ranges import BLOCK, Blocks, RangeStream

T = TypeVar("T")

TIMEOUT = 30.0
"""Seconds without an answer, or without more of one, after which a request counts as failed."""


class RemoteError(DataError):
    """Something on the hub cannot be read. What it says holds no password of an address."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class OfflineError(RemoteError):
    """This machine does not reach the hub at all."""

    reason = "network"


class BrokenOff(RemoteError):
    """The hub, or what lies between, failed in a way that may pass, again and again."""

    reason = "network"


class Incomplete(ConnectionError):
    """An answer broke off, or is not the range that was asked for."""


@dataclass(frozen=True)
class Backoff:
    """How often something is tried, and the seconds between: doubling from `first` up to `longest`."""

    attempts: int = 8
    first: float = 0.5
    longest: float = 30.0

    def waits(self) -> Iterator[float]:
        """Up to a quarter is added at random, so that a hundred jobs do not come back in the same instant."""
        for i in range(self.attempts - 1):
            yield min(self.first * 2**i, self.longest) * (1 + random.SystemRandom().random() / 4)


def retrying(what: str, call: Callable[[], T], backoff: Backoff) -> T:
    """call(), again and again while it fails in a way that may pass.

    what: names the thing in the error. Raises BrokenOff where it failed `backoff.attempts` times; an error that no
    waiting mends is raised as it is.
    """
    began, waits, attempts = time.monotonic(), backoff.waits(), 0
    while True:
        attempts += 1
        try:
            return call()
        except Exception as e:
            if not transient(e):
                raise
            wait = next(waits, None)
            if wait is None:
                raise BrokenOff(
                    f"{what} could not be read: {attempts} attempts in {time.monotonic() - began:.0f} s failed "
                    f"({_reason(e)}); try again later, a run goes on where it stopped"
                ) from e
            time.sleep(max(wait, _retry_after(e)))


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: dropped connections, timeouts, an overloaded server."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, RemoteError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    # By name, because the hub's client has changed its HTTP library twice: httpx's and requests' base classes.
    names = {c.__name__ for c in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return False
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or bool(
        names & {"TransportError", "ConnectionError", "Timeout", "ChunkedEncodingError"}
    )


@dataclass(frozen=True)
class HubFile:
    """One file of a repository at one commit.

    checksum: `sha256:` and the digest of the contents; for small files outside LFS `git:` and git's name of the blob.
    """

    path: str
    size: int
    checksum: str

    def matches(self, local: Path) -> bool:
        """Whether a local file holds the same bytes."""
        with files.reading(local) as f:
            return os.fstat(f.fileno()).st_size == self.size and self.is_in(f)

    def is_in(self, f: IO[bytes]) -> bool:
        """Whether what is read from here on is the file."""
        kind, _, digest = self.checksum.partition(":")
        named = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        running = hashlib.sha256() if kind == "sha256" else named  # git's name of a blob
        while chunk := f.read(2**20):
            running.update(chunk)
        return running.hexdigest() == digest


@dataclass(frozen=True)
class Hub:
    """One repository.

    revision: a branch, tag or commit; None is the default branch. It is resolved once.
    instead: what the user can do where there is no network; the last part of the line that says so.
    """

    repo: str
    kind: Literal["dataset", "model"] = "model"
    revision: str | None = None
    instead: str = "run this where there is a network"
    backoff: Backoff = Backoff()

    @cached_property
    def commit(self) -> str:
        """The commit that `revision` names, 40 hexadecimal digits. Raises RemoteError."""
        if self.revision and re.fullmatch(r"[0-9a-f]{40}", self.revision):
            return self.revision
        revision = quote(self.revision or "main", safe="")
        answer = self._json(f"{self}", self._get(f"{self}", f"{self._api}/revision/{revision}"))
        sha = answer.get("sha") if isinstance(answer, dict) else None
        if not (isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{40}", sha)):
            raise RemoteError(f"{endpoint()} answers with no commit of {self}: {sha!r:.80}")
        return sha

    def files(self, folder: str = "") -> tuple[HubFile, ...]:
        """Every file below `folder`, sorted by path. Raises RemoteError, also where there is none."""
        url: str | None = f"{self._api}/tree/{self.commit}/{quote(folder)}?recursive=true"
        found: list[HubFile] = []
        what = f"the list of files of {self}"
        while url:
            page = self._get(what, url)
            listed = self._json(what, page)
            try:
                found += [_hub_file(entry) for entry in listed if entry["type"] == "file"]
            except (KeyError, TypeError, ValueError) as e:
                raise RemoteError(f"{endpoint()} answers with no list of files of {self}: {e!r:.200}") from e
            url = self._next(page, url)
        if not found:
            raise RemoteError(f"{self} has no files in '{folder}' at revision {self.commit[:12]}")
        return tuple(sorted(found, key=lambda f: f.path))

    def read(self, file: HubFile, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`. Raises RemoteError."""
        from huggingface_hub import hf_hub_url

        repo_type = None if self.kind == "model" else self.kind
        url = hf_hub_url(self.repo, file.path, repo_type=repo_type, revision=self.commit, endpoint=endpoint())

        def part(response: Any) -> bytes:
            body: bytes = response.content
            if response.status_code == 200 and len(body) == file.size:  # a server that knows no ranges
                body = body[start:stop]
            if len(body) != stop - start:
                raise Incomplete(f"{len(body):,} bytes came where {stop - start:,} were asked for")
            return body

        if start == stop:
            return b""
        return self._ask(f"'{file.path}' of {self}", lambda: part(self._request(url, f"bytes={start}-{stop - 1}")))

    def open(self, file: HubFile, blocks: Blocks | None = None) -> RangeStream:
        """A seekable stream. Without `blocks`, each read is one request for exactly what is read."""
        return RangeStream(file.size, blocks.read if blocks else lambda a, b: self.read(file, a, b))

    def blocks(self, file: HubFile, keep: bool = False) -> Blocks:
        """Block by block, for streams that read most of a file. keep: on node-local scratch, for a second pass."""
        return Blocks(lambda a, b: self.read(file, a, b), file.size, keep)

    def file(self, path: str) -> Path:
        """A local copy of one file, complete and checked.

        From the hub's own cache where it is there; else from benchkit's, downloading it first. With `revision` a full
        commit, a file that is there needs no network. Raises RemoteError.
        """
        require("huggingface_hub", "huggingface-hub")
        from huggingface_hub import try_to_load_from_cache

        there = try_to_load_from_cache(self.repo, path, revision=self.revision, repo_type=self.kind)
        if isinstance(there, str):
            return Path(there)
        local = cache_dir() / "hub" / self.kind / self.repo / self.commit / path
        if local.is_file():
            return local
        listed = {f.path: f for f in self.files(path.rpartition("/")[0])}
        if path not in listed:
            raise RemoteError(f"{self} has no file '{path}' at revision {self.commit[:12]}")
        return self._download(listed[path], local)

    def _download(self, file: HubFile, local: Path) -> Path:
        """Under a name of its own until it is whole, so that jobs that do the same at once do not meet."""
        try:
            with files.writing(local, cache_dir()) as f:
                for start in range(0, file.size, BLOCK):
                    f.write(self.read(file, start, min(start + BLOCK, file.size)))
                f.seek(0)
                if not file.is_in(f):
                    raise RemoteError(f"'{file.path}' of {self} arrived damaged: it does not match {file.checksum}")
        except StoreError as e:
            raise RemoteError(str(e)) from e
        return local

    def __str__(self) -> str:
        return f"the {self.kind} '{self.repo}'"

    def _json(self, what: str, response: Any) -> Any:
        try:
            return response.json()
        except (ValueError, RecursionError) as e:
            raise RemoteError(f"{what} cannot be read: the answer is no JSON ({e!r:.100})") from e

    def _next(self, page: Any, url: str) -> str | None:
        """Where the list goes on: at the same host alone, for the token goes along."""
        further: str | None = page.links.get("next", {}).get("url")
        if further is None:
            return None
        here, there = urlsplit(url), urlsplit(urljoin(url, further))
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            raise RemoteError(
                f"the list of files of {self} goes on at another host, {there.scheme}://{there.netloc}: it is not asked"
            )
        return there.geturl()

    @property
    def _api(self) -> str:
        return f"{endpoint()}/api/{self.kind}s/{self.repo}"

    def _get(self, what: str, url: str) -> Any:
        return self._ask(what, lambda: self._request(url))

    def _request(self, url: str, range: str | None = None) -> Any:
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = build_hf_headers() | ({"range": range, "accept-encoding": "identity"} if range else {})
        response = get_session().get(url, headers=headers, timeout=TIMEOUT)
        hf_raise_for_status(response)
        return response

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        require("huggingface_hub", "huggingface-hub")
        try:
            reach(endpoint())
            return retrying(what, call, self.backoff)
        except OfflineError as e:
            raise OfflineError(f"{e}, and {what} is there: {self.instead}") from e
        except RemoteError:
            raise
        except Exception as e:
            raise self._explain(what, e) from e

    def _explain(self, what: str, error: Exception) -> RemoteError:
        names = {c.__name__ for c in type(error).__mro__}
        if "OfflineModeIsEnabled" in names:
            return OfflineError(f"HF_HUB_OFFLINE is set, and {what} is not on this machine: {self.instead}")
        if "GatedRepoError" in names:
            return RemoteError(f"{self} is gated: accept its terms at {endpoint()}/{self._page}, then `hf auth login`")
        if "RevisionNotFoundError" in names:
            return RemoteError(f"{self} has no revision '{self.revision}'")
        if "EntryNotFoundError" in names:
            return RemoteError(f"{what} is not there at revision '{self.revision or 'main'}'")
        if "RepositoryNotFoundError" in names:
            return RemoteError(f"{endpoint()} has no {self.kind} '{self.repo}', or none that you may read (HF_TOKEN)")
        return RemoteError(f"{what} cannot be read: {_reason(error)}")

    @property
    def _page(self) -> str:
        return self.repo if self.kind == "model" else f"datasets/{self.repo}"


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


@cache
def reach(address: str, timeout: float = 3.0) -> None:
    """Returns at once after the first success. Raises OfflineError where no connection opens: two attempts.

    The hub's own client would wait for minutes on a compute node whose packets are dropped.
    """
    if address == endpoint() and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise OfflineError("HF_HUB_OFFLINE is set")
    reason = _connect(address, timeout)
    if reason:
        time.sleep(1)
        reason = _connect(address, timeout)
    if reason:
        raise OfflineError(f"this machine does not reach {address} ({reason})")


def _connect(address: str, timeout: float) -> str | None:
    """Opens and closes a connection to the first hop (a proxy counts). Why that failed, or None.

    In a thread, because looking up a name has no time limit of its own.
    """
    url = urlsplit(address)
    proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    hop = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else url
    port = hop.port or (443 if hop.scheme == "https" else 80)
    answer: queue.Queue[str | None] = queue.Queue()

    def connect() -> None:
        try:
            socket.create_connection((hop.hostname or "", port), timeout).close()
            answer.put(None)
        except OSError as e:
            answer.put(e.strerror or str(e) or type(e).__name__)

    threading.Thread(target=connect, daemon=True, name="benchkit-reach").start()
    try:
        return answer.get(timeout=timeout + 0.5)
    except queue.Empty:
        return f"no answer within {timeout:g} s"


def _hub_file(entry: dict[str, Any]) -> HubFile:
    lfs, path, size = entry.get("lfs"), entry["path"], entry["size"]
    checksum = f"sha256:{lfs['oid']}" if lfs else f"git:{entry['oid']}"
    if not (isinstance(path, str) and is_name_below(path)):
        raise RemoteError(f"{endpoint()} lists a file called {path!r:.120}, which is none below a folder")
    if type(size) is not int or not 0 <= size < 2**63:
        raise RemoteError(f"{endpoint()} lists the file '{path}' with {size!r:.40} bytes")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}", checksum):
        raise RemoteError(f"{endpoint()} lists the file '{path}' with the checksum {checksum!r:.100}")
    return HubFile(path, size, checksum)


def is_name_below(path: str) -> bool:
    """Whether a path that others gave stays below the folder that it is to be written to, by any system's rules."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and all(p not in ("", ".", "..") and ":" not in p for p in parts)


def _retry_after(error: BaseException) -> float:
    """Seconds that the server asked for, at most 120."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    given = str(headers.get("retry-after", ""))
    return min(float(given), 120.0) if given.isdigit() else 0.0


def _reason(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"HTTP {status}" if status is not None else first
