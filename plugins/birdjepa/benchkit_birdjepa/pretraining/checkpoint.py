"""Checkpoints: folders `step-00001000` that are there whole or not at all.

    config.json  model.safetensors    the encoder, as the backbone `birdjepa:FOLDER` reads it (or its average, the EMA)
    state.safetensors                 parameters, moments, counts, keys, probe, guard: every array by its name
    training.json                     step, settings, norms, what did not decode, devices and versions

The arrays are copied once, from the device to the host (on a CPU to other memory: the next step reuses its own); a
thread then writes those copies as they lie. safetensors and not orbax: one flat format for the encoder and its
training, which any tool reads, and a folder that is renamed into place needs no more than the file system.
"""

import json
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import numpy as np

from benchkit import BenchkitError, atomic_file, make_folder, move_file, remove_folder, scratch_folder, sync_folder
from benchkit_birdjepa.config import CONFIG, WEIGHTS, EncoderConfig, write_config

STATE, RECORD = "state.safetensors", "training.json"
_STEP = re.compile(r"step-(\d{8,})")
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int8": "I8", "uint8": "U8",
    "uint32": "U32", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip


def write_safetensors(f: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """The format of safetensors, from the arrays' own memory: its package would copy each once more."""
    header: dict[str, Any] = {}
    at = 0
    # the widest first, so that each begins where its type may begin
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, x in ordered:
        header[name] = {"dtype": _DTYPES[x.dtype.name], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    f.write(len(text).to_bytes(8, "little") + text)
    for _, x in ordered:
        f.write(memoryview(np.ascontiguousarray(x).reshape(-1).view(np.uint8)))


def norms(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of each array of numbers, in float64: exact enough that a wrong restoration shows, whatever the order of sums."""
    return {
        name: float(np.sqrt(np.square(x.astype(np.float64)).sum()))
        for name, x in arrays.items()
        if np.issubdtype(x.dtype, np.floating)
    }


@dataclass(frozen=True)
class Saved:
    """A checkpoint in memory. record: what training.json holds."""

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]

    def check(self, restored: Mapping[str, np.ndarray], where: Path) -> None:
        """Raises BenchkitError where what arrived on the devices is not what was saved."""
        for name, norm in norms(restored).items():
            saved = self.record["norms"][name]
            if not math.isclose(norm, saved, rel_tol=1e-6, abs_tol=1e-12):
                raise BenchkitError(f"'{where}': {name} was restored with a norm of {norm:g}, and saved with {saved:g}")


class Checkpoints:
    """Those of one training. Writing goes on in a thread; `wait` before the process ends."""

    def __init__(self, folder: Path, keep: int, keep_every: int | None) -> None:
        self.folder, self._keep, self._keep_every = folder, keep, keep_every
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.held: set[int] = set()
        """Steps that somebody reads now, and that stay."""

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Of what is there whole, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_STEP.fullmatch(p.name) for p in self.folder.iterdir() if not p.is_symlink())
        return sorted(int(m[1]) for m in found if m)

    def save(
        self, step: int, arrays: dict[str, np.ndarray], model: dict[str, np.ndarray], config: EncoderConfig,
        record: dict[str, Any],
    ) -> None:  # fmt: skip
        """Begins to write; waits for the one before. arrays, model: copies on the host that nobody changes. Raises
        what the one before met."""
        self.wait()
        self._thread = threading.Thread(
            target=self._guarded, args=(step, arrays, model, config, record), name="benchkit-checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Until all is written. Raises BenchkitError where it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, OSError):
                raise BenchkitError(
                    f"a checkpoint cannot be written: {error.filename or self.folder}: {error.strerror}"
                )
            raise error

    def _guarded(self, *given: Any) -> None:
        try:
            self._write(*given)
            self._tidy()
        except BaseException as e:  # noqa: BLE001  (it is raised where the training waits)
            self._error = e

    def _write(
        self, step: int, arrays: dict[str, np.ndarray], model: dict[str, np.ndarray], config: EncoderConfig,
        record: dict[str, Any],
    ) -> None:  # fmt: skip
        text = json.dumps(record | {"step": step, "norms": norms(arrays)}, indent=1, sort_keys=True)
        make_folder(self.folder)
        with scratch_folder(self.folder, ".step-") as (part, _):
            for name, write in (
                (CONFIG, lambda f: f.write(write_config(config).encode())),
                (WEIGHTS, lambda f: write_safetensors(f, model)),
                (STATE, lambda f: write_safetensors(f, arrays)),
                (RECORD, lambda f: f.write(text.encode())),
            ):
                with atomic_file(part / name, part) as f:
                    write(f)
            if step in self.steps():  # the same step again, after a return to an earlier one
                self._remove(self.path(step))
            move_file(part, self.path(step), self.folder)
            sync_folder(self.folder)

    def _remove(self, path: Path) -> None:
        """First to a name that no step has: half a checkpoint is none."""
        gone = self.folder / f".gone-{token_hex(16)}.part"
        move_file(path, gone, self.folder)
        remove_folder(gone, self.folder)

    def _tidy(self) -> None:
        """What need not stay, and what killed writers have left."""
        steps = self.steps()
        for step in steps[: -self._keep]:
            if step in self.held or (self._keep_every and step % self._keep_every == 0):
                continue
            self._remove(self.path(step))
        for rest in sorted(self.folder.glob(".*.part")):
            remove_folder(rest, self.folder)

    def last(self) -> tuple[int, Saved] | None:
        """The newest. Raises BenchkitError where it is damaged: to go on from an older one would be a silent loss."""
        steps = self.steps()
        return (steps[-1], read_checkpoint(self.path(steps[-1]))) if steps else None


def read_checkpoint(folder: Path) -> Saved:
    """Raises BenchkitError, in one line, where the folder is no checkpoint or is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        arrays = load_file(folder / STATE)
    except FileNotFoundError as e:
        raise BenchkitError(f"'{folder}' is no checkpoint of a training: it holds no {Path(e.filename).name}") from None
    except (OSError, ValueError, SafetensorError) as e:
        raise BenchkitError(
            f"checkpoint '{folder}' is damaged ({e}): remove it, and the one before it counts"
        ) from None
    if not isinstance(record, dict) or not {"step", "norms", "settings"} <= record.keys():
        raise BenchkitError(f"checkpoint '{folder}' is damaged: its {RECORD} describes no training")
    return Saved(arrays, record)
