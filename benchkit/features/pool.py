"""The pool of decoding workers, seen from the main process: examples go in, prepared examples come out in order.

One thread reads the task's stream and hands out chunks, and one thread for each worker sends a chunk and waits for its
reply; Python's lock is free while they wait. Chunks write their arrays into places of one file in memory, which has no
name in any file system and so cannot be left behind. Nothing that a worker holds has to outlive it: to stop, they are
killed.
"""

import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from types import TracebackType
from typing import Any

import numpy as np

from benchkit.errors import BenchkitError
from benchkit.features.worker import Chunk, Failure, Hello, Item, aligned
from benchkit.interfaces import Backbone, Example
from benchkit.machine import cpus

STRIDE = 1 << 36
"""Between the places of two chunks in the shared file, in bytes. It is sparse: what is not written takes nothing."""
BUDGET = 1 << 30
"""Bytes of prepared arrays that may wait in the shared file."""

_START = "import sys; sys.path[:] = sys.argv[1:]; from benchkit.features.worker import main; main()"


@dataclass(frozen=True)
class Prepared:
    """One example, ready for a batch: the preprocessed array, or why it does not decode."""

    row: int
    id: str
    array: np.ndarray | None = None
    media: int = 0
    error: str | None = None


@dataclass(frozen=True)
class _Reply:
    slot: int
    examples: list[Example]
    items: list[Item]


