"""Extraction: what decodes, what does not, and how much of it at a time."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import soundfile
from feature_samples import (
    Bands,
    BandsParams,
    CountParams,
    FolderParams,
    Gradients,
    Notes,
    Pixels,
    Recordings,
    Threads,
    Unpicklable,
    encoded,
)  # fmt: skip

from benchkit.errors import BenchkitError, MediaError, PluginError
from benchkit.features import Features, Options, batches, extract
from benchkit.features.batches import Batch, Sizer, assemble, computed
from benchkit.features.pool import Prepared
from benchkit.interfaces import Encoded, Example
from benchkit.media.decode import Audio, Image
from benchkit.progress import Silent


def of(
    root: Path, tmp_path: Path, backbone: Bands | None = None, *, cache: str = "cache", **options: object
) -> Features:
    """All rows of the folder."""
    task = Recordings(FolderParams(str(root)))
    rows = np.arange(len(task.ids("test")))
    return extract(task, backbone or Bands(), "test", rows, {}, Options(tmp_path / cache, **options), Silent())  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    """This process's decoding workers: servers that the session's fixtures keep (MariaDB) are nobody's leftovers."""
    found = psutil.Process().children(recursive=True)
    return [c for c in found if c.status() == psutil.STATUS_ZOMBIE or "features.worker" in " ".join(c.cmdline())]


# -------------------------------------------------------------------------------------------------------------- workers


def test_workers_give_exactly_what_the_main_process_gives(recordings: Path, tmp_path: Path) -> None:
    alone = of(recordings, tmp_path, cache="alone", workers=0)
    together = of(recordings, tmp_path, cache="together", workers=2, batch_size=7)
    np.testing.assert_array_equal(alone.pooled, together.pooled)
    np.testing.assert_array_equal(alone.hashes, together.hashes)
    assert not children()


def test_real_recordings_come_through_workers_as_through_a_plain_loop(shared: Path, tmp_path: Path) -> None:
    task = Recordings(FolderParams(str(shared / "data" / "esc10" / "audio")))
    rows = np.arange(0, 400, 12)
    options = Options(tmp_path / "cache", workers=2, batch_size=6)
    features = extract(task, Bands(), "test", rows, {}, options, Silent())
    backbone = Bands()
    arrays = [backbone.preprocess(e.media.load(8000)) for e in task.examples("test", rows.tolist())]
    backbone.setup("cpu")
    np.testing.assert_array_equal(features.pooled[rows], backbone.encode(np.stack(arrays)).pooled)


def test_images_in_memory_go_to_workers_too(tmp_path: Path) -> None:
    task, rows = Gradients(CountParams(100)), np.arange(100)
    features = extract(task, Pixels(), "test", rows, {}, Options(tmp_path, workers=2), Silent())
    assert features.pooled[41, 3] == np.float32((3 * 3 + 41 * 7 + 1) % 256) / np.float32(255)


def test_a_worker_starts_no_threads_for_the_processors_that_the_others_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BENCHKIT_CPUS"):
        monkeypatch.setenv(name, "3")  # more than one, however few processors there are
    task, rows = Gradients(CountParams(40)), np.arange(40)
    features = extract(task, Threads(), "test", rows, {}, Options(tmp_path, workers=2), Silent())
    assert features.pooled[:, :3].max(axis=0).tolist() == [1, 1, 1]
    assert len({*features.pooled[:, 3]} - {np.float32(os.getpid())}) == 2, "both have prepared some, and nobody else"


def test_automatic_workers_are_none_where_preparing_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise AssertionError("no pool was needed")

    monkeypatch.setattr("benchkit.features.pipeline.Pool", none)
    monkeypatch.setattr("benchkit.features.pipeline.WORTH_WORKERS", 60.0)  # on a machine that is busy with other things
    features = extract(Gradients(CountParams(1797)), Pixels(), "test", np.arange(1797), {}, Options(tmp_path), Silent())
    assert features.hashes.all()


