"""Extraction end to end against the slowest of its stages alone, in one run; and how fast the cache verifies itself.

    python bench/extraction.py                          made-up recordings, 5 s at 44.1 kHz, Ogg Vorbis
    python bench/extraction.py --audio FOLDER           recordings of yours
    python bench/extraction.py --model random-vit --device cuda --batch-size 256

Stage 1, in worker processes: decode, resample to 32 kHz, hash, preprocess; alone, its results are thrown away. Stage 2,
in the main process: encode batches; alone, the same batch again and again from memory. End to end is `extract` with an
empty cache, everything included: the start of the workers (as in stage 1 alone), batches, writing, verifying.

The device is a stand-in unless --model names a backbone: it takes a fixed time for each example and no processor, as an
accelerator does, set from the measured rate of stage 1 so that either stage is the slowest, or both are alike. A real
model on the CPU competes with the decoders for the same cores; then the limit is the processor's time, which is printed
too: what both stages take alone, of what they take end to end. A busy machine leaves that figure alone, but not the
others.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.features import Options, extract
from benchkit.features.cache import Entry, Writer
from benchkit.features.pipeline import AHEAD
from benchkit.features.pool import Pool
from benchkit.interfaces import Backbone, Encoded, Example, Task
from benchkit.media.decode import Audio
from benchkit.progress import Silent

SAMPLES = 160_000


@dataclass(frozen=True)
class DeviceParams:
    seconds: float = 0.0
    """For each example."""


class Device(Backbone):
    """Stands in for an accelerator: the processor is free while it works."""

    Params = DeviceParams
    modalities = ("audio",)
    sample_rate = 32_000

    @property
    def dim(self) -> int:
        return 768

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return np.pad(raw[:SAMPLES], (0, max(0, SAMPLES - len(raw))))

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        time.sleep(self.params.seconds * len(batch))
        return Encoded(batch[:, : self.dim].copy())

    def fingerprint(self) -> str:
        return "device"


@dataclass(frozen=True)
class FilesParams:
    files: tuple[Path, ...] = ()
    n: int = 0


class Files(Task):
    """The files again and again, until there are n."""

    Params = FilesParams
    kind = "multiclass"
    modality = "audio"
    metrics = ("top1",)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("any",)

    def ids(self, split: str) -> Sequence[str]:
        return [str(i) for i in range(self.params.n)]

    def labels(self, split: str) -> Any:
        return np.zeros(self.params.n, np.int64)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for i in indices:
            yield Example(i, str(i), Audio(self.params.files[i % len(self.params.files)], duration=5.0))

    def fingerprint(self) -> str:
        return "files"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--n", type=int, default=1200, help="clips to extract")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", help="a backbone in place of the stand-in, such as logmel")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; medians count")
    args = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {args.workers} workers, {args.n:,} clips"
    )
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(args.audio.iterdir()) if args.audio else made_up(Path(folder))
        task = Files(FilesParams(tuple(files), args.n))
        print(
            f"{'':24}{'prepare alone':>15}{'encode alone':>14}{'end to end':>12}{'of the slowest':>16}  "
            "(processor for a clip, of both stages and end to end)"
        )
        if args.model:
            from benchkit.catalog.resolve import resolve

            compare(args.model, task, resolve("model", args.model).build(), args)
        else:
            alone = 1 / prepare_alone(task, Device(), args)
            for name, factor in (("a fast device", 0.05), ("as fast as decoding", 1.0), ("a slow device", 2.0)):
                compare(name, task, Device(DeviceParams(alone * factor)), args)
    cache_speed()


def made_up(folder: Path) -> list[Path]:
    import soundfile

    rng = np.random.default_rng(0)
    for i in range(40):
        t = np.arange(5 * 44_100) / 44_100
        tones = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in rng.uniform(200, 9000, 4))
        soundfile.write(folder / f"{i}.ogg", 0.1 * tones + 0.02 * rng.standard_normal(len(t)), 44_100)
    return sorted(folder.iterdir())


def compare(name: str, task: Files, backbone: Backbone, args: argparse.Namespace) -> None:
    """Interleaved, so that a machine that is busy for a while slows all three; medians over the rounds."""
    backbone.setup(args.device)
    rounds = [once(task, backbone, args) for _ in range(args.repeats)]
    prepare, encode, whole, share, alone, together = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{name[:23]:24}{prepare:11,.0f} /s  {encode:10,.0f} /s  {whole:8,.0f} /s{share:14.2f}  "
        f"({1000 * alone:.1f} of {1000 * together:.1f} ms: {alone / together:.2f})"
    )


def once(task: Files, backbone: Backbone, args: argparse.Namespace) -> tuple[float, ...]:
    """Rates of both stages and of the whole; the whole's share of the slower stage's rate; seconds of processor for a
    clip in the stages and in the whole."""
    spent = cpu_seconds()
    prepare = prepare_alone(task, backbone, args)
    prepared = cpu_seconds()
    encode, one = encode_alone(task, backbone, args)
    began, before = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory() as cache:
        options = Options(Path(cache), args.device, args.batch_size, args.workers)
        extract(task, backbone, "test", np.arange(args.n), {}, options, Silent())
    whole = args.n / (time.perf_counter() - began)
    together = (cpu_seconds() - before) / args.n
    return prepare, encode, whole, whole / min(prepare, encode), (prepared - spent) / args.n + one, together


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def prepare_alone(task: Files, backbone: Backbone, args: argparse.Namespace) -> float:
    """Clips a second."""
    began = time.perf_counter()
    with Pool(backbone, args.workers) as pool:
        chunk = min(16, max(1, args.n // (4 * args.workers)))  # as `extract` does
        n = sum(1 for _ in pool.map(task.examples("test", range(args.n)), chunk, lambda: AHEAD * args.batch_size))
    return n / (time.perf_counter() - began)


def encode_alone(task: Files, backbone: Backbone, args: argparse.Namespace) -> tuple[float, float]:
    """Clips a second, and seconds of processor for a clip."""
    assert backbone.sample_rate is not None
    here = type(backbone)(backbone.params)
    media = [e.media for e in task.examples("test", range(args.batch_size))]
    batch = np.stack([here.preprocess(m.load(backbone.sample_rate)) for m in media if isinstance(m, Audio)])
    backbone.encode(batch)  # warm
    times = max(1, min(20, args.n // args.batch_size))
    began, spent = time.perf_counter(), cpu_seconds()
    for _ in range(times):
        backbone.encode(batch)
    clips = times * len(batch)
    return clips / (time.perf_counter() - began), (cpu_seconds() - spent) / clips


def cache_speed() -> None:
    """Writing and verifying 100,000 x 768."""
    n, d = 100_000, 768
    values = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    rows, media = np.arange(n), np.arange(1, n + 1, dtype=np.uint64)
    with tempfile.TemporaryDirectory() as cache:
        entry = Entry.of(Path(cache), {}, n)
        began = time.perf_counter()
        entry.folder.mkdir()
        with Writer(entry) as writer:
            for at in range(0, n, 64):
                writer.write(rows[at : at + 64], values[at : at + 64], media[at : at + 64])
        wrote = time.perf_counter() - began
        began = time.perf_counter()
        assert entry.read(rows).good.all()
        read = time.perf_counter() - began
    gb = values.nbytes / 1e9
    print(f"cache: {gb:.2f} GB written and synced at {gb / wrote:.2f} GB/s, verified at {gb / read:.2f} GB/s")


if __name__ == "__main__":
    import extraction  # by its name, because worker processes must be able to import what is defined here

    extraction.main()
