"""A run's predictions as the bytes of a Parquet file: every test example's id, fold, label, scores, and group."""

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from benchkit.interfaces import Labels


def as_parquet(
    ids: Sequence[str],
    folds: Int[np.ndarray, " N"],
    labels: Labels,
    scores: Float32[np.ndarray, "N C"],
    classes: Sequence[str],
    run: str,
    groups: Sequence[str] | None = None,
) -> bytes:
    """Columns id, fold, label (a class's number, or the numbers of all), scores and, where the task says so, the group
    that the example is of (its recording, say); `benchkit.Results` reads them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(values: np.ndarray, dtype: type) -> pa.Array:
        # Not pa.array, which imports pandas, where that is installed, to see whether this is a Series: half a second.
        plain: np.ndarray = np.ascontiguousarray(values, dtype)
        return pa.Array.from_buffers(pa.from_numpy_dtype(plain.dtype), len(plain), [None, pa.py_buffer(plain)])

    def ends(lengths: Sequence[int] | Int[np.ndarray, " n"]) -> np.ndarray:
        return np.cumsum([0, *lengths], dtype=np.int32)

    def texts(values: Sequence[str]) -> pa.Array:
        encoded = [value.encode() for value in values]
        offsets = ends([len(value) for value in encoded])
        return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))

    if labels.ndim == 1:
        truth = column(labels, np.int64)
    else:
        rows, numbers = np.nonzero(labels)
        per_row = ends(np.bincount(rows, minlength=len(labels)))
        truth = pa.ListArray.from_arrays(column(per_row, np.int32), column(numbers, np.int32))
    columns = {
        "id": texts(ids),
        "fold": column(folds, np.int32),
        "label": truth,
        "scores": pa.FixedSizeListArray.from_arrays(column(scores.reshape(-1), np.float32), scores.shape[1]),
    }
    if groups is not None:
        columns["group"] = texts(groups)
    table = pa.Table.from_arrays(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    metadata = {"classes": json.dumps(list(classes)), "run": run}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def answers_as_parquet(
    ids: Sequence[str],
    folds: Int[np.ndarray, " N"],
    table: Float32[np.ndarray, "N K"],
    columns: Sequence[str],
    run: str,
) -> bytes:
    """Of a question without a probe: columns id, fold, and one for each of `columns`, null where an example was not
    asked about."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = {"id": pa.array(list(ids), pa.string()), "fold": pa.array(folds.tolist(), pa.int32())}
    for name, values in zip(columns, table.T, strict=True):
        missing = np.isnan(values)
        made[name] = pa.array(np.where(missing, np.float32(0), values).tolist(), pa.float32(), mask=missing)
    found = pa.Table.from_arrays(list(made.values()), names=list(made))
    sink = pa.BufferOutputStream()
    pq.write_table(found.replace_schema_metadata({"run": run}), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
