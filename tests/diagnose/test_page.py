"""The page of a diagnosis in a real browser: it is drawn, says nothing on its console and asks for nothing."""

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from benchkit.diagnose.page import html
from benchkit.diagnose.run import Looked
from benchkit.diagnose.svg import Axis, covering, number

from .conftest import Weights

NOW = "2026-01-01T00:00:00.000000+00:00"


@dataclass(frozen=True)
class Seen:
    """pixels: of the screenshot, [H, W, 3]. console: lines. asked: addresses that the page asked for."""

    pixels: np.ndarray
    console: list[str]
    asked: list[str]


@pytest.fixture
def browser(tmp_path: Path) -> Callable[[str], Seen]:
    """Headless Chromium. CI installs it from Debian's packages; elsewhere it may be absent."""
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    def show(page: str) -> Seen:
        folder = tmp_path / "browser"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "page.html").write_text(page)
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr", "--window-size=1300,2600",
             f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
             f"--screenshot={folder / 'page.png'}", (folder / "page.html").as_uri()],
            capture_output=True, timeout=120, cwd=folder, env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        said = done.stderr.decode(errors="replace")
        assert (folder / "page.png").is_file(), said
        image = Image.open(io.BytesIO((folder / "page.png").read_bytes())).convert("RGB")
        console = [line for line in said.splitlines() if "CONSOLE" in line]
        return Seen(np.asarray(image), console, _asked(folder / "net.json"))

    return show


def _asked(log: Path) -> list[str]:
    """Addresses that the page asked for. The browser's own errands have no origin."""
    found = []
    for event in json.loads(log.read_text())["events"]:
        about = event.get("params", {})
        if "url" in about and about.get("initiator", "not an origin") != "not an origin":
            found.append(about["url"])
    return found


def colours(pixels: np.ndarray, rgb: tuple[int, int, int], near: int = 40) -> int:
    """Pixels of about this colour."""
    return int((np.abs(pixels.astype(int) - rgb).max(axis=2) < near).sum())


def drawn(pixels: np.ndarray) -> float:
    """Share of the pixels that are not the background's colour."""
    return float((pixels != pixels[2, 2]).any(axis=2).mean())


RED, GREEN = (200, 50, 31), (29, 127, 78)


def test_the_page_of_both_fixtures_is_drawn_and_asks_for_nothing(
    browser: Callable[[str], Seen], look: Callable[..., Looked], shared: Path
) -> None:
    outlier, tiny = (look(f"bird-mae,path={shared / 'fixtures' / f'bird_mae_{n}'}") for n in ("outlier", "tiny"))
    seen = browser(html(outlier, tiny, NOW))
    assert seen.pixels.shape == (2600, 1300, 3)
    assert (seen.console, seen.asked) == ([], [])
    assert drawn(seen.pixels) > 0.3
    assert (seen.pixels[-400:] != seen.pixels[-1, 0]).any()  # down to the lower end
    assert colours(seen.pixels, RED) > 3000  # the verdict's edge, the outlier's curves and bars
    assert colours(seen.pixels, GREEN) > 300  # the other model's verdict

    healthy = browser(html(tiny, None, NOW))
    assert (healthy.console, healthy.asked) == ([], [])
    assert colours(healthy.pixels, RED) == 0
    assert colours(healthy.pixels, GREEN) > 300


def test_the_browser_would_have_told(browser: Callable[[str], Seen]) -> None:
    """So that the test above can fail."""
    seen = browser("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>console.error('ouch')</script>")
    assert any("ouch" in line for line in seen.console)
    assert "http://127.0.0.1:9/x.png" in seen.asked
    assert drawn(seen.pixels) < 0.01


class _Tags(HTMLParser):
    VOID = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(page: str) -> list[str]:
    """Well-formed, self-contained, and every chart's numbers are numbers. Returns the charts' titles."""
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert (tags.links, tags.scripts) == (["data:,"], 0)
    assert "@import" not in page
    assert "url(" not in page
    titles = []
    for drawn in re.findall(r"<svg.*?</svg>", page, re.S):
        root = ElementTree.fromstring(drawn)
        titles.append(root.attrib["aria-label"])
        assert "nan" not in drawn.replace(titles[-1], "").lower().split()
        for shape in root.iter():
            for at in re.findall(r"-?\d+\.?\d*", shape.attrib.get("points", "")):
                assert -100 < float(at) < 2000
    return titles


@pytest.mark.parametrize("kind", ["healthy", "nan", "norm", "class token", "silent"])
def test_every_kind_of_finding_has_a_page(look: Callable[..., Looked], planted: Callable[..., str], kind: str) -> None:
    def change(w: Weights) -> None:
        if kind == "nan":
            w["blocks.0.attn.qkv.weight"][1, 2] = np.nan
        elif kind == "norm":
            w["blocks.1.norm2.weight"][3] = 80.0
        elif kind == "class token":
            w["cls_token"][0, 0, 3] = -90.0
        elif kind == "silent":
            w["blocks.1.mlp.fc2.weight"][:] = 0.0
            w["blocks.1.mlp.fc2.bias"][:] = 0.0

    looked = look(planted(change), examples=2)
    assert looked.healthy == (kind == "healthy")
    titles = check_page(html(looked, None, NOW))
    assert {"blocks.2.mlp.fc2", "norm1: weights", "Norms of what reads and writes the stream"} <= set(titles) or (
        kind in ("nan", "norm", "silent")
    )
    if kind != "nan":
        assert {"Residual stream", "Attention output", "MLP output"} <= set(titles)


def test_pooled_features_alone_have_a_page(look: Callable[..., Looked]) -> None:
    looked = look("pixels", task="digits", pooled_only=True)
    assert check_page(html(looked, None, NOW)) == ["pooled — unhealthy"]


def test_a_name_with_markup_in_it_is_text(look: Callable[..., Looked]) -> None:
    from dataclasses import replace

    looked = replace(look("pixels", task="digits", pooled_only=True), model="<script>alert(1)</script>")
    check_page(html(looked, None, NOW))


def test_ticks_are_round_and_within() -> None:
    assert Axis("", 0, 12).ticks() == [0, 2, 4, 6, 8, 10, 12]
    assert Axis("", -0.3, 3.3, whole=True).ticks() == [0, 1, 2, 3]
    assert Axis("", 0.5, 2e4, "log").ticks() == [1, 10, 100, 1000, 10000]
    symlog = Axis("", -20, 3000, "symlog", 1.0)
    assert symlog.ticks() == [-10, -1, 0, 1, 10, 100, 1000]
    assert [symlog.at(v) for v in (-20, 3000)] == [0, 1]
    assert symlog.at(-5) < symlog.at(0) < symlog.at(0.1) < symlog.at(2000)
    axis = covering("", [float("nan"), 2.0, 5.0], "log")
    assert axis.low < 2 < 5 < axis.high
    assert [number(v) for v in (0.05, -2000, 1e6, 2e-5, 0)] == ["0.05", "−2,000", "10⁶", "2·10⁻⁵", "0"]
