"""An autoencoder from a file, at work on activations: its units, and its reconstruction of x."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from benchkit.activations.recording import RecordedPoint
from benchkit.errors import FitError
from benchkit.machine.float32 import fast_float32
from benchkit.sae.config import SAEConfig
from benchkit.sae.measure import Measured
from benchkit.sae.model import activate, pre_activations
from benchkit.sae.normalise import denormalised, error_of_x, normalised
from benchkit.scorers.saved import read_record, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 1 << 26
"""Unit activations that are held at a time: 256 MB."""
BATCH = 4096


@dataclass(frozen=True)
class Applied:
    """record: of the file. tensors: on the device."""

    record: dict[str, Any]
    config: SAEConfig
    tensors: "dict[str, Tensor]"
    device: str

    @staticmethod
    def open(file: Path, device: str = "cpu") -> "Applied":
        """Raises StoreError where the file cannot be read."""
        import torch

        record, tensors = read_record(file, "sae"), read_tensors(file)
        config = SAEConfig(**record["autoencoder"])
        return Applied(
            record, config, {k: torch.from_numpy(np.array(v)).to(device) for k, v in tensors.items()}, device
        )  # fmt: skip

    @property
    def is_transcoder(self) -> bool:
        return "target" in self.record

    def parts(self, x: Float32[np.ndarray, "N D"]) -> "Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]":
        """x, z, f and z_hat of some vectors at a time, on the device. Raises FitError for another dimension."""
        import torch

        t = self.tensors
        if x.shape[1] != len(t["w_enc"]):
            raise FitError(
                f"the activations have {x.shape[1]} dimensions, and the autoencoder's had {len(t['w_enc'])}: they are "
                "of another point or backbone"
            )
        rows = max(1, AT_ONCE // self.config.width)
        with torch.inference_mode(), fast_float32(self.device):
            for start in range(0, len(x), rows):
                part = torch.from_numpy(np.ascontiguousarray(x[start : start + rows])).to(self.device)
                z = normalised(part, self.config.normalise, self._of("normalise."))
                f = activate(pre_activations(z, t), self.config, t, training=False)
                yield part, z, f, f @ t["w_dec"] + t["b_dec"]

    def reconstructed(self, x: Float32[np.ndarray, "N D"]) -> tuple[Float32[np.ndarray, "N D"], list[np.ndarray]]:
        """x_hat, and f in parts."""
        made, units = [], []
        for part, _, f, z_hat in self.parts(x):
            made.append(denormalised(z_hat, part, self.config.normalise, self._of("normalise.")).cpu().numpy())
            units.append(f.cpu().numpy())
        return np.concatenate(made), units

    def over(self, point: RecordedPoint, advance: Any = None) -> tuple[dict[str, float], int]:
        """Its metrics on every vector of a recording, those that it was trained on included; and how many there are."""
        patches = bool(self.record.get("training", {}).get("patches", True))
        measured = Measured(self.config.width, self.device, pairs=False)
        how, tensors = self.config.normalise, self._of("normalise.")
        for batch in point.batches(BATCH, patches=patches):
            for x, z, f, z_hat in self.parts(batch):
                measured.add(z, z_hat, f, x, error_of_x(z - z_hat, x, how, tensors))
            if advance is not None:
                advance(len(batch))
        return measured.found(), measured.n

    def _of(self, prefix: str) -> "dict[str, Tensor]":
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
