"""A trained net as a classifier."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped

from benchkit.classifiers.nets import Net, TokenNet
from benchkit.classifiers.normalise import Normaliser
from benchkit.classifiers.prepare import with_one
from benchkit.classifiers.token_table import form_tokens, formed_shape
from benchkit.interfaces import Fitted
from benchkit.machine.float32 import fast_float32

SCORING_MEMORY = 2**30
"""About how many bytes scoring takes."""

CPU_BATCH = 2**24
"""Bytes of features scored at a time on a CPU: memory for much more would be fresh from the system each time."""


class FittedNet(Fitted):
    """One head. Scores are log-probabilities where it was trained with cross-entropy, else each class's logit."""

    def __init__(
        self,
        net: Net,
        weights: Mapping[str, torch.Tensor],
        normaliser: Normaliser,
        softmax: bool,
        device: str,
        record: Mapping[str, Any],
    ) -> None:
        self.net, self.normaliser, self.softmax, self.device, self.record = net, normaliser, softmax, device, record
        self.weights = {name: w.cpu() for name, w in weights.items()}

    def scores(self, x: Shaped[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        w = {name: t[None, None].to(self.device) for name, t in self.weights.items()}
        shape = formed_shape(x.shape[1:], self.net) if isinstance(self.net, TokenNet) else x.shape[1:]
        rows = min(4096, SCORING_MEMORY // (4 * self.net.floats(1)))
        if self.device.startswith("cpu"):
            rows = min(rows, CPU_BATCH // (4 * math.prod(shape)))
        rows = max(1, rows)
        parts = []
        with torch.inference_mode(), fast_float32(self.device):
            for start in range(0, len(x), rows):
                logits_bc = self.net.logits(w, self._batch(x[start : start + rows], shape))[0, 0].transpose(0, 1)
                parts.append((logits_bc.log_softmax(dim=1) if self.softmax else logits_bc).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.net.n_classes), np.float32)

    def _batch(self, x: Shaped[np.ndarray, "B ..."], shape: tuple[int, ...]) -> torch.Tensor:
        """[1, B, ...] on the device. shape: of an example as the net takes it, of a net on tokens."""
        if not isinstance(self.net, TokenNet):
            return torch.from_numpy(with_one([self.normaliser(x)]))[None].to(self.device)
        formed = torch.empty((len(x), *shape), device=self.device)

        def read(part: slice) -> torch.Tensor:
            return torch.from_numpy(np.array(x[part], np.float32)).to(self.device)

        form_tokens(read, self.normaliser, self.net, formed)
        return formed[None]
