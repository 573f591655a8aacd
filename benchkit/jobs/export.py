"""A model's features of a task's examples, as a table that any program reads, and `vectors:` too."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchkit.catalog.resolve import resolve
from benchkit.errors import DataError, did_you_mean, require
from benchkit.interfaces import Example
from benchkit.jobs.data import JobData
from benchkit.jobs.job import JobOptions
from benchkit.machine.files import writing
from benchkit.media.decode import Audio
from benchkit.progress import Progress

BATCH = 8192
"""Rows of a row group."""


def export(
    task: str, model: str, to: Path, options: JobOptions, progress: Progress, splits: Sequence[str] = ()
) -> dict[str, int]:
    """Writes the features of every example of these splits (by default, those that the task's folds use) to `to`.

    A Parquet file with the columns split, id, file (null where an example is no file), start and end (seconds; null
    for images, end also where it is the file's), label (names of the classes, a list), vector (float32). What does not
    decode is left out, as `skip_bad` allows. How many rows of each split. The file is whole or is not there.
    """
    require("pyarrow", "benchkit-core")
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = JobData.open(resolve("task", task), resolve("model", model), options, progress)
    for split in splits:
        if split not in data.labels:
            raise DataError(f"the folds of {task} use no split '{split}'{did_you_mean(split, data.labels)}")
    chosen = tuple(dict.fromkeys(splits)) or tuple(data.labels)
    dim = data.extract_all(chosen[0]).shape[1]
    schema = pa.schema([
        ("split", pa.string()), ("id", pa.string()), ("file", pa.string()), ("start", pa.float64()),
        ("end", pa.float64()), ("label", pa.list_(pa.string())), ("vector", pa.list_(pa.float32(), dim)),
    ], metadata={"benchkit": f"features of {data.task_spec.canonical} by {data.model_spec.canonical}"})  # fmt: skip
    counts: dict[str, int] = {}
    with writing(to.absolute()) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for split in chosen:
            data.extract_all(split)
            rows = np.flatnonzero(data.valid(split))
            counts[split] = len(rows)
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                found = {e.index: e for e in data.task.examples(split, some.tolist())}
                columns = [_columns(data, split, row, found[row]) for row in some.tolist()]
                vectors = pa.array(data.pooled(split, some).reshape(-1), pa.float32())
                lists = pa.FixedSizeListArray.from_arrays(vectors, dim)
                named = [pa.array([c[i] for c in columns], schema.field(i).type) for i in range(len(schema) - 1)]
                writer.write_table(pa.Table.from_arrays([*named, lists], schema=schema))
    return counts


def _columns(data: JobData, split: str, row: int, example: Example) -> tuple[object, ...]:
    media, labels = example.media, data.labels[split][row]
    start = end = None
    if isinstance(media, Audio):
        start = media.start
        end = None if media.duration is None else media.start + media.duration
    numbers = [int(labels)] if np.ndim(labels) == 0 else np.flatnonzero(labels).tolist()
    file = str(media.source) if isinstance(media.source, Path) else None
    return split, example.id, file, start, end, [data.problem.classes[i] for i in numbers]
