"""Where a model without `path` comes from: the package's folder, benchkit's cache, the network, or nowhere."""

import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from birdnet.acoustic.models.perch_v2.pb import AcousticPBDownloaderPerchV2
from birdnet.acoustic.models.v2_4 import tf
from birdnet.acoustic.models.v3_0 import onnx
from birdnet.utils.download_progress import set_download_progress_callback
from birdnet.utils.helper import sha256_file, write_source_marker

from benchkit import BenchkitError, OfflineError, RemoteError, cache_dir, fingerprint_path, resolve
from benchkit_birdnet import birdnet, perch
from benchkit_birdnet.files import locate

CLOSED = "http://127.0.0.1:9"
SPECS = ["birdnet", "birdnet:3.0", "perch"]


class Site:
    """A web site with the tiny models in the archives and under the names of the published ones."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.folder = folder
        folder.mkdir()
        with zipfile.ZipFile(folder / "birdnet24.zip", "w") as z:
            z.write(tiny / "birdnet24.tflite", "audio-model.tflite")
            z.writestr("labels/en_us.txt", "Turdus merula_Eurasian Blackbird\n")
        (folder / "birdnet30.onnx").write_bytes((tiny / "birdnet30.onnx").read_bytes())
        with zipfile.ZipFile(folder / "perch.zip", "w") as z:
            for file in (tiny / "perch").rglob("*"):
                z.write(file, file.relative_to(tiny / "perch"))
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                if site.statuses:
                    self.send_error(site.statuses.pop(0))
                else:
                    super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size


def publish(monkeypatch: pytest.MonkeyPatch, url: str, tiny: Path, size: dict[str, int]) -> None:
    """The package's own records, with this address and the sizes of the tiny models."""
    models = {"birdnet24.zip": (tf, "birdnet24.tflite"), "birdnet30.onnx": (onnx, "birdnet30.onnx")}
    for name, (module, file) in models.items():
        info = replace(
            module.models["fp32"], dl_url=f"{url}/{name}", dl_size=size.get(name, 1),
            file_size=(tiny / file).stat().st_size, sha256=sha256_file(tiny / file) if module is onnx else None,
        )  # fmt: skip
        monkeypatch.setitem(module.models, "fp32", info)
    monkeypatch.setattr(AcousticPBDownloaderPerchV2, "MODEL_DOWNLOAD_URL_CPU", f"{url}/perch.zip")
    monkeypatch.setattr(AcousticPBDownloaderPerchV2, "MODEL_DOWNLOAD_SIZE_CPU", size.get("perch.zip", 1))


@pytest.fixture
def site(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path / "site", tiny)
    url = f"http://127.0.0.1:{site.server.server_port}"
    publish(monkeypatch, url, tiny, {f.name: f.stat().st_size for f in site.folder.iterdir()})
    yield site
    site.server.shutdown()
    site.server.server_close()


def release(spec: str):
    return perch.release("cpu") if spec == "perch" else birdnet.release(spec.partition(":")[2] or "2.4")


def model(spec: str, tiny: Path) -> Path:
    return tiny / {"birdnet": "birdnet24.tflite", "birdnet:3.0": "birdnet30.onnx", "perch": "perch"}[spec]


def cached() -> list[str]:
    folder = cache_dir() / "birdnet"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def same(one: Path, other: Path) -> bool:
    include = perch.SAVED_MODEL if one.is_dir() else ("**/*",)
    return fingerprint_path(one, include) == fingerprint_path(other, include)


@pytest.mark.parametrize("spec", SPECS)
def test_a_published_model_is_downloaded_once_and_nothing_else_stays(site: Site, tiny: Path, spec: str) -> None:
    wanted = release(spec)
    path = locate(wanted)
    assert same(path, model(spec, tiny))
    assert locate(wanted) == path
    assert len(site.requests) == 1
    assert cached() == [wanted.name]


