"""A hub of one's own on the loopback interface, for testing what reads from the Hugging Face hub.

    with FakeHub(folder, "ORG/NAME") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.append("drop")          the next file request breaks off in the middle

It speaks as much of the hub's protocol as benchkit.media.hub and huggingface_hub need to list and read the files of one
repository at one commit: revisions, the paginated tree, and files by range behind a redirect.
"""

import hashlib
import json
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
PAGE = 2
"""Entries on one page of the tree: few, so that every listing has several."""

Fault = Literal["ok", "drop", "503", "429", "corrupt", "whole", "short", "stall"]
"""ok: none. drop: half of the body, then the connection is closed. 503, 429: these statuses. corrupt: one bit is
another. whole: the range is ignored. short: fewer bytes than asked for, without an error. stall: no answer until
`stalled` is set, at the latest when the hub is closed."""


@dataclass
class FakeHub:
    """Serves the files below `root` as repository `repo`.

    faults: taken from the left by requests for file contents, one each.
    requests: path and range of every request for file contents, in order of arrival.
    """

    root: Path
    repo: str
    kind: Literal["dataset", "model"] = "dataset"
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, str]] = field(default_factory=list)
    api_requests: list[str] = field(default_factory=list)
    sent: int = 0
    """Bytes of file contents sent so far."""

    def __enter__(self) -> "FakeHub":
        self.stalled = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stalled.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def tree(self, folder: str) -> list[dict[str, Any]]:
        """The hub's entries of the files below `folder`: parquet and safetensors in LFS, the others as git blobs."""
        entries = []
        for path in sorted(p for p in (self.root / folder).rglob("*") if p.is_file()):
            data = path.read_bytes()
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {
                "type": "file", "path": path.relative_to(self.root).as_posix(), "size": len(data), "oid": blob,
            }  # fmt: skip
            if path.suffix in (".parquet", ".safetensors"):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 131}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = unquote(urlsplit(self.path).path), urlsplit(self.path).query
        prefix = "datasets/" if self.hub.kind == "dataset" else ""
        api = re.escape(f"/api/{self.hub.kind}s/{self.hub.repo}/")
        resolve = re.escape(f"/{prefix}{self.hub.repo}/resolve/{COMMIT}/")
        if found := re.fullmatch(api + "revision/(.+)", path):
            self._revision(found[1])
        elif found := re.fullmatch(api + f"tree/{COMMIT}/(.*)", path):
            self._tree(found[1], query)
        elif found := re.fullmatch(resolve + "(.+)", path):
            self._answer(302, b"", headers={"location": f"{self.hub.url}/cdn/{found[1]}"})
        elif found := re.fullmatch("/cdn/(.+)", path):
            self._file(found[1])
        else:
            self._answer(404, b"{}", headers={"x-error-code": "RepoNotFound"})

    def _revision(self, name: str) -> None:
        self.hub.api_requests.append(self.path)
        if name in ("main", COMMIT):
            self._answer(200, json.dumps({"id": self.hub.repo, "sha": COMMIT}).encode())
        else:
            self._answer(404, b"{}", headers={"x-error-code": "RevisionNotFound"})

    def _tree(self, folder: str, query: str) -> None:
        self.hub.api_requests.append(self.path)
        start = int(re.sub(r".*cursor=", "", query)) if "cursor=" in query else 0
        entries = self.hub.tree(folder)
        if not entries:
            self._answer(404, b"{}", headers={"x-error-code": "EntryNotFound"})
            return
        base = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true"
        more = {"link": f'<{base}&cursor={start + PAGE}>; rel="next"'} if start + PAGE < len(entries) else {}
        self._answer(200, json.dumps(entries[start : start + PAGE]).encode(), headers=more)

    def _file(self, name: str) -> None:
        asked = self.headers.get("range", "")
        self.hub.requests.append((name, asked))
        fault = self.hub.faults.popleft() if self.hub.faults else None
        if not (self.hub.root / name).is_file():
            self._answer(404, b"", headers={"x-error-code": "EntryNotFound"})
            return
        if fault in ("503", "429"):
            self._answer(int(fault), b"", headers={"retry-after": "0"})
            return
        if fault == "stall":
            self.hub.stalled.wait()
            self.close_connection = True
            return
        data = (self.hub.root / name).read_bytes()
        status = 200
        if asked and fault != "whole":
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups()  # type: ignore[union-attr]
            data, status = data[int(first) : int(last) + 1], 206
        if fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "short":
            data = data[:-1]
        self._answer(status, data, half=fault == "drop")

    def _answer(self, status: int, body: bytes, half: bool = False, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if half:
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)
        if status in (200, 206) and "/cdn/" in self.path:
            self.hub.sent += len(body)
