"""The command line in this process, a registry to read, and a terminal to read it in."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchkit.cli import catalog, naming, read
from benchkit.errors import BenchkitError
from benchkit.records.report import Cell, Check, Metric, Report
from benchkit.store import open_store
from benchkit.store.insert import insert


def rows_of(text: str) -> list[list[str]]:
    """The cells of a text table, below its rule."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) <= {"-", " "} and "-" in line)
    ends = [m.span() for m in re.finditer("-+", lines[rule])]
    return [[line[a:b].strip() for a, b in ends] for line in lines[rule + 1 :] if line.strip()]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def cli() -> Callable[..., Ran]:
    """A command in this process, its output into a pipe. An error is what the console script would print."""
    app = typer.Typer(pretty_exceptions_enable=False)
    read.register(app)
    naming.register(app)
    catalog.register(app)

    def invoke(*words: object) -> Ran:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(result.exception, BenchkitError):
            return Ran(1, result.stdout, f"error: {result.exception}\n")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def script() -> Callable[..., Ran]:
    """The console script as a process of its own, its output into a pipe."""

    def invoke(*words: object, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "benchkit", *map(str, words)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ | environment, timeout=60,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return invoke


@pytest.fixture
def terminal() -> Callable[..., Ran]:
    """The console script in a real terminal of a given width, with what somebody types once it asks."""

    def invoke(*words: object, width: int = 80, type_in: str = "", **environment: str) -> Ran:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchkit", *map(str, words)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that ^C reaches it as a signal
            env=os.environ | {"COLUMNS": str(width), "LINES": "50", "TERM": "xterm"} | environment,
        )  # fmt: skip
        os.close(slave)
        shown, due, deadline = b"", 0.0, time.monotonic() + 60
        try:
            while True:
                assert time.monotonic() < deadline, f"it does not end; so far: {shown.decode()}"
                if type_in and b"[y/N]" in shown and time.monotonic() > due:
                    os.write(master, type_in.encode())
                    # Ctrl-C that comes between the question and the waiting for an answer goes by Python: once more.
                    due = time.monotonic() + 2 if type_in == "\x03" else deadline
                if not select.select([master], [], [], 0.05)[0]:
                    continue
                try:
                    piece = os.read(master, 65536)
                except OSError:  # it has closed the other end
                    break
                if not piece:
                    break
                shown += piece
            code = process.wait(10)  # before our end is closed, which would hang it up and give a code of its own
        finally:
            process.kill()
            process.wait(10)
            os.close(master)
        return Ran(code, shown.decode().replace("\r\n", "\n"), "")

    return invoke


@pytest.fixture
def fill(make_report: Callable[..., Report]) -> Callable[..., list[Report]]:
    """A registry with one report for each dict of fields; `value` stands for a metric, `cell` for a tuple."""

    def make(path: Path, *given: dict[str, Any]) -> list[Report]:
        reports = []
        for i, fields in enumerate(given):
            known = dict(fields)
            value, name = known.pop("value", 0.9), known.get("primary", "top1")
            stamp = f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}.000000+00:00"
            known = {"metrics": [Metric(name, value, value - 0.02, value + 0.02), Metric("macro_f1", value / 2)],
                     "started_at": stamp, "finished_at": stamp} | known  # fmt: skip
            known["cell"] = Cell(*known.get("cell", ("digits", "pixels", "linear", -1, 0)))
            reports.append(make_report(**known))
        with open_store(path) as store, store.write():
            for report in reports:
                insert(store, report)
        return reports

    return make


@pytest.fixture
def registry(tmp_path: Path, fill: Callable[..., list[Report]]) -> Path:
    """2 tasks x 2 models x 2 classifiers; on digits also 3 seeds of 5-shot; one leaked, one with odd features."""
    path = tmp_path / "registry.sqlite"
    leak = Check("leakage", "fail", "3 examples are in train and in test", {"pairs": [["a", "b"]]})
    odd = Check("features", "warn", "dimension 17 carries 97 % of the norm", {"share": 0.97})
    reports: list[dict[str, Any]] = []
    for t, (task, metric) in enumerate((("digits", "top1"), ("hsn", "cmap"))):
        for m, model in enumerate(("bird-mae:large,layer=20", "pixels")):
            for c, classifier in enumerate(("knn,k=5", "linear")):
                value = 0.5 + 0.1 * t + 0.2 * m + 0.04 * c
                marks = [leak] if (t, m, c) == (0, 1, 1) else [odd] if (m, c) == (0, 0) else []
                reports.append({"cell": (task, model, classifier, -1, 0), "primary": metric, "value": value,
                                "checks": [Check("chance", "ok", "well above 0.1"), *marks]})  # fmt: skip
                if task == "digits":
                    reports += [
                        {"cell": (task, model, classifier, 5, seed), "value": value - 0.1 + 0.01 * seed, "checks": []}
                        for seed in (0, 1, 2)
                    ]
    fill(path, *reports)
    return path
