"""The parquet files of one data set: in a folder, or on the hub."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from benchkit import DataError, Hub, fingerprint, fingerprint_path, local_path

SPLITS = ("train", "valid", "test", "train_low")
PLACE = tuple(f"**/{split}-*.parquet" for split in SPLITS)


@dataclass(frozen=True)
class Rows:
    """One split without its audio. groups: (file, row group, first row, rows). columns: all but the audio's bytes."""

    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    classes: dict[str, tuple[str, ...]]
    groups: tuple[tuple[str, int, int, int], ...]


class Source:
    """Of `repo`: a folder with the files, or a repository's name."""

    def __init__(self, repo: str, revision: str | None, name: str) -> None:
        self.folder = local_path(repo)
        instead = f"copy it where there is one (benchkit fetch --task {name} --to DIR) and run {name},repo=DIR"
        self.hub = Hub(repo, "dataset", revision, instead)
        self.name = str(self.folder or self.hub)

    @cached_property
    def listing(self) -> dict[str, Any]:
        if self.folder:
            found = sorted(p for p in self.folder.rglob("*.parquet"))
            return {p.relative_to(self.folder).as_posix(): p for p in found}
        return {f.path: f for f in self.hub.files() if f.path.endswith(".parquet")}

    def files(self, split: str) -> list[str]:
        """Raises DataError where there are none."""
        found = [name for name in self.listing if PurePath(name).name.startswith(f"{split}-")]
        if not found:
            raise DataError(f"{self.name} holds no {split}-*.parquet")
        return sorted(found)

    def open(self, name: str) -> Any:
        return self.hub.open(self.listing[name]) if not self.folder else str(self.listing[name])

    def fingerprint(self) -> str:
        if self.folder:
            return fingerprint_path(self.folder, PLACE)
        return fingerprint(sorted((f.path, f.checksum.partition(":")[2]) for f in self.listing.values()))

    def read(self, split: str, wanted: Sequence[str]) -> Rows:
        """Raises DataError where a column is missing, or a file does not read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names: list[str] = []
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        classes: dict[str, tuple[str, ...]] = {}
        groups: list[tuple[str, int, int, int]] = []
        for path in self.files(split):
            try:
                file = pq.ParquetFile(self.open(path))
                there = file.schema_arrow.names
                if missing := [c for c in ("path", *wanted) if c not in there]:
                    raise DataError(f"'{path}' of {self.name} has no column {missing[0]}: it has {', '.join(there)}")
                table = file.read(columns=["path.path", *wanted])
                sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
                classes = _classes(file.schema_arrow.metadata) or classes
            except (pa.ArrowException, OSError) as e:
                raise DataError(f"'{path}' of {self.name} does not read as parquet: {e}") from e
            for g, n in enumerate(sizes):
                groups.append((path, g, len(names) + sum(sizes[:g]), n))
            names += [PurePath(p["path"] or "").name if p else "" for p in table.column("path").to_pylist()]
            for name in wanted:
                columns[name] += table.column(name).to_pylist()
        return Rows(tuple(names), columns, classes, tuple(groups))

    def audio(self, rows: Rows, wanted: Sequence[int]) -> Iterator[bytes]:
        """The bytes of these rows, in their order; a row group is read once for neighbours."""
        import pyarrow.parquet as pq

        held: tuple[Any, ...] | None = None
        data: list[Any] = []
        for row in wanted:
            group = next(g for g in rows.groups if g[2] <= row < g[2] + g[3])
            if group != held:
                table = pq.ParquetFile(self.open(group[0])).read_row_group(group[1], columns=["path.bytes"])
                held, data = group, table.column("path").combine_chunks().field("bytes")
            found = data[row - group[2]].as_py()
            if found is None:
                raise DataError(f"'{group[0]}' of {self.name} holds no audio for row {row}, only its name")
            yield found


def _classes(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Names of ClassLabels, as the `datasets` library writes them: of the column `label`, or within `annotations`."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError):
        return {}

    def look(node: Any) -> tuple[str, ...] | None:
        if isinstance(node, dict):
            if isinstance(node.get("names"), list):
                return tuple(map(str, node["names"]))
            return next((found for child in node.values() if (found := look(child))), None)
        return next((f for child in node if (f := look(child))), None) if isinstance(node, list) else None

    return {name: found for name in ("label", "annotations") if (found := look(features.get(name)))}
