"""The user's own defaults: ~/.config/benchkit/config.toml, or the file that BENCHKIT_CONFIG names."""

import os
import tomllib
from pathlib import Path
from typing import Any

from benchkit.errors import BenchkitError, did_you_mean
from benchkit.machine.home import expanded, has_home

TABLES = ("slurm",)
"""What the file may hold: `[slurm]`, see benchkit.dispatch.slurm.settings."""


def config_path() -> Path | None:
    """Where the file is, or would be; None for a user without a home."""
    if given := os.environ.get("BENCHKIT_CONFIG"):
        return expanded(given)
    import platformdirs

    return Path(platformdirs.user_config_dir("benchkit")) / "config.toml" if has_home() else None


def read_config() -> dict[str, dict[str, Any]]:
    """Its tables; none where there is no file. Raises BenchkitError where it cannot be read or holds something else."""
    path = config_path()
    if path is None or not path.exists():
        return {}
    document = read_toml(path, "configuration")
    for key, table in document.items():
        if key not in TABLES or not isinstance(table, dict):
            raise BenchkitError(
                f"configuration '{path}': '{key}' is no table that benchkit knows{did_you_mean(key, TABLES)} "
                f"(known: {', '.join(f'[{t}]' for t in TABLES)})"
            )
    return document


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """A byte order mark, as some editors write, is passed over. Raises BenchkitError in one line; what: for it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise BenchkitError(f"cannot read the {what} '{path}': {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise BenchkitError(f"{what} '{path}' is no TOML: {e}") from e
