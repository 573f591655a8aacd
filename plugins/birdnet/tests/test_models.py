"""The real loading code on tiny models of the published formats and signatures, against plain numpy."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchkit import BenchkitError, MissingDependency, resolve
from benchkit.catalog.discovery import discover
from benchkit.testing import BackboneSuite
from benchkit_birdnet.birdnet import BirdNET, Params
from benchkit_birdnet.perch import Params as PerchParams
from benchkit_birdnet.perch import Perch

FIXTURES = Path(__file__).parent / "fixtures"
BINS = {"birdnet24.tflite": 1000, "birdnet30.onnx": 1280, "perch.onnx": 1280, "perch": 1280}

WITHOUT_TENSORFLOW = [
    ("birdnet", "birdnet24.tflite", 48_000, 1024),
    ("birdnet:3.0", "birdnet30.onnx", 32_000, 1280),
    ("perch,seconds=8", "perch.onnx", 32_000, 1536),
]
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a SavedModel needs tensorflow (benchkit-birdnet[perch])"
)


def ready(spec: str, model: Path):
    backbone = resolve("model", f"{spec},path={model}").build()
    backbone.setup("cpu")
    return backbone


def clips(rate: int, n: int = 5) -> list[np.ndarray]:
    """Recordings from 1 s to n seconds, each louder towards its end than the one before."""
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(rate * (i + 1)) * np.linspace(0, 0.2 * (i + 1), rate * (i + 1)) for i in range(n)]
    return [wave.astype(np.float32) for wave in waves]


def other_weights(model: Path, folder: Path) -> Path:
    """A copy whose scale is twice as large."""
    data = model.read_bytes()
    dim = {"birdnet24.tflite": 1024, "birdnet30.onnx": 1280, "perch.onnx": 1536}[model.name]
    scale = (1 + np.arange(dim) % 7).astype(np.float32)
    assert data.count(scale.tobytes()) == 1
    copy = folder / model.name
    copy.write_bytes(data.replace(scale.tobytes(), (2 * scale).tobytes()))
    return copy


class TestBirdNET24(BackboneSuite):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        other = other_weights(FIXTURES / "birdnet24.tflite", tmp_path_factory.mktemp("other"))
        cls.backbone = BirdNET(Params(path=FIXTURES / "birdnet24.tflite"))
        cls.other = BirdNET(Params(path=other))


class TestBirdNET30(BackboneSuite):
    backbone = BirdNET(Params(checkpoint="3.0", path=FIXTURES / "birdnet30.onnx", hop=1.0, pool="max"))


class TestPerch(BackboneSuite):
    backbone = Perch(PerchParams(path=FIXTURES / "perch.onnx"))


@needs_tensorflow
class TestPerchInTensorFlow(BackboneSuite):
    backbone = Perch(PerchParams(path=FIXTURES / "perch"))


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(
    ("spec", "model", "rate", "dim"),
    [*WITHOUT_TENSORFLOW, pytest.param("perch,seconds=8", "perch", 32_000, 1536, marks=needs_tensorflow)],
)
def test_features_are_the_pooled_embeddings_of_the_windows(
    tiny: Path, reference, spec: str, model: str, rate: int, dim: int, pool: str
) -> None:
    backbone = ready(f"{spec},pool={pool}", tiny / model)
    assert (backbone.sample_rate, backbone.dim) == (rate, dim)
    batch = np.stack([backbone.preprocess(wave) for wave in clips(rate)])
    assert batch.shape[1] == 2
    encoded = backbone.encode(batch, tokens=True)
    each = np.stack([reference(windows, BINS[model], dim) for windows in batch.astype(np.float64)])
    np.testing.assert_allclose(encoded.tokens, each, atol=1e-5)
    np.testing.assert_allclose(encoded.pooled, getattr(each, pool)(axis=1), atol=1e-5)


@pytest.mark.parametrize(("spec", "model", "rate", "dim"), WITHOUT_TENSORFLOW)
def test_a_batch_of_any_size_is_encoded_in_order(
    tiny: Path, spec: str, model: str, rate: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit_birdnet.birdnet.available_cpus", lambda: 3)  # several interpreters at once
    backbone = ready(spec, tiny / model)
    batch = np.stack([backbone.preprocess(wave) for wave in clips(rate)])
    alone = np.concatenate([backbone.encode(clip[None]).pooled for clip in batch])
    for order in (np.arange(40) % 5, np.arange(41)[::-1] % 5, [3]):
        np.testing.assert_allclose(backbone.encode(batch[order]).pooled, alone[order], atol=1e-6)


def test_the_embedding_comes_from_inside_the_model_and_not_from_its_output(tiny: Path) -> None:
    backbone = ready("birdnet", tiny / "birdnet24.tflite")
    assert backbone.encode(np.zeros((1, 2, 144_000), np.float32)).pooled.shape == (1, 1024)  # the output has 3


# -------------------------------------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize(("spec", "model", "rate", "dim"), WITHOUT_TENSORFLOW)
def test_a_fingerprint_is_of_the_file_wherever_it_lies(
    tiny: Path, tmp_path: Path, spec: str, model: str, rate: int, dim: int
) -> None:
    one = ready(spec, tiny / model)
    moved = tmp_path / f"moved-{model}"
    shutil.copy(tiny / model, moved)
    assert ready(f"{spec},pool=max", moved).fingerprint() == one.fingerprint()
    assert ready(spec, other_weights(tiny / model, tmp_path)).fingerprint() != one.fingerprint()
    assert (
        resolve("model", f"{spec},path={moved}").canonical == resolve("model", f"{spec},path={tiny / model}").canonical
    )


def test_nothing_is_computed_before_setup() -> None:
    for backbone in (BirdNET(Params()), Perch(PerchParams())):
        for call in (backbone.fingerprint, lambda b=backbone: b.encode(np.zeros((1, 1, 8), np.float32))):
            with pytest.raises(BenchkitError, match=r"call setup\(device\) first"):
                call()


# -------------------------------------------------------------------------------------------------------- wrong files


@pytest.mark.parametrize(
    ("spec", "model", "said"),
    [
        ("birdnet", "other_dim.tflite", "is no BirdNET 2.4: it must take float32 [B, 144000] and give embeddings "
         "[B, 1024], and gives [B, 1000]"),
        ("birdnet", "birdnet30.onnx", "does not load as BirdNET 2.4: it must take float32 [B, 144000]"),
        ("birdnet:3.0", "birdnet24.tflite", "does not load as BirdNET 3.0: it must take float32 [B, 96000]"),
        ("birdnet:3.0", "perch.onnx", "does not load as BirdNET 3.0: it must take float32 [B, 96000]"),
        ("perch", "birdnet30.onnx", "it has no output 'embedding', but predictions, embeddings"),
        ("birdnet", "perch", "is no file"),
    ],
)  # fmt: skip
def test_a_file_that_is_another_model_is_named_with_what_was_wanted(
    tiny: Path, spec: str, model: str, said: str
) -> None:
    with pytest.raises(BenchkitError, match=re.escape(said)) as raised:
        ready(spec, tiny / model)
    assert f"'{tiny / model}'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("spec", "name"), [("birdnet", "a.tflite"), ("birdnet:3.0", "a.onnx"), ("perch", "a.onnx")])
@pytest.mark.parametrize("data", [b"", b"no model at all"])
def test_a_damaged_file_is_named(tmp_path: Path, spec: str, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BenchkitError, match=rf"{name}' does not load as") as raised:
        ready(spec, tmp_path / name)
    assert "\n" not in str(raised.value)


# --------------------------------------------------------------------------------------------- TensorFlow, and without


def test_without_tensorflow_perch_says_what_to_install_or_to_give(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    for spec in ("perch", f"perch,path={tiny / 'perch'}"):
        with pytest.raises(MissingDependency, match=re.escape("pip install 'benchkit-birdnet[perch]'")) as raised:
            resolve("model", spec).build().setup("cpu")
        assert ".onnx" in str(raised.value)
    ready("perch", tiny / "perch.onnx")


def test_the_export_for_gpus_is_refused_on_a_cpu() -> None:
    with pytest.raises(BenchkitError, match="export=gpu runs on a GPU only"):
        resolve("model", "perch,export=gpu").build().setup("cpu")


@needs_tensorflow
def test_a_saved_model_leaves_the_gpus_to_others_and_is_fingerprinted_by_graph_and_variables(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    shutil.copytree(tiny / "perch", tmp_path / "perch")
    (tmp_path / "perch" / "README.md").write_text("a note beside it")
    assert ready("perch", tmp_path / "perch").fingerprint() == ready("perch", tiny / "perch").fingerprint()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


@needs_tensorflow
def test_a_folder_without_a_saved_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match=r"no folder with a saved_model\.pb, nor an \.onnx file"):
        Perch(PerchParams(path=tmp_path)).setup("cpu")


# -------------------------------------------------------------------------------------------------------- the plugin


def test_reading_a_spec_imports_nothing_heavy() -> None:
    heavy = "torch", "jax", "transformers", "datasets", "sklearn", "birdnet", "tensorflow", "onnxruntime", "pandas"
    code = (
        "import sys; from benchkit import resolve\n"
        "for text in ('birdnet:3.0,hop=1', 'perch'):\n"
        "    spec = resolve('model', text); spec.canonical; spec.build().dim\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_plugin_is_discovered() -> None:
    assert discover().find("model", "birdnet").entry.target == "benchkit_birdnet.birdnet:BirdNET"
    assert discover().find("model", "perch").entry.target == "benchkit_birdnet.perch:Perch"
