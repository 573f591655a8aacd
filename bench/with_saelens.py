"""Both ways with SAELens itself: what we write it reads, what it writes we read, with the same reconstructions.

uv run --with sae-lens python bench/with_saelens.py
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from benchkit.activations.recorder import _conclude
from benchkit.activations.shards import FORMAT, Identity, ShardWriter
from benchkit.sae import SAEConfig, TrainConfig, saelens, train
from benchkit.sae.apply import Applied

LIMIT = 1e-5


def recording(x: np.ndarray, to: Path) -> Path:
    to.mkdir()
    identity = Identity(FORMAT, "t", "m", "train", "r", len(x), "d", "w", "float32")
    identity.claim(to)
    with ShardWriter(to, "tokens", "float32", [str(i) for i in range(len(x))], 0) as writer:
        writer.write(np.arange(len(x)), x[:, None])
        writer.close()
        _conclude(to, "tokens", identity, writer.shards, {}, 0)
    return to


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def main() -> None:
    from sae_lens import SAE, __version__

    warnings.simplefilter("ignore")
    rng = np.random.default_rng([26, 3])
    x = (rng.standard_normal((600, 10)) @ rng.standard_normal((10, 10)) * 3 + np.linspace(-20, 300, 10)).astype(
        np.float32
    )
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        here = Path(folder)
        on = recording(x, here / "on")
        for how in ("none", "dimension", "layernorm", "whiten"):
            configs = [
                *(SAEConfig(a, 24, how, l1=0.1) for a in ("relu", "gated")), SAEConfig("jumprelu", 24, how, l0=0.01),
                *(SAEConfig(a, 24, how, k=4) for a in ("topk", "batchtopk", "matryoshka")),
            ]  # fmt: skip
            shared = TrainConfig(batch_size=100, epochs=2)
            for t in train(on, here / how, configs, shared).trained:
                ours, _ = Applied.open(t.path).reconstructed(x)
                theirs = SAE.load_from_disk(saelens.export(t.path, here / f"out-{t.path.stem}"))
                with torch.no_grad():
                    made = theirs(torch.from_numpy(x)).numpy()
                theirs.save_model(here / f"saved-{t.path.stem}")
                back = saelens.import_(
                    here / f"saved-{t.path.stem}", here / f"{t.path.stem}.back", model="m", point="tokens"
                )
                again, _ = Applied.open(back).reconstructed(x)
                worst = max(worst, gap(made, ours), gap(again, made))
                print(f"{t.path.stem:45} to SAELens {gap(made, ours):.1e}   back {gap(again, made):.1e}")
    print(f"sae-lens {__version__}: {worst:.1e} at most")
    if worst > LIMIT:
        sys.exit(f"more than {LIMIT}")


if __name__ == "__main__":
    main()