def test_a_downloaded_model_encodes(site: Site) -> None:
    for spec in ("birdnet", "birdnet:3.0"):
        backbone = resolve("model", spec).build()
        backbone.setup("cpu")
        batch = backbone.preprocess(np.ones(1000, np.float32))[None]
        assert backbone.encode(batch).pooled.shape == (1, backbone.dim)


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_that_the_package_has_already_is_used_where_it_lies(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    publish(monkeypatch, CLOSED, tiny, {})
    wanted = release(spec)
    wanted.place.parent.mkdir(parents=True)
    if spec == "perch":
        shutil.copytree(model(spec, tiny), wanted.place)
        write_source_marker(wanted.place, wanted.url)
    else:
        wanted.place.write_bytes(model(spec, tiny).read_bytes())
    assert locate(wanted) == wanted.place
    assert cached() == []


@pytest.mark.parametrize("spec", SPECS)
def test_without_a_network_one_line_says_what_to_do_and_nothing_is_left(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    publish(monkeypatch, CLOSED, tiny, {})
    with pytest.raises(OfflineError) as raised:
        locate(release(spec))
    message = str(raised.value)
    assert f"does not reach {CLOSED}" in message
    assert f"download {CLOSED}/" in message
    assert "path=" in message
    assert "\n" not in message
    assert cached() == []


@pytest.mark.parametrize("spec", ["birdnet", "birdnet:3.0"])
def test_the_way_out_of_a_run_without_a_network_is_said_by_the_backbone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    publish(monkeypatch, CLOSED, tiny, {})
    with pytest.raises(OfflineError, match="give its place as path="):
        resolve("model", spec).build().setup("cpu")


def test_a_proxy_that_leads_nowhere_is_told_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that never gives an HTTP answer: the connection opens, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        publish(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}", tiny, {})
        with pytest.raises(OfflineError, match=r"BirdNET 2\.4 cannot be downloaded \(.*path="):
            locate(release("birdnet"))
    assert cached() == []


@pytest.mark.parametrize("spec", SPECS)
def test_an_archive_that_is_not_what_was_published_is_refused(site: Site, spec: str) -> None:
    name = release(spec).url.rpartition("/")[2]
    (site.folder / name).write_bytes(b"\0" * site.size(name))
    with pytest.raises(RemoteError, match=r"cannot be downloaded|arrived damaged") as raised:
        locate(release(spec))
    assert "\n" not in str(raised.value)
    assert cached() == []


def test_a_model_that_is_no_longer_there_is_told_at_once(site: Site) -> None:
    site.statuses.append(404)
    with pytest.raises(RemoteError, match=r"cannot be downloaded \(.*404.*path="):
        locate(release("birdnet"))
    assert len(site.requests) == 1
    assert cached() == []


def test_two_jobs_at_once_both_get_the_model(site: Site, tiny: Path) -> None:
    found: list[Path] = []
    wanted = [release("birdnet"), release("perch")] * 3
    threads = [threading.Thread(target=lambda r=r: found.append(locate(r))) for r in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    set_download_progress_callback(None)  # of the whole process, which has one job outside this test
    assert len(found) == 6
    assert all(same(path, model("perch" if path.is_dir() else "birdnet", tiny)) for path in found)
    assert cached() == ["birdnet-2.4.tflite", "perch-v2-cpu"]


def test_an_archive_that_leads_elsewhere_or_has_no_end_leaves_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(name: str, data: bytes) -> int:
        with zipfile.ZipFile(site.folder / "perch.zip", "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr(name, data)
        return site.size("perch.zip")

    wanted = release("perch")
    size = replaced("../../outside", b"x")
    with pytest.raises(BenchkitError, match="outside"):
        locate(replace(wanted, size=size))
    assert not list(tmp_path.rglob("outside"))
    assert cached() == []
    size = replaced("saved_model.pb", bytes(10**6))
    monkeypatch.setattr("benchkit_birdnet.files.UNPACKED", 10**5)
    with pytest.raises(RemoteError, match="it would unpack to 1,000,000 bytes"):
        locate(replace(wanted, size=size))
    assert cached() == []