def made_of(backbone: Backbone) -> bytes | None:
    """What a worker builds the backbone from, or None where another process cannot import its class."""
    if "__main__" in (type(backbone).__module__, type(backbone.params).__module__):
        return None
    try:
        return pickle.dumps((type(backbone), backbone.params), protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


class Pool:
    """Use it in a `with`: on the way out, all workers are gone and waited for."""

    def __init__(self, backbone: Backbone, workers: int) -> None:
        recipe = made_of(backbone)
        if recipe is None:
            raise BenchkitError(
                f"backbone {type(backbone).__name__} is defined where a worker process cannot import it "
                f"({type(backbone).__module__}): put it into a module, or use --workers 0"
            )
        self._change = threading.Condition()
        self._replies: dict[int, _Reply | Failure] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._handed_out: int | None = None  # how many chunks there are, once that is known
        self._slots: list[int] = []
        self._in_flight = 0
        self._chunk_bytes = 0
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[tuple[int, int, list[Example]] | None] = queue.SimpleQueue()
        self._memory = _memory_file()
        self._hello = Hello(self._memory.fileno(), recipe)
        self._workers: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(workers):
                self._workers.append(_start(self._memory.fileno()))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(timeout=5)  # only a task that is slow to read its own files can need longer
        for worker in self._workers:
            for pipe in (worker.stdin, worker.stdout):
                with suppress(OSError):  # a message that was under way when its worker was killed
                    if pipe:
                        pipe.close()
        self._memory.close()

    def stop(self) -> None:
        """Ends the workers and wakes every thread that waits. May be called from any thread, and more than once."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            self._tasks.put(None)

    def map(self, examples: Iterable[Example], chunk: int, ahead: Callable[[], int]) -> Iterator[Prepared]:
        """The examples in the order they come, prepared. Call it once.

        chunk: how many go to a worker at a time. ahead: how many examples should be on their way, if memory allows.
        Raises what was raised while reading or preparing them, and BenchkitError where a worker died.
        """

        def room() -> int:
            chunks = -(-ahead() // chunk)
            if self._chunk_bytes:
                chunks = min(chunks, BUDGET // self._chunk_bytes)
            return max(chunks, len(self._workers) + 1)

        self._run(self._feed, iter(examples), chunk, room)
        for worker in self._workers:
            self._run(self._drive, worker)
        for number in count():
            with self._change:
                while not (self._closed or self._error or number in self._replies or number == self._handed_out):
                    self._change.wait()
                if self._error:
                    raise self._error
                if self._closed or number == self._handed_out:
                    return
                reply = self._replies.pop(number)
            if isinstance(reply, Failure):  # raised in its turn, so that of several the first example's is seen
                raise reply.error
            prepared = self._collect(reply)
            with self._change:
                self._slots.append(reply.slot)
                self._in_flight -= 1
                self._change.notify_all()
            yield from prepared

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        def guarded() -> None:
            try:
                target(*args)
            except BaseException as e:  # noqa: BLE001 - it is raised where the results are taken
                self._fail(e)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _fail(self, error: BaseException) -> None:
        with self._change:
            if self._error is None and not self._closed:
                self._error = error
            self._change.notify_all()

    def _feed(self, examples: Iterator[Example], chunk: int, room: Callable[[], int]) -> None:
        number = 0
        while some := list(islice(examples, chunk)):
            with self._change:
                self._change.wait_for(lambda: self._closed or self._in_flight < room())
                if self._closed:
                    return
                self._in_flight += 1
                slot = self._slots.pop() if self._slots else self._in_flight - 1
            self._tasks.put((number, slot, some))
            number += 1
        with self._change:
            self._handed_out = number
            self._change.notify_all()

    def _drive(self, worker: "subprocess.Popen[bytes]") -> None:
        with suppress(OSError):  # one that died at once is met when it gets its first task
            _send(worker, self._hello)
        while (task := self._tasks.get()) is not None:
            number, slot, examples = task
            reply: _Reply | Failure
            try:
                _send(worker, Chunk(slot * STRIDE, [(e.id, e.media) for e in examples]))
                answer = _receive(worker)
                reply = answer if isinstance(answer, Failure) else _Reply(slot, examples, answer)
            except (EOFError, OSError, pickle.UnpicklingError):
                reply = Failure(_died(worker, examples))
            with self._change:
                self._replies[number] = reply
                self._change.notify_all()
            if isinstance(reply, Failure):
                return

    def _collect(self, reply: _Reply) -> list[Prepared]:
        """Copies the chunk's arrays out of the shared file, with one read."""
        places, size = [], 0
        for item in reply.items:
            places.append(size)
            if item.error is None:
                size = aligned(size + _nbytes(item))
        self._chunk_bytes = max(self._chunk_bytes, size)
        block = np.empty(size, np.uint8)
        view = block.data
        self._memory.seek(reply.slot * STRIDE)  # the workers, who share the position, do not use it
        while view and (read := self._memory.readinto(view)):  # nothing is read of padding that was never written
            view = view[read:]
        prepared = []
        for example, item, place in zip(reply.examples, reply.items, places, strict=True):
            array = None
            if item.error is None:
                array = block[place : place + _nbytes(item)].view(item.dtype).reshape(item.shape)
            prepared.append(Prepared(example.index, example.id, array, item.media, item.error))
        return prepared


def _nbytes(item: Item) -> int:
    return int(np.dtype(item.dtype).itemsize * np.prod(item.shape, dtype=np.int64))


def _memory_file() -> io.FileIO:
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("benchkit-prepared"), "r+")
    descriptor, name = tempfile.mkstemp(prefix="benchkit-")  # not Linux
    os.unlink(name)
    return io.FileIO(descriptor, "r+")


def _start(memory: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _START, *(p or os.getcwd() for p in sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(memory,),
        process_group=0,  # a terminal's Ctrl-C is for the main process, even before the worker can ignore it
        env=cpus.limited(1),  # there are as many workers as processors
    )


def _send(worker: "subprocess.Popen[bytes]", message: Any) -> None:
    assert worker.stdin is not None
    pickle.dump(message, worker.stdin, protocol=5)
    worker.stdin.flush()


def _receive(worker: "subprocess.Popen[bytes]") -> Any:
    assert worker.stdout is not None
    return pickle.load(worker.stdout)


def _died(worker: "subprocess.Popen[bytes]", examples: list[Example]) -> BenchkitError:
    try:
        code = worker.wait(timeout=5)
    except subprocess.TimeoutExpired:  # it lives, but what it says is no reply
        worker.kill()
        code = worker.wait()
    how = f"with exit status {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}" + (" (is memory short?)" if -code == signal.SIGKILL else "")
    names = f"'{examples[0].id}'" + (f" to '{examples[-1].id}'" if len(examples) > 1 else "")
    return BenchkitError(f"a decoding worker died {how} while it prepared {names}; --workers 0 decodes without workers")
