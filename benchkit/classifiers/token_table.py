"""Tokens as the trainer takes them: gathered from wherever they are, a minibatch at a time, and normalised then."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch.nn import functional as F

from benchkit.classifiers.data import Split
from benchkit.classifiers.nets import TokenNet
from benchkit.classifiers.normalise import LIMIT, Normaliser, fit_normaliser, plain_normaliser
from benchkit.classifiers.params import TokenParams
from benchkit.classifiers.prepare import Prepared
from benchkit.interfaces import Labels

IN_CACHE = 2**19
"""Bytes of tokens that a CPU normalises at a time: they should stay in a core's cache from one pass to the next."""


def form_tokens(
    read: Callable[[slice], Float[torch.Tensor, "_ T D"]],
    normaliser: Normaliser,
    net: TokenNet,
    out: Float[torch.Tensor, "B T2 D2"],
) -> None:
    """What `read` gives, normalised and as the net takes it. It must give tensors of their own, on out's device."""
    step = len(out)
    if out.device.type == "cpu":
        step = max(1, IN_CACHE // (4 * math.prod(out.shape[1:])))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        x = read(part)
        if not x.sum(dim=-1).isfinite().all():
            _spoil(x)
        if normaliser.layer:
            x = layer_norm(x, normaliser.eps)
        if normaliser.mean is not None and normaliser.scale is not None:
            mean, scale = (torch.from_numpy(v).to(x.device) for v in (normaliser.mean, normaliser.scale))
            x = x.sub_(mean).mul_(scale)
        out[part] = net.form(x)


def layer_norm(x: Float[torch.Tensor, "*n D"], eps: float) -> Float[torch.Tensor, "*n D"]:
    """LayerNorm as `normalise.layer_norm` has it."""
    if not eps:
        largest = x.abs().amax(dim=-1, keepdim=True)
        x, eps = x / torch.where(largest > 0, largest, 1.0), LIMIT
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _spoil(x: Float[torch.Tensor, "n T D"]) -> None:
    """Makes every token of an example NaN that has one which is neither finite nor padding: normalised, that one would
    be taken for padding."""
    padding = x.isnan().all(dim=2)
    wrong = (~x.isfinite()).any(dim=2) & ~padding
    x[wrong.any(dim=1)] = torch.nan


def formed_shape(shape: tuple[int, ...], net: TokenNet) -> tuple[int, ...]:
    """Of one example's tokens as the net takes them, where they come in this shape."""
    return tuple(net.form(torch.ones((1, *shape))).shape[1:])


class TokenTable:
    """Rows are numbered split by split: row r of split s is s * N + r, so that each gets its split's normalisation."""

    def __init__(
        self,
        features: Shaped[np.ndarray, "N T D"],
        labels: Labels,
        splits: Sequence[Split],
        normalisers: Sequence[Normaliser],
        net: TokenNet,
        device: str,
    ) -> None:
        self.features, self.labels, self.normalisers, self.net, self.device = features, labels, normalisers, net, device
        self.shape = formed_shape(features.shape[1:], net)
        self.scratch = _Scratch()
        self.held: torch.Tensor | None = None
        self.place = np.arange(len(features))
        if device.startswith("cuda"):
            self._hold(np.unique(np.concatenate([np.concatenate([s.train, s.val]) for s in splits])))

    def _hold(self, used: Int64[np.ndarray, " n"]) -> None:
        """Puts the rows that are used on the device, where they fill less than half of what is free there."""
        one = torch.from_numpy(np.array(self.features[:1]))
        if len(used) * one.nbytes > torch.cuda.mem_get_info(self.device)[0] // 2:
            return
        self.held = torch.empty((len(used), *one.shape[1:]), dtype=one.dtype, device=self.device)
        step = max(1, 2**28 // one.nbytes)
        for i in range(0, len(used), step):
            self.held[i : i + step] = torch.from_numpy(np.array(self.features[used[i : i + step]])).to(self.device)
        self.place = np.full(len(self.features), -1)
        self.place[used] = np.arange(len(used))

    def take(self, rows: Int64[np.ndarray, "S B"]) -> tuple[torch.Tensor, torch.Tensor]:
        splits, local = np.divmod(rows, len(self.features))
        shape = (*rows.shape, *self.shape)
        on_cpu = self.device.startswith("cpu")
        x = self.scratch.shaped(shape) if on_cpu else torch.empty(shape, device=self.device)
        for s, split in enumerate(splits[:, 0].tolist()):
            form_tokens(partial(self._read, local[s]), self.normalisers[split], self.net, x[s])
        return x, torch.from_numpy(self.labels[local]).to(self.device)

    def _read(self, rows: Int64[np.ndarray, " B"], part: slice) -> Float[torch.Tensor, "_ T D"]:
        rows = rows[part]
        if self.held is not None:
            return self.held[torch.from_numpy(self.place[rows]).to(self.device)].float()
        return torch.from_numpy(self.features[rows].astype(np.float32, copy=False)).to(self.device)


class _Scratch(threading.local):
    """Memory of each thread's own, used again for each minibatch: the system would have to clear tens of megabytes
    each time."""

    def __init__(self) -> None:
        self.flat = torch.empty(0)

    def shaped(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Of this shape, with whatever is in it."""
        size = math.prod(shape)
        if self.flat.numel() < size:
            self.flat = torch.empty(size)
        return self.flat[:size].view(shape)


def prepare_tokens(
    features: Shaped[np.ndarray, "N T D"],
    labels: Labels,
    splits: Sequence[Split],
    params: TokenParams,
    net: TokenNet,
    device: str,
) -> Prepared:
    """Measures each split's normalisation. Splits with the same training rows share it."""
    found: dict[bytes, Normaliser] = {}
    normalisers = []
    for split in splits:
        rows = np.sort(split.train)
        key = rows.tobytes()
        if key not in found:
            found[key] = _fit(features, rows, params)
        normalisers.append(found[key])
    n = len(features)
    moved = [Split(s * n + split.train, s * n + split.val) for s, split in enumerate(splits)]
    return Prepared(TokenTable(features, labels, splits, normalisers, net, device), moved, normalisers)


def _fit(features: Shaped[np.ndarray, "N T D"], rows: Int64[np.ndarray, " n"], params: TokenParams) -> Normaliser:
    if params.norm in ("layer", "none"):
        return plain_normaliser(params, features.shape[-1])
    chosen = rows[np.linspace(0, len(rows) - 1, min(params.norm_examples, len(rows))).round().astype(np.int64)]
    tokens = features[chosen].reshape(-1, features.shape[-1])
    padding = np.isnan(tokens[:, 0])
    return fit_normaliser(params, tokens[~padding] if padding.any() else tokens)
