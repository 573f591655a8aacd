"""Audio-MAE: a masked autoencoder pretrained on AudioSet-2M (arXiv 2207.06405), from its port to timm.

Weights: gaunernst/vit_base_patch16_1024_128.audiomae_as2m on the hub, in timm's layout of a ViT-B/16 for 1024 x 128. It
has a final `norm` and no `fc_norm`. Filterbank and normalisation: its model card, and dataset.py of
github.com/facebookresearch/AudioMAE.

The model was trained on 10 seconds. What it is given here is a choice, and part of the model's name:

seconds=5 (default)     512 frames, 256 patches. The positions of the 512 training patches do not fit. The baseline of
                        the Bird-MAE paper (github.com/DBD-research-group/Bird-MAE, models/vit/vit.py,
                        `load_pretrained_weights`) computes sin-cos positions anew for a grid of 8 x 32, and so does
                        positions=grid. With positions=cut each patch keeps the position that it had in the first 5 of
                        10 seconds, as stored with the weights.
seconds=10              1024 frames, as it was trained; a 5-second clip is half silence. Positions as stored.
recipe=bird-mae         the baseline in full: configs/experiment/paper/ablations/hsn_linear/amae_linear.yaml runs the
                        same spectrogram as Bird-MAE, at 32 kHz with Bird-MAE's mean and standard deviation, not the one
                        that Audio-MAE was trained on (recipe=audioset, the default).

pool=mean is the baseline's: the mean of the patch tokens through a LayerNorm that was never trained, since the
checkpoint brings none. pool=cls is timm's and the model card's: the class token after `norm`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchkit import BenchkitError, Hub, OfflineError, RemoteError, param
from benchkit_audio_mae.checkpoint import FILES, from_timm, read_weights
from benchkit_bird_mae.architecture import Architecture, read_config
from benchkit_bird_mae.spectrogram_backbone import EncoderParams, SpectrogramBackbone

REPO = "gaunernst/vit_base_patch16_1024_128.audiomae_as2m"
BASE = Architecture(depth=12, width=768, heads=12, frames=1024, fc_norm=False)


@dataclass(frozen=True)
class Params(EncoderParams):
    seconds: Literal[5, 10] = param(5, help="length of the clip: 5 is 512 frames, 10 is 1024 as in training")
    positions: Literal["grid", "cut"] = param(
        "grid", help="with seconds=5: sin-cos positions anew, as the Bird-MAE paper's baseline; or the stored ones, cut"
    )
    recipe: Literal["audioset", "bird-mae"] = param(
        "audioset", help="audioset: 16 kHz, as trained; bird-mae: 32 kHz and Bird-MAE's constants, as in its paper"
    )
    path: Path | None = param(
        None, place=("config.json", *FILES), help="a folder that timm's save_for_hf wrote, instead of the hub's"
    )
    revision: str = param("main", help="commit, tag or branch of the hub repository; give a commit to pin it")

    def __post_init__(self) -> None:
        if self.revision != "main" and (self.path is not None or self.init == "random"):
            raise ValueError("revision is of the hub repository, which path and init=random do not use")
        if self.seconds == 10 and (self.positions != "grid" or self.recipe != "audioset"):
            raise ValueError("positions and recipe are of seconds=5")
        self.check(self.stored.depth)

    @cached_property
    def stored(self) -> Architecture:
        """Of the checkpoint: 1024 frames."""
        if self.path is None:
            return BASE
        return from_timm(read_config(self.path), self.path / "config.json")


class AudioMAE(SpectrogramBackbone):
    """Frames of 128 mel bins each 10 ms, in patches of 16 x 16: 256 for 5 seconds, 512 for 10."""

    Params = Params
    sample_rate = 16_000
    version = 2  # tokens that are padding are told apart

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        if self.params.recipe == "bird-mae":
            self.sample_rate = 32_000

    @property
    def stored(self) -> Architecture:
        return self.params.stored

    @property
    def architecture(self) -> Architecture:
        return replace(self.stored, frames=512) if self.params.seconds == 5 else self.stored

    @property
    def samples(self) -> int:
        return self.params.seconds * self.sample_rate

    def recipe(self) -> Any:
        from benchkit import Fbank
        from benchkit_bird_mae.spectrogram import Recipe

        fbank, frames = Fbank(self.sample_rate), self.architecture.frames
        if self.params.recipe == "bird-mae":
            return Recipe(fbank, frames, mean=-7.2, std=4.43, pad=None)
        return Recipe(fbank, frames, mean=-4.2677393, std=4.5689974, pad=0.0)

    def pretrained(self) -> tuple[dict[str, Any], str]:
        if self.params.path is not None:
            for name in FILES:
                if (path := self.params.path / name).exists():
                    return read_weights(path), f"'{path}'"
            raise BenchkitError(f"'{self.params.path}' holds neither {' nor '.join(FILES)}")
        return read_weights(self._from_hub()), f"'{REPO}' at revision '{self.params.revision}'"

    def _from_hub(self) -> Path:
        instead = f"run 'hf download {REPO} --local-dir FOLDER' where there is a network, then give path=FOLDER"
        hub = Hub(REPO, revision=self.params.revision, instead=instead)
        safe, pickled = FILES
        try:
            return hub.file(pickled)  # all that the repository held when this was written
        except OfflineError:
            raise
        except RemoteError as e:
            try:
                return hub.file(safe)
            except RemoteError:
                raise e from None

    def adapt(self, model: Any) -> None:
        """Positions for the shorter clip."""
        import torch

        from benchkit_bird_mae.vit import sincos_positions

        if self.params.seconds == 5:
            arch = self.architecture
            cut = model.pos_embed[:, : 1 + arch.patches]
            positions = cut if self.params.positions == "cut" else sincos_positions(arch)
            model.pos_embed = torch.nn.Parameter(positions.clone(), requires_grad=False)
