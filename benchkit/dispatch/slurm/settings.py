"""What jobs ask Slurm for: from `--slurm KEY=VALUE`, before the sweep file's [slurm], before the user's config.toml.

[slurm]
partition = "gpu"
time = "8h"
memory = "32G"
gpus = 1
cpus = 8
setup = ["module load cuda", "source ~/venv/bin/activate"]
constraint = "a100"        # any other key is an option of sbatch
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchkit.errors import BenchkitError
from benchkit.machine.config import read_config, read_toml

_UNITS = {"m": 1, "min": 1, "h": 60, "d": 1440}
_SLURM_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")
_MEMORY = re.compile(r"(\d+)\s*([KMGT])B?", re.IGNORECASE)
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_OWN = ("array", "job-name", "output", "error", "signal", "open-mode", "wrap", "chdir")
"""Options of sbatch that are benchkit's own business."""


@dataclass(frozen=True)
class SlurmSettings:
    """time: minutes. memory: as Slurm writes it, `32G`. gpus: a number, or `a100:2`. setup: shell lines before the job.

    max_running: jobs at once, None for no limit. max_timeouts: how often a job that met its time limit is queued again.
    signal: seconds before the limit at which it is told, 0 for never. python: the command for Python on the nodes,
    where it is not this one (in a container, say). extra: other options of sbatch; the value "" is a flag.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int = 240
    memory: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    setup: tuple[str, ...] = ()
    max_running: int | None = None
    max_timeouts: int = 10
    signal: int = 120
    python: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def slurm_settings(flags: Sequence[str] = (), sweep: Path | None = None) -> SlurmSettings:
    """The three sources as one. flags: each `KEY=VALUE`. Raises BenchkitError, naming source, key and value."""
    merged: dict[str, Any] = {}
    merge(merged, read_config().get("slurm", {}), "configuration, [slurm]")
    if sweep is not None:
        table = read_toml(sweep, "sweep file").get("slurm", {})
        if not isinstance(table, dict):
            raise BenchkitError(f"sweep file '{sweep}': slurm must be a table, [slurm]")
        merge(merged, table, f"sweep file '{sweep}', [slurm]")
    given: dict[str, Any] = {}
    for flag in flags:
        key, equals, value = flag.partition("=")
        if key == "setup":
            given.setdefault("setup", []).append(value)
        else:
            given[key] = value if equals else ""
    merge(merged, given, "--slurm")
    return SlurmSettings(**merged)


def merge(into: dict[str, Any], table: Mapping[str, Any], where: str) -> None:
    """Checks `table` and lets its keys win over those of `into`. Raises BenchkitError."""
    known = {f.name for f in fields(SlurmSettings)} - {"extra"}
    extra = dict(into.get("extra", {}))
    for key, value in table.items():
        name = key.replace("-", "_")
        try:
            if name in known:
                into[name] = _READ.get(name, _text)(value)
            else:
                option = key.replace("_", "-")
                if not _OPTION.fullmatch(option):
                    raise ValueError("is no option of sbatch")
                if option in _OWN:
                    raise ValueError("is set by benchkit itself")
                extra[option] = "" if value is True else _text(value)
        except ValueError as e:
            raise BenchkitError(f"{where}: {key} = {value!r} {e}") from None
    into["extra"] = extra


def minutes(given: Any) -> int:
    """A time as people write it (90, `90m`, `8h`, `2d`) or Slurm does (`MM:SS`, `HH:MM:SS`, `D-HH:MM:SS`), rounded up
    to minutes. Raises ValueError."""
    text = str(given).strip().lower()
    if match := re.fullmatch(r"(\d+)\s*(m|min|h|d)", text):
        total = int(match[1]) * _UNITS[match[2]] * 60
    elif (match := _SLURM_TIME.fullmatch(text)) and not isinstance(given, bool):
        days, a, b, c = (int(match[g]) if match[g] else 0 for g in ("days", "a", "b", "c"))
        if match["days"]:  # D-HH[:MM[:SS]]
            total = ((days * 24 + a) * 60 + b) * 60 + c
        else:  # MM, MM:SS or HH:MM:SS
            total = a * 3600 + b * 60 + c if match["c"] else a * 60 + b
    else:
        raise ValueError("is no time: write minutes, or as in 8h, 2d, 1-12:00:00")
    if total <= 0:
        raise ValueError("is no time to run in")
    return -(-total // 60)


def _memory(given: Any) -> str:
    match = _MEMORY.fullmatch(str(given).strip())
    if not match:
        raise ValueError("is no amount of memory: write it with its unit, as in 32G")
    return f"{match[1]}{match[2].upper()}"


def _count(least: int) -> Any:
    def read(given: Any) -> int:
        text = str(given)
        if isinstance(given, bool) or not re.fullmatch(r"\d+", text) or int(text) < least:
            raise ValueError(f"must be a whole number, {least} or more")
        return int(text)

    return read


def _setup(given: Any) -> tuple[str, ...]:
    lines = [given] if isinstance(given, str) else given
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError("must be one or a list of shell lines")
    return tuple(lines)


def _text(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float) or "\n" in str(given):
        raise ValueError("must be a string or a number")
    return str(given)


_READ: dict[str, Any] = {
    "time": minutes,
    "memory": _memory,
    "cpus": _count(1),
    "setup": _setup,
    "max_running": _count(1),
    "max_timeouts": _count(0),
    "signal": _count(0),
}
