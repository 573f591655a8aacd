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
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from types import TracebackType
from typing import Any

import numpy as np

from benchkit.errors import OF_ITSELF, BenchkitError
from benchkit.features.worker import Chunk, Failure, Hello, Item, aligned, failed
from benchkit.interfaces import Backbone, Example
from benchkit.machine import cpus
from benchkit.machine.files import nameless
from benchkit.machine.interpreter import SAFE
from benchkit.machine.trouble import MachineError, ended_by

STRIDE = 1 << 36
"""Between the places of two chunks in the shared file, in bytes. It is sparse: what is not written takes nothing."""
BUDGET = 1 << 30
"""Bytes of prepared arrays that may wait in the shared file."""

ATTEMPTS = 2
"""How often a chunk is sent whose worker was killed: the killer may have meant another, or memory is free again."""
SAID = 4000
"""Characters kept of what a worker printed, which may tell why it ended."""

_START = """
import sys
sys.path[:] = sys.argv[1:]
try:
    from benchkit.features.worker import main
except BaseException as e:
    import pickle
    pickle.dump(ImportError(f"{type(e).__name__}: {e}"), sys.stdout.buffer)
    sys.exit(1)
main()
"""
"""What cannot even be imported, as where memory is short, is said in place of the first reply."""


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
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(self._memory.fileno()))
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
            worker.close()
        self._memory.close()

    def stop(self) -> None:
        """Ends the workers and wakes every thread that waits. May be called from any thread, and more than once."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
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
        for worker in list(self._workers):
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

    def _drive(self, worker: "_Worker") -> None:
        with suppress(OSError):  # one that died at once is met when it gets its first task
            worker.send(self._hello)
        while (task := self._tasks.get()) is not None:
            number, slot, examples = task
            for attempt in range(1, ATTEMPTS + 1):
                reply, killed = self._ask(worker, slot, examples)
                if not killed or attempt == ATTEMPTS or (other := self._another()) is None:
                    break
                worker = other
            with self._change:
                self._replies[number] = reply
                self._change.notify_all()
            if isinstance(reply, Failure):
                return

    def _ask(self, worker: "_Worker", slot: int, examples: list[Example]) -> "tuple[_Reply | Failure, bool]":
        """The worker's reply, and whether it was killed instead of giving one."""
        try:
            worker.send(Chunk(slot * STRIDE, [(e.id, e.media) for e in examples]))
            answer = worker.receive()
        except (EOFError, OSError, pickle.UnpicklingError):
            error = worker.died(examples)
            return Failure(error), error.reason == "killed"
        if isinstance(answer, ImportError):
            answer = failed(answer)
        return answer if isinstance(answer, Failure) else _Reply(slot, examples, answer), False

    def _another(self) -> "_Worker | None":
        """In the place of one that was killed; None where the pool ends."""
        with self._change:
            if self._closed:
                return None
            worker = _Worker(self._memory.fileno())
            self._workers.append(worker)
        with suppress(OSError):
            worker.send(self._hello)
        return worker

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
    return io.FileIO(os.dup(nameless().fileno()), "r+")  # not Linux


class _Worker:
    """A decoding process, and the end of what it prints, which goes on to where this process prints."""

    def __init__(self, memory: int) -> None:
        self.process = subprocess.Popen(
            [*SAFE, "-c", _START, *(p or os.getcwd() for p in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(memory,),
            process_group=0,  # a terminal's Ctrl-C is for the main process, even before the worker can ignore it
            env=cpus.limited(1),  # there are as many workers as processors
        )
        self.said = b""
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        self._relay.start()

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        pickle.dump(message, self.process.stdin, protocol=5)
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        return pickle.load(self.process.stdout)

    def died(self, examples: list[Example]) -> BenchkitError:
        """Why it gives no reply to these."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it lives, but what it says is no reply
            self.process.kill()
            code = self.process.wait()
        self._relay.join(timeout=1)  # unless a process that it left behind holds its end
        reason, how = ended_by(code, self.said.decode(errors="replace"))
        names = f"'{examples[0].id}'" + (f" to '{examples[-1].id}'" if len(examples) > 1 else "")
        message = f"a decoding worker {how} while it prepared {names}; --workers 0 decodes without workers"
        if reason in OF_ITSELF:
            return BenchkitError(message)
        return MachineError(f"{message}; the same command tries again", reason)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # a message that was under way when its worker was killed
                if pipe:
                    pipe.close()
        self._relay.join(timeout=1)  # unless a process that it left behind holds its end

    def _pass_on(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            while some := os.read(stream.fileno(), 1 << 16):
                self.said = (self.said + some)[-SAID:]
                with suppress(OSError):
                    os.write(2, some)
