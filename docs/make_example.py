"""Makes registry.sqlite.example: the README's quick start, run for real, as one SQLite file.

uv run python docs/make_example.py
"""

import shlex
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "registry.sqlite.example"


def quick_start() -> list[list[str]]:
    """The README's `benchkit run` commands that compute something."""
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line.rpartition("uv run benchkit ")[2] for line in lines if "uv run benchkit run " in line]
    return [shlex.split(command) for command in commands if "--dry-run" not in command]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry.sqlite"
        for command in quick_start():
            benchkit = [sys.executable, "-m", "benchkit", *command]
            subprocess.run([*benchkit, "--db", registry.name], check=True, cwd=folder)
        EXAMPLE.unlink(missing_ok=True)
        with sqlite3.connect(registry) as db:
            db.execute("VACUUM INTO ?", (str(EXAMPLE),))
    EXAMPLE.chmod(0o644)


if __name__ == "__main__":
    main()
