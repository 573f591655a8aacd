"""Recording: a backbone over rows of a split of a task, its activations at named places to files.

recording = record("esc50,root=DIR", "bird-mae", ["blocks.11.norm2"], Path("activations"), limit=100)
"""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Int64

from benchkit.activations.moments import Moments
from benchkit.activations.recording import Recording
from benchkit.activations.rounding import Rounding
from benchkit.activations.shards import FORMAT, SHARD_BYTES, Identity, Shard, ShardWriter, point_folder
from benchkit.activations.stream import check_points, prefix_tokens, stream_points
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Spec
from benchkit.errors import BenchkitError, StoreError
from benchkit.features import Options, set_up
from benchkit.features.lock import holder, try_lock
from benchkit.interfaces import Backbone, Modality, Task
from benchkit.machine import files
from benchkit.machine.files import write_atomic
from benchkit.machine.seeds import Purpose, generator
from benchkit.media.fingerprint import cache_dir, fingerprint
from benchkit.progress import Progress, Silent


def record(
    task: Spec | str,
    model: Spec | str,
    points: Sequence[str],
    to: Path,
    *,
    split: str = "train",
    rows: Int[np.ndarray, " n"] | None = None,
    limit: int | None = None,
    seed: int = 0,
    dtype: Literal["float16", "float32"] = "float32",
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    skip_bad: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Recording:
    """Records the points, all in one pass, into the folder `to`, and opens what is there.

    points: names of `Backbone.points()`; 'tokens' is the backbone's own tokens. rows: of the split; None is all of
    them. limit: so many of the rows, drawn with `seed`; a smaller draw is part of a larger one. dtype: as they are
    stored; float16 is half as large, and what it loses of each dimension is kept (`RecordedPoint.lost`). shard_bytes:
    about the size of a shard, which is what a kill can cost for each point.

    The folder is made where it is missing. Where it holds the same recording, finished shards and points are kept and
    the rest is recorded; points can be added later. Raises StoreError where it is of another recording or another
    process is writing it, DataError where float16 does not hold a value, BenchkitError for a point that there is not,
    and what extraction raises.
    """
    progress = progress or Silent()
    task = resolve("task", task) if isinstance(task, str) else task
    model = resolve("model", model) if isinstance(model, str) else model
    source: Task = task.build()
    backbone: Backbone = model.build()
    points = tuple(dict.fromkeys(points))
    if not points:
        raise BenchkitError("no point to record: name one, as in --point blocks.11.norm2 (or 'tokens')")
    ids = source.ids(split)
    if rows is not None and len(rows) and not 0 <= min(rows) <= max(rows) < len(ids):
        raise BenchkitError(f"split '{split}' has rows 0 to {len(ids) - 1}, and {min(rows)} to {max(rows)} are not")
    chosen = choose_rows(len(ids), rows, limit, seed)
    weights = set_up(backbone, device)
    check_points(backbone, points)
    names = fingerprint([ids[row] for row in chosen.tolist()])
    identity = Identity(
        FORMAT, task.canonical, model.canonical, split, names, len(chosen), source.fingerprint(), weights, dtype
    )
    try:
        files.make_folder(to)
    except OSError as e:
        raise StoreError(f"cannot make the folder '{to}': {e.strerror}") from e
    lock = try_lock(to)
    if lock is None:
        raise StoreError(f"'{to}' is being recorded by {holder(to)}: wait for it, or choose another folder")
    options = Options(cache_dir() / "features", device, batch_size, workers, skip_bad)
    with lock, ExitStack() as stack:
        identity.claim(to)
        writers = {
            point: stack.enter_context(ShardWriter(to, point, dtype, ids, prefix_tokens(backbone, point), shard_bytes))
            for point in points
            if not (point_folder(to, point) / "metadata.json").exists()
        }
        missing = sorted({row for w in writers.values() for row in set(chosen.tolist()) - w.done})
        if missing:
            rest = np.array(missing, np.int64)
            with closing(
                stream_points(source, backbone, split, rest, tuple(writers), options, progress, task.name, len(chosen))
            ) as stream:
                for batch in stream:
                    for point, writer in writers.items():
                        writer.write(batch.rows, batch.activations[point])
        for point, writer in writers.items():
            writer.close()
            skipped = {ids[row]: row for row in chosen.tolist() if row not in writer.done}
            layout = described(backbone, source.modality, point, writer.shards[0]) if writer.shards else None
            _conclude(to, point, identity, writer.shards, skipped, prefix_tokens(backbone, point), layout)
    return Recording.open(to)


def choose_rows(n: int, rows: Int[np.ndarray, " n"] | None, limit: int | None, seed: int) -> Int64[np.ndarray, " m"]:
    """Ascending, each once. Raises BenchkitError for a limit below 1, or where there is no row."""
    chosen = np.unique(np.arange(n) if rows is None else rows).astype(np.int64)
    if limit is not None and limit < 1:
        raise BenchkitError(f"--limit {limit} is no number of examples: give 1 or more")
    if not len(chosen):
        raise BenchkitError("there is no example to record")
    if limit is None or limit >= len(chosen):
        return chosen
    return np.sort(generator(seed, Purpose.RECORDED).permutation(chosen)[:limit])


def described(backbone: Backbone, modality: Modality, point: str, shard: Shard) -> dict[str, Any] | None:
    """What the backbone says of where its patches lie (`Layout`), as JSON takes it; None where it says nothing, or
    speaks of another number of patches than this point has."""
    layout = backbone.layout(modality)
    if layout is None or math.prod(layout.grid) != shard.tokens - prefix_tokens(backbone, point):
        return None
    return asdict(layout)


def _conclude(
    root: Path, point: str, identity: Identity, shards: Sequence[Shard], skipped: dict[str, int], prefix: int,
    layout: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes metadata.json, with which the point is whole, and removes the shards' own records."""
    folder = point_folder(root, point)
    merged: dict[str, Moments | None] = {"prefix": None, "patches": None}
    for shard in shards:
        for part in merged:
            found, before = getattr(shard, part), merged[part]
            merged[part] = before + found if before and found else found
    rounding: Rounding | None = None
    for shard in shards:
        if shard.rounding:
            rounding = rounding + shard.rounding if rounding else shard.rounding
    plain = [{"file": s.file, "examples": len(s.rows), "sha256": s.sha256} for s in shards]
    metadata = {
        "format": FORMAT,
        "task": identity.task,
        "model": identity.model,
        "split": identity.split,
        "point": point,
        "data_fingerprint": identity.data,
        "model_fingerprint": identity.weights,
        "dtype": identity.dtype,
        "examples": sum(len(s.rows) for s in shards),
        "tokens": shards[0].tokens,
        "dim": shards[0].dim,
        "prefix_tokens": prefix,
        "real_tokens": [n for s in shards for n in s.real or [s.tokens - prefix] * len(s.rows)],
        "layout": layout,
        "shards": plain,
        "skipped": skipped,
        "rows": [row for s in shards for row in s.rows],
        "ids": [name for s in shards for name in s.ids],
        "statistics": {part: m.to_record() if m else None for part, m in merged.items()},
        "rounding": rounding.to_record() if rounding else None,
        "lost": {str(dim): share for dim, share in rounding.lost.items()} if rounding else {},
    }
    write_atomic(folder / "metadata.json", json.dumps(metadata).encode())
    for shard in shards:
        files.remove((folder / shard.file).with_suffix(".json"), root)
