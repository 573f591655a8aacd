"""Waveforms as the normalised spectrogram that a masked autoencoder was trained on."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from benchkit import Fbank, fbank


@dataclass(frozen=True)
class Recipe:
    """From a waveform to the encoder's input.

    frames: the spectrogram is cut or padded to this many.
    mean, std: of the training data's log-mel values; the input is (x - mean) / (2 std), as AST began it.
    pad: the value of frames behind the clip's end, before normalisation; None is the clip's own minimum.
    """

    fbank: Fbank
    frames: int
    mean: float
    std: float
    pad: float | None


def spectrogram(waves: Float32[Tensor, "B samples"], recipe: Recipe) -> Float32[Tensor, "B frames mels"]:
    """Mean removed, Kaldi filterbank, padded, normalised; each clip on its own."""
    waves = waves - waves.mean(1, keepdim=True)
    found = fbank(waves, recipe.fbank)[:, : recipe.frames]
    behind = recipe.frames - found.shape[1]
    if behind and recipe.pad is None:
        floor = found.amin((1, 2), keepdim=True)
        found = torch.cat([found, floor.expand(-1, behind, found.shape[2])], dim=1)
    elif behind:
        found = F.pad(found, (0, 0, 0, behind), value=recipe.pad)
    return (found - recipe.mean) / (2 * recipe.std)