def test_automatic_workers_start_where_preparing_takes_long(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.features.pipeline.WORTH_WORKERS", 0.0)
    started: list[int] = []
    from benchkit.features.pool import Pool

    class Counted(Pool):
        def __init__(self, backbone: Bands, workers: int) -> None:
            started.append(workers)
            super().__init__(backbone, workers)

    monkeypatch.setattr("benchkit.features.pipeline.Pool", Counted)
    with_workers = of(recordings, tmp_path, cache="a")
    assert len(started) == 1
    assert started[0] >= 1
    np.testing.assert_array_equal(with_workers.pooled, of(recordings, tmp_path, cache="b", workers=0).pooled)


def test_a_worker_that_dies_is_one_clear_line_and_leaves_nothing_behind(recordings: Path, tmp_path: Path) -> None:
    length = len(Audio(sorted(recordings.iterdir())[30]).load(8000))
    with pytest.raises(
        BenchkitError, match=r"a decoding worker was ended by SIGKILL .* while it prepared '0.*--workers 0"
    ):
        of(recordings, tmp_path, Bands(BandsParams(dies_at=length)), workers=2)
    assert not children()
    assert of(recordings, tmp_path, workers=0).hashes.all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_in_preprocess_surfaces_as_itself_with_the_examples_id(
    recordings: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(ValueError, match="this preprocess has a bug") as caught:
        of(recordings, tmp_path, Bands(BandsParams(raises="ValueError")), workers=workers)
    assert any("while preparing example '000.wav'" in note for note in caught.value.__notes__)
    assert not children()


def test_an_exception_that_cannot_be_pickled_keeps_its_name_and_message(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: one and two"):
        of(recordings, tmp_path, Bands(BandsParams(raises="Unpicklable")), workers=1)
    with pytest.raises(Unpicklable):
        of(recordings, tmp_path, Bands(BandsParams(raises="Unpicklable")), workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_users_stays_one_and_names_the_example(recordings: Path, tmp_path: Path, workers: int) -> None:
    with pytest.raises(PluginError, match=r"example '000.wav': backbone Pixels has no sample_rate"):
        of(recordings, tmp_path, Pixels(), workers=workers)  # type: ignore[arg-type]


def test_a_backbone_that_workers_cannot_import_is_refused_with_the_way_out(recordings: Path, tmp_path: Path) -> None:
    class Local(Bands):
        pass

    with pytest.raises(BenchkitError, match=r"Local is defined where a worker process cannot import it.*--workers 0"):
        of(recordings, tmp_path, Local(), workers=1)
    assert of(recordings, tmp_path, Local(), workers=None).hashes.all()


# ------------------------------------------------------------------------------------------------------------ bad media


@pytest.fixture
def damaged(recordings: Path, tmp_path: Path) -> Path:
    """20 recordings, of which two do not decode."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in sorted(recordings.iterdir())[:20]:
        shutil.copy(path, folder)
    (folder / "004.wav").write_bytes(b"RIFF this is no recording")
    soundfile.write(folder / "011.ogg", np.zeros(0, np.float32), 8000)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_does_not_decode_is_named_and_the_way_out_too(
    damaged: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(MediaError) as caught:
        of(damaged, tmp_path, workers=workers)
    message = str(caught.value)
    assert message.startswith("2 of 20 examples of Recordings/test do not decode, and --skip-bad allows for 0")
    assert "(--skip-bad 2 leaves them out)" in message
    assert "'004.wav': " in message
    assert "'011.ogg': " in message
    assert "holds no audio" in message
    assert "\n" not in message


def test_what_decoded_is_kept_when_the_rest_did_not(damaged: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(MediaError):
        of(damaged, tmp_path, Bands(BandsParams(log=str(log))), workers=0, skip_bad=1)
    assert encoded(log) == 18
    features = of(damaged, tmp_path, Bands(BandsParams(log=str(log))), workers=0, skip_bad=2)
    assert encoded(log) == 18
    assert list(features.skipped) == [4, 11]
    assert "does not decode as audio" in features.skipped[4]
    assert features.hashes[[4, 11]].tolist() == [0, 0]
    assert np.count_nonzero(features.hashes) == 18


def test_a_folder_full_of_bad_files_ends_early(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(500):
        (folder / f"{i:03d}.wav").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"^at least 2\d of 500 examples.*'000.wav'.*'002.wav'.*; \.\.\.$"):
        of(folder, tmp_path, workers=0)


def test_where_nothing_decodes_skipping_is_no_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="1 of 1 examples"):
        of(folder, tmp_path, workers=0, skip_bad=5)


# ---------------------------------------------------------------------------------------------------------- batch sizes


@pytest.mark.parametrize("oom", ["MemoryError", "torch", "jax", "onnxruntime", "cublas"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(recordings: Path, tmp_path: Path, oom: str) -> None:
    progress = Notes()
    log = tmp_path / "log"
    task = Recordings(FolderParams(str(recordings)))
    backbone = Bands(BandsParams(log=str(log), fits=5, oom=oom))
    options = Options(tmp_path / "cache", workers=0)
    features = extract(task, backbone, "test", np.arange(60), {}, options, progress)
    sizes = [int(line) for line in log.read_text().split()]
    assert sum(sizes) == 60
    assert max(sizes) == 4
    assert [n for n in progress.notes if "did not fit into the memory of 'cpu'" in n] == progress.notes
    assert [n.split()[3] for n in progress.notes] == ["32", "16", "8"]
    assert progress.steps == [("extract Recordings/test", 60, "clips")]
    np.testing.assert_array_equal(features.pooled, of(recordings, tmp_path, cache="plain", workers=0).pooled)


def test_on_a_device_batches_grow_until_memory_ends_and_the_features_are_the_same(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call takes a second, however large its batch, so they double from 32; 65 do not fit."""
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=count(0.0).__next__))
    progress, log, n = Notes(), tmp_path / "log", 600
    monkeypatch.setattr(Recordings, "ids", lambda self, split: [str(i) for i in range(n)])
    files = sorted(recordings.iterdir())
    monkeypatch.setattr(
        Recordings,
        "examples",
        lambda self, split, rows: (Example(i, str(i), Audio(files[i % len(files)])) for i in rows),
    )
    task = Recordings(FolderParams(str(recordings)))
    backbone = Bands(BandsParams(log=str(log), fits=65, oom="torch"))
    options = Options(tmp_path / "cache", device="cuda", workers=0)
    features = extract(task, backbone, "test", np.arange(n), {}, options, progress)
    sizes = [int(line) for line in log.read_text().split()]
    assert sum(sizes) == n
    assert sizes[:2] == [32, 32]
    assert max(sizes) == 64
    assert len(progress.notes) == 1
    assert "a batch of 128 did not fit into the memory of 'cuda'" in progress.notes[0]
    plain = extract(task, Bands(), "test", np.arange(n), {}, Options(tmp_path / "other", workers=0), Silent())
    np.testing.assert_array_equal(features.pooled, plain.pooled)


def test_float32_is_never_rounded_to_tf32(recordings: Path, tmp_path: Path) -> None:
    """torch's default for the convolutions of a GPU; no name would show it."""
    import torch

    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        of(recordings, tmp_path, workers=0)
        assert [switch.allow_tf32 for switch in switches] == [False, False]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def test_one_example_that_does_not_fit_is_one_clear_line(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match="Bands needs more memory than 'cpu' has even for one example"):
        of(recordings, tmp_path, Bands(BandsParams(fits=0)), workers=0)


def test_batches_on_a_cpu_are_all_of_one_size_so_that_runs_are_alike() -> None:
    sizer = Sizer.of(None, "cpu")
    for _ in range(10):
        sizer.took(sizer.size, 1, 1e-6)
    assert sizer.size == 32
    assert Sizer.of(5, "cuda").size == 5


def test_automatic_batches_grow_while_it_pays() -> None:
    """Time = 10 ms for each call and 1 ms for each example, up to 128 on the device; beyond, twice as long for each."""
    sizer = Sizer.of(None, "cuda")
    seen = []
    for _ in range(40):
        n = sizer.size
        seen.append(n)
        sizer.took(n, n, 0.01 + 0.001 * n if n <= 128 else 0.002 * n)
    assert seen[:2] == [32, 32]
    assert max(seen) == 256
    assert sizer.size == 128
    assert not sizer.grows


def test_the_first_slow_batch_of_a_size_does_not_count() -> None:
    sizer = Sizer.of(None, "cuda")
    for slow in (50.0, 1.0, 50.0, 1.0):
        sizer.took(sizer.size, 1, slow)
    assert sizer.size == 128


def test_growth_ends_where_memory_does() -> None:
    sizer = Sizer.of(None, "cuda")
    for _ in range(2):
        sizer.took(32, 32 * 2**20, 1.0)
    assert sizer.size == 64
    sizer.shrink(64)
    for _ in range(10):
        sizer.took(sizer.size, 1, 1e-6)
    assert sizer.size == 32
    large = Sizer.of(None, "cuda")
    for _ in range(10):
        large.took(large.size, large.size * 2**21, 1.0 / large.size)
    assert large.size == 128, "256 MB"


def test_batches_stop_growing_where_what_comes_of_them_is_large() -> None:
    def tokens(array: np.ndarray) -> Encoded:
        return Encoded(np.zeros((len(array), 16), np.float32), np.broadcast_to(np.float32(0), (len(array), 3000, 2000)))

    def activations(array: np.ndarray) -> dict[str, np.ndarray]:
        return {point: np.broadcast_to(np.float32(0), (len(array), 1500, 2000)) for point in "ab"}

    for function in (tokens, activations, lambda array: Encoded(np.zeros((len(array), 16), np.float32))):
        sizer = Sizer.of(None, "cuda")
        batch = Batch(np.arange(32), np.zeros(32, np.uint64), np.zeros((32, 10), np.float32))
        for _ in range(2):
            (_,) = computed(Bands(), batch, function, sizer, "cuda", Silent())
        assert sizer.size == (32 if function in (tokens, activations) else 64)


def test_arrays_of_two_shapes_are_the_backbones_fault() -> None:
    two = [Prepared(0, "a", np.zeros(3)), Prepared(1, "b", np.zeros(4))]
    with pytest.raises(PluginError, match=r"'a' became float64 \(3,\), and 'b' became float64 \(4,\)"):
        list(assemble(two, Sizer(8)))


# ------------------------------------------------------------------------------------------------------------ contracts


def test_the_backbone_is_set_up_once_for_all_splits(recordings: Path, tmp_path: Path) -> None:
    backbone = Bands()
    task = Recordings(FolderParams(str(recordings)))
    for split in ("train", "test", "test"):
        extract(task, backbone, split, np.arange(3), {}, Options(tmp_path, workers=0), Silent())
    assert backbone.ready == 1


def test_a_task_that_gives_other_rows_than_it_was_asked_for_is_caught(tmp_path: Path) -> None:
    class Shifted(Gradients):
        def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
            for e in super().examples(split, indices):
                yield Example(e.index + 1, e.id, e.media)

    class Short(Gradients):
        def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
            yield from super().examples(split, indices[:-1])

    with pytest.raises(PluginError, match="gave row 10, which was not asked for"):
        extract(Shifted(), Pixels(), "test", np.array([9, 99]), {}, Options(tmp_path, workers=0), Silent())
    with pytest.raises(PluginError, match="left out 1 rows, 99 among them"):
        extract(Short(), Pixels(), "test", np.array([9, 99]), {}, Options(tmp_path, workers=0), Silent())


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:, :5], lambda x: x[1:], lambda x: x.astype(np.float64)], ids=["dim", "rows", "dtype"]
)
def test_features_that_break_the_contract_are_the_backbones_fault(
    tmp_path: Path, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    class Wrong(Pixels):
        def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
            encoded = object.__new__(Encoded)  # past the check of its annotations, which is off outside of tests
            object.__setattr__(encoded, "pooled", wrong(batch))
            return encoded

    with pytest.raises(PluginError, match=r"Wrong.encode gave pooled .* not float32 \(\d+, 64\)"):
        extract(Gradients(), Wrong(), "test", np.arange(9), {}, Options(tmp_path, workers=0), Silent())


def test_features_that_are_not_finite_are_stored_as_they_are(tmp_path: Path) -> None:
    class Broken(Pixels):
        def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
            pooled = batch.copy()
            pooled[:, 1], pooled[:, 2] = np.nan, np.inf
            return Encoded(pooled)

    for _ in range(2):
        got = extract(Gradients(), Broken(), "test", np.arange(9), {}, Options(tmp_path, workers=0), Silent()).pooled
        assert np.isnan(got[:9, 1]).all()
        assert np.isinf(got[:9, 2]).all()


# ---------------------------------------------------------------------------------------------------------------- media


def test_equal_media_have_equal_hashes_whatever_file_they_are_in(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    wave = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 4000) * 2**15) / 2**15
    soundfile.write(folder / "a.wav", wave, 8000, subtype="PCM_16")
    soundfile.write(folder / "b.flac", wave, 8000, subtype="PCM_16")
    soundfile.write(folder / "c.wav", wave * 0.5, 8000, subtype="PCM_16")
    a, b, c = of(folder, tmp_path, workers=0).hashes.tolist()
    assert a == b != c


def test_a_16_bit_image_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    PillowImage.fromarray(deep).save(tmp_path / "deep.png")
    PillowImage.fromarray((deep >> 8).astype(np.uint8)).save(tmp_path / "flat.png")
    np.testing.assert_array_equal(Image(tmp_path / "deep.png").load(), Image(tmp_path / "flat.png").load())
