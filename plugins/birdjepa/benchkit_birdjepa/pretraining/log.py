"""metrics.jsonl: a line for each step that was logged, of the training that counts: what was written after the
checkpoint that a resumed run goes on from is taken back, so that no line is doubled or missing."""

import json
import math
from pathlib import Path
from typing import Any

from benchkit import append_file, atomic_file

Row = tuple[int, str, float]


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """All that was logged; a last line that was cut off does not count."""
        found: list[Row] = []
        if not self.path.exists():
            return found
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found += [(record["step"], k, float(v)) for k, v in record.items() if k != "step"]
        return found

    def rewind(self, step: int) -> None:
        """Takes back all beyond this step."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue
        with atomic_file(self.path) as f:
            f.write("".join(kept).encode())

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Numbers that are not finite are left out: a registry holds none."""
        finite = {k: float(v) for k, v in values.items() if math.isfinite(float(v))}
        with append_file(self.path) as f:
            f.write((json.dumps({"step": step, **finite}) + "\n").encode())
