"""Bird-MAE: a masked autoencoder pretrained on the bird recordings of BirdSet (arXiv 2504.12880).

Sources of the details: the paper; its code, github.com/DBD-research-group/Bird-MAE (models/vit/vit.py, transforms.py,
configs/data/dataset/HSN.yaml); and the hub repositories DBD-research-group/Bird-MAE-Base, -Large and -Huge
(configuration_bird_mae.py, preprocessor_config.json, model.safetensors).

Two things differ from the feature extractor on the hub, neither in a clip that is encoded alone. It pads with the
minimum of the whole batch, so that a clip's features depend on its neighbours; here the minimum is the clip's own. And
it leaves out the removal of the clip's mean, which changes only rounding, since the filterbank removes each frame's.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchkit import Hub, param
from benchkit_bird_mae.architecture import Architecture, from_config, read_config
from benchkit_bird_mae.spectrogram_backbone import EncoderParams, SpectrogramBackbone

SIZES = {
    "base": Architecture(depth=12, width=768, heads=12),
    "large": Architecture(depth=24, width=1024, heads=16),
    "huge": Architecture(depth=32, width=1280, heads=16),
}
FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Params(EncoderParams):
    checkpoint: Literal["base", "large", "huge"] = param("base", help="size of the published model")
    path: Path | None = param(
        None, place=FILES, help="a folder with config.json and model.safetensors, instead of the hub's"
    )
    revision: str = param("main", help="commit, tag or branch of the hub repository; give a commit to pin it")

    def __post_init__(self) -> None:
        if self.path is not None and self.checkpoint != "base":
            raise ValueError(f"path brings its own architecture: leave out ':{self.checkpoint}'")
        if self.revision != "main" and (self.path is not None or self.init == "random"):
            raise ValueError("revision is of the hub repository, which path and init=random do not use")
        self.check(self.architecture.depth)

    @cached_property
    def architecture(self) -> Architecture:
        """Of the checkpoint; with `path`, from its config.json."""
        if self.path is None:
            return SIZES[self.checkpoint]
        return from_config(read_config(self.path), self.path / "config.json")


class BirdMAE(SpectrogramBackbone):
    """Five seconds at 32 kHz as 512 frames of 128 mel bins, in 256 patches of 16 x 16."""

    Params = Params
    sample_rate = 32_000
    version = 2  # tokens that are padding are told apart

    @property
    def architecture(self) -> Architecture:
        return self.params.architecture

    @property
    def samples(self) -> int:
        return 5 * self.sample_rate

    def recipe(self) -> Any:
        from benchkit import Fbank
        from benchkit_bird_mae.spectrogram import Recipe

        arch = self.architecture
        return Recipe(Fbank(self.sample_rate, n_mels=arch.mels), arch.frames, mean=-7.2, std=4.43, pad=None)

    def pretrained(self) -> tuple[dict[str, Any], str]:
        from benchkit_bird_mae.weights import read_safetensors

        if self.params.path is not None:
            path = self.params.path / "model.safetensors"
            return read_safetensors(path), f"'{path}'"
        repo = f"DBD-research-group/Bird-MAE-{self.params.checkpoint.capitalize()}"
        hub = Hub(
            repo,
            revision=self.params.revision,
            instead=f"run 'hf download {repo} --local-dir FOLDER' where there is a network, then give path=FOLDER",
        )
        return read_safetensors(hub.file("model.safetensors")), f"'{repo}' at revision '{self.params.revision}'"
