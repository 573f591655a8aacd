"""A decoding worker: a process that loads media and runs a backbone's `preprocess`, and nothing else.

It is a plain subprocess that speaks pickle over its standard input and output, not one of multiprocessing: it does not
import the user's main script again, needs no semaphores or helper process, and knows that its parent is gone, however
that came about, by the end of its input. Arrays go back through one file in memory that all workers share.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.errors import BenchkitError, MediaError, PluginError
from benchkit.interfaces import Backbone, Example, Precomputed
from benchkit.machine.trouble import MachineError, Trouble, explained, trouble_of
from benchkit.media.decode import Audio, Media, content_hash
from benchkit.media.notes import with_notes

ALIGN = 64
"""Arrays begin at multiples of this, in bytes."""


@dataclass(frozen=True)
class Hello:
    """The first message to a worker. made_of: pickled (class, params) of the backbone."""

    memory: int
    made_of: bytes


@dataclass(frozen=True)
class Chunk:
    """Examples to prepare. offset: where in the shared file the arrays go."""

    offset: int
    examples: Sequence[tuple[str, Media]]


@dataclass(frozen=True)
class Item:
    """One prepared example: its array, as dtype and shape, or why it does not decode."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    media: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Failure:
    """An exception that ends the run."""

    error: BaseException


def prepare(backbone: Backbone, name: str, media: Media) -> tuple[np.ndarray, int]:
    """The preprocessed array, and the hash of the decoded media with its notes (benchkit.media.notes).

    name: the example's id, for errors. Raises MediaError where the example does not decode, MachineError where it is
    the machine that could not read it (no example is left out for that); what else is raised is raised as it is, with
    the id.
    """
    try:
        if isinstance(media, Audio):
            if backbone.sample_rate is None:
                raise PluginError(f"backbone {type(backbone).__name__} has no sample_rate, and the task has audio")
            seconds = backbone.seconds
            decoded = media.decode(backbone.sample_rate, None if seconds is None else float(seconds))
        else:
            decoded = media.decode()
        seen = with_notes(content_hash(decoded.raw), decoded.notes)  # before a preprocess that works in place
        array = backbone.preprocess(decoded.raw)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
            raise PluginError(f"{type(backbone).__name__}.preprocess gave a {type(array).__name__}, not a plain array")
        return array, seen
    except MediaError as e:
        if found := trouble_of(e) or _cannot_open(media):
            raise MachineError(f"example '{name}': {found}", found.reason) from e
        raise
    except BenchkitError as e:
        e.args = (f"example '{name}': {e}", *e.args[1:])
        raise
    except Exception as e:
        e.add_note(f"while preparing example '{name}'")
        raise


def looked_up(backbone: Precomputed, split: str, example: Example) -> tuple[np.ndarray, int]:
    """As `prepare`, of a backbone that decodes nothing; the hash is of the features themselves."""
    array = np.ascontiguousarray(backbone.look_up(split, example), np.float32)
    if array.shape != (backbone.dim,):
        raise PluginError(f"{type(backbone).__name__}.look_up gave {list(array.shape)}, and dim is {backbone.dim}")
    return array, with_notes(content_hash(array), 0)


def _cannot_open(media: Media) -> Trouble | None:
    """A library may only say "System error" where too many files are open already."""
    if not isinstance(media.source, Path):
        return None
    try:
        with media.source.open("rb"):
            return None
    except OSError as e:
        return trouble_of(e)


def main() -> None:
    """Runs until the input ends. What anything else prints to the standard output goes to the standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    tasks_in, replies_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
    try:
        hello: Hello = pickle.load(tasks_in)
    except EOFError:  # the parent ended before it had begun
        return
    threading.Thread(target=_read_tasks, args=(tasks_in, tasks), daemon=True).start()
    backbone: Backbone | Failure
    try:
        cls, params = pickle.loads(hello.made_of)
        backbone = cls(params)
    except BaseException as e:  # noqa: BLE001 - it is raised in the parent, whatever it is
        backbone = failed(e)
    while True:
        chunk = tasks.get()
        reply = backbone if isinstance(backbone, Failure) else _prepare_chunk(backbone, chunk, hello.memory)
        try:
            pickle.dump(reply, replies_out, protocol=5)
            replies_out.flush()
        except BrokenPipeError:
            os._exit(0)


def _read_tasks(tasks_in: Any, tasks: "queue.SimpleQueue[Chunk]") -> None:
    """In a thread of its own, so that a worker ends with its parent even in the middle of its work."""
    while True:
        try:
            tasks.put(pickle.load(tasks_in))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _prepare_chunk(backbone: Backbone, chunk: Chunk, memory: int) -> "list[Item] | Failure":
    items: list[Item] = []
    at = chunk.offset
    try:
        for name, media in chunk.examples:
            try:
                array, seen = prepare(backbone, name, media)
            except MediaError as e:
                items.append(Item(error=str(e)))
                continue
            at = _write(memory, np.asarray(array, order="C"), at)
            items.append(Item(array.dtype.str, array.shape, seen))
    except BaseException as e:  # noqa: BLE001 - it is raised in the parent, whatever it is
        return failed(e)
    return items


def _write(memory: int, array: np.ndarray, at: int) -> int:
    """Where the next array begins."""
    if array.size:
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            done += os.pwrite(memory, view[done:], at + done)
    return aligned(at + array.nbytes)


def aligned(at: int) -> int:
    return -(-at // ALIGN) * ALIGN


def failed(error: BaseException) -> Failure:
    """The exception with its traceback as a note, as far as it can be pickled."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, BenchkitError):  # what it was raised from is not pickled
        reason, why = explained(error)
        error = error if reason == error.reason else MachineError(why, reason)
    elif found := trouble_of(error):
        error = MachineError(f"in a decoding worker: {found}", found.reason)
    error.add_note(f"in a decoding worker:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception's own __init__ or __reduce__ may raise anything
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(f"in a decoding worker:\n{text}")
    return Failure(error)


if __name__ == "__main__":
    sys.exit("this runs as a worker of benchkit.features.pool")
