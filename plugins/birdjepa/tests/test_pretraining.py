"""The parts of a training that need no training: what it is told, the order of examples, batches, spectrograms."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from benchkit import BenchkitError, DataError, resolve
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.pretraining.devices import Coordinator, first_host
from benchkit_birdjepa.pretraining.loader import Loader, Maker, Undecodable
from benchkit_birdjepa.pretraining.order import entropy, epoch_order
from benchkit_birdjepa.pretraining.settings import AugmentConfig, DataConfig, every_field, made, read
from benchkit_birdjepa.pretraining.sources import open_sources
from benchkit_birdjepa.pretraining.spectrogram import levels

TABLE = {"data": {"train": ["digits"]}, "objective": {"name": "supervised"}}


def written(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


MINIMAL = '[data]\ntrain = ["digits"]\n[objective]\nname = "supervised"\n'


def test_a_configuration_is_read_and_fields_are_set_on_the_way(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    found = read(
        path, ["data.batch=8", "model.depth=2", "optimiser.name=muon", "schedule.name='wsd'", "data.labels=false"]
    )
    assert (found.data.batch, found.model.depth, found.optimiser.name, found.schedule.name) == (8, 2, "muon", "wsd")
    assert found.data.labels is False


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.bacth=3", "no field 'data.bacth', did you mean 'data.batch'"),
        ("batch=3", "no field 'batch': it is 'data.batch'"),
        ("data.batch=many", "data.batch is 'many', and must be a whole number"),
        ("data.batch=0", "data.batch is 0, and must be at least 1"),
        ("guard.nan=halt", "guard.nan is 'halt', and must be one of stop, skip"),
        ("accumulate=3", "data.batch=64 is no multiple of accumulate=3"),
        ("seed", "'seed' is no key=value"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_the_way_out(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(BenchkitError) as raised:
        read(written(tmp_path, MINIMAL), [word])
    assert said in str(raised.value).replace("; d", ", d").replace(" (d", ", d")


def test_what_changes_no_number_is_no_part_of_what_a_training_is() -> None:
    same = [{}, {"name": "x"}, {"to": "y"}, {"log_every": 3}, {"checkpoint": {"every": 5}}]
    assert len({made(TABLE | more, "t").identity() for more in same}) == 1
    assert made(TABLE | {"seed": 1}, "t").identity() != made(TABLE, "t").identity()


def test_every_field_but_the_encoders_says_what_it_is() -> None:
    bare = {n for n, f in every_field().items() if not f.metadata.get("help") and not n.startswith("model.")}
    assert bare <= {"guard.on_spike", "probe.weight_decay", "evaluate.n_train", "evaluate.seed"}


@pytest.mark.parametrize("how", ["full", "window", "none"])
def test_an_epoch_has_every_example_once_and_the_next_another_order(how: str) -> None:
    first, again, second = (epoch_order(1000, 3, e, how, 16, 4, 64) for e in (0, 0, 1))
    assert sorted(first) == list(range(1000))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any() == (how != "none")


def test_a_window_mixes_labels_that_lie_in_shards_of_one_class() -> None:
    labels = np.repeat(np.arange(10), 100)
    poor, wide = (epoch_order(1000, 0, 0, "window", 100, n, w) for n, w in ((1, 1), (10, 300)))
    assert entropy(labels[poor[:32]]) == 0
    assert entropy(labels[wide[:32]]) > 0.8 * entropy(labels[epoch_order(1000, 0, 0)[:32]])


def test_spectrograms_are_those_of_the_backbone_and_padded_as_there() -> None:
    backbone = resolve("model", "birdjepa,init=random,frames=128,mels=32,width=32,depth=1,heads=2").build()
    backbone.setup("cpu")
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (32_000, 20_000, 5_000)]
    batch = np.stack([backbone.preprocess(clip) for clip in clips])
    ours = levels(jnp.asarray(batch[:, :-1]), jnp.asarray(batch[:, -1].astype(np.int32)), 128, 32)
    np.testing.assert_allclose(np.asarray(ours), backbone.model_inputs(batch), atol=2e-3)


def sounds(folder: Path, n: int, bad: int = 0) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        soundfile.write(folder / f"{i:02d}.wav", 0.1 * rng.standard_normal(48_000), 32_000)
    for i in range(bad):
        (folder / f"bad{i}.wav").write_bytes(b"no sound")
    return folder


SMALL = EncoderConfig(96, 32, 16, 16, 16, 1, 2)


def maker(folder: Path, **more: object) -> Maker:
    augment = AugmentConfig(gain_db=6.0, noise_db=20.0, shift=True, time_masks=1, freq_masks=1)
    return Maker(open_sources([f"folder:{folder}"]), DataConfig((), batch=4, **more), augment, SMALL, 2, 0)


def test_batches_are_the_same_for_any_number_of_workers_and_views_differ(tmp_path: Path) -> None:
    of = maker(sounds(tmp_path, 6))
    with Loader(of, 0, 3, 1, 1) as one, Loader(of, 0, 3, 4, 4) as many:
        for a, b in zip(one, many, strict=True):
            assert a.arrays.keys() == b.arrays.keys()
            for name in a.arrays:
                np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
    waves = of.batch(0).arrays["waves"]
    assert waves.shape == (4, 2, (96 - 1) * 320 + 800)
    assert not np.array_equal(waves[:, 0], waves[:, 1])


def test_what_does_not_decode_is_named_and_another_takes_its_place_until_there_is_too_much(tmp_path: Path) -> None:
    of = maker(sounds(tmp_path, 6, bad=2), shuffle="none")
    counted = Undecodable(share=0.5)
    names: list[str] = []
    for step in range(4):
        batch = of.batch(step)
        assert len(batch.arrays["rows"]) == 4
        names += counted.add(batch, 4)
    assert sorted(names) == ["bad0.wav", "bad1.wav"]
    strict = Undecodable(share=0.05)
    with pytest.raises(DataError, match=r"do not decode, more than data\.max_bad=0\.05: 'bad"):
        _ = [strict.add(of.batch(step), 4) for step in range(4)]


def test_cifar_100_is_read_from_its_files_and_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 100, (5, 3074)).astype(np.uint8)
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())
    source = open_sources([f"cifar100:{tmp_path}"])
    image = source.media([3])[0][1].load()
    assert image.shape == (32, 32, 3)
    assert image[0, 1].tolist() == [rows[3, 2 + 1], rows[3, 2 + 1025], rows[3, 2 + 2049]]
    assert source.labels is not None
    assert source.labels.tolist() == rows[:, 1].tolist()
    other = tmp_path / "python"
    other.mkdir()
    for name in ("train", "test", "meta"):
        (other / name).write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"would run posix\.system"):
        _ = open_sources([f"cifar100:{other}"]).labels


def test_processes_meet_where_the_scheduler_says_and_one_alone_waits_for_nobody() -> None:
    assert Coordinator.found({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}) is None
    assert Coordinator.found({}) is None
    torch = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
    assert Coordinator.found(torch) == Coordinator("gpu1:29500", 2, 1)
    slurm = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "5", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    found = Coordinator.found(slurm | {"SLURM_STEP_NODELIST": "gpu[003-010,12],login"})
    assert found == Coordinator("gpu003:12005", 2, 1)
    assert first_host("a,b") == "a"
    with pytest.raises(BenchkitError, match="MASTER_ADDR, MASTER_PORT"):
        Coordinator.found({"WORLD_SIZE": "2", "RANK": "0"})


def test_the_page_lists_every_field() -> None:
    page = (Path(__file__).parents[3] / "docs" / "pretraining.md").read_text()
    assert [name for name in every_field() if f"`{name}`" not in page] == []
