"""sae:PATH: the features of a trained sparse autoencoder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.spec import param
from benchkit.errors import FitError
from benchkit.machine.float32 import fast_float32
from benchkit.sae.config import SAEConfig
from benchkit.scorers.saved import Loaded, as_point, check_fits, read_record, read_tensors


@dataclass(frozen=True)
class SAEParams:
    checkpoint: Path = param(help="a .safetensors file that `benchkit sae train` wrote")


class SAE(Loaded):
    """The score of a unit is its activation, on vectors that are normalised as those it was trained on.

    It comes trained: `fit` changes nothing but the device that it computes on.
    """

    Params = SAEParams
    params: SAEParams
    seeded = False

    def __init__(self, params: SAEParams) -> None:
        super().__init__(params)
        self.device = "cpu"
        self._tensors: Mapping[str, np.ndarray] | None = None
        self._on_device: dict[str, Any] = {}

    @cached_property
    def record(self) -> dict[str, Any]:
        """Of its training."""
        return read_record(self.params.checkpoint, "sae")

    @cached_property
    def config(self) -> SAEConfig:
        return SAEConfig(**self.record["autoencoder"])

    @property
    def n_prototypes(self) -> int:
        return self.config.width

    @property
    def point(self) -> str | None:
        return as_point(self.record["point"])

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        self.device, self._on_device = device, {}
        check_fits(self, activations)

    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        import torch

        from benchkit.sae.model import activate, pre_activations
        from benchkit.sae.normalise import normalised

        t = self._torch()
        if activations.shape[1] != len(t["w_enc"]):
            raise FitError(
                f"the activations have {activations.shape[1]} dimensions, and those of '{self.params.checkpoint}' had "
                f"{len(t['w_enc'])}: they are of another point or backbone"
            )
        with torch.inference_mode(), fast_float32(self.device):
            x = torch.from_numpy(np.array(activations)).to(self.device)
            of = {name.removeprefix("normalise."): v for name, v in t.items() if name.startswith("normalise.")}
            z = normalised(x, self.config.normalise, of)
            return activate(pre_activations(z, t), self.config, t, training=False).cpu().numpy()

    def tensors(self) -> Mapping[str, np.ndarray]:
        if self._tensors is None:
            self._tensors = read_tensors(self.params.checkpoint)
        return self._tensors

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        if missing := {"w_enc", "b_enc", "w_dec", "b_dec", "threshold"} - set(tensors):
            raise FitError(f"an autoencoder has {', '.join(sorted(missing))}, and these tensors do not")
        self._tensors, self._on_device = dict(tensors), {}

    def _torch(self) -> dict[str, Any]:
        import torch

        if not self._on_device:
            self._on_device = {k: torch.from_numpy(np.array(v)).to(self.device) for k, v in self.tensors().items()}
        return self._on_device
