"""Features as the trainer takes them: normalised once, in one table, each with a one for the bias."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped

from benchkit.classifiers.data import Split
from benchkit.classifiers.normalise import Normaliser, NormParams, fit_normaliser, layer_norm, plain_normaliser
from benchkit.classifiers.streams import aligned
from benchkit.classifiers.trainer import Examples
from benchkit.interfaces import Labels


@dataclass(frozen=True)
class Prepared:
    """splits: rows of `examples`. normalisers: of each split's features, to be done again before scoring."""

    examples: Examples
    splits: Sequence[Split]
    normalisers: Sequence[Normaliser]


class Table:
    """Features and labels in memory, on the device."""

    def __init__(self, x: Float32[np.ndarray, "M D1"], y: Shaped[np.ndarray, "M ..."], device: str) -> None:
        self.x, self.y, self.device = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device), device

    def take(self, rows: Int64[np.ndarray, "S B"]) -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.from_numpy(rows.reshape(-1)).to(self.device)
        x, y = self.x.index_select(0, index), self.y.index_select(0, index)
        return x.view(*rows.shape, -1), y.view(*rows.shape, *y.shape[1:])


def prepare_pooled(
    features: Shaped[np.ndarray, "N D"], labels: Labels, splits: Sequence[Split], params: NormParams, device: str
) -> Prepared:
    """Normalises by each split's own training rows. Splits with the same rows share their part of the table."""
    used = np.unique(np.concatenate([np.concatenate([s.train, s.val]) for s in splits]))
    x = np.asarray(features[used], np.float32)
    y = np.array(labels[used])
    plain, standard = plain_normaliser(params, x.shape[1]), params.norm in ("layer+standard", "standard")
    if plain.layer:
        x = x.copy() if np.shares_memory(x, features) else x
        layer_norm(x, params.norm_eps)
    local = [Split(np.searchsorted(used, s.train), np.searchsorted(used, s.val)) for s in splits]
    if not standard:
        return Prepared(Table(with_one([x]), y, device), local, [plain] * len(splits))

    parts: dict[bytes, tuple[Normaliser, np.ndarray, int]] = {}
    tables: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    size = 0
    moved, normalisers = [], []
    for split in local:
        rows = np.concatenate([np.sort(split.train), np.sort(split.val)])
        key = len(split.train).to_bytes(8, "little") + rows.tobytes()
        if key not in parts:
            normaliser = fit_normaliser(params, x[np.sort(split.train)], layered=plain.layer)
            place = np.full(len(x), -1)
            place[rows] = np.arange(len(rows))
            tables.append(Normaliser(False, 0.0, normaliser.mean, normaliser.scale)(x[rows]))
            targets.append(y[rows])
            parts[key] = (normaliser, place, size)
            size += len(rows)
        normaliser, place, start = parts[key]
        moved.append(Split(start + place[split.train], start + place[split.val]))
        normalisers.append(normaliser)
    return Prepared(Table(with_one(tables), np.concatenate(targets), device), moved, normalisers)


def with_one(parts: Sequence[Float32[np.ndarray, "_ D"]]) -> Float32[np.ndarray, "M D1"]:
    """The parts one below the other, each row followed by a one and by zeros up to a whole cache line."""
    dim = parts[0].shape[1]
    made = np.zeros((sum(map(len, parts)), aligned(dim + 1)), np.float32)
    np.concatenate(parts, out=made[:, :dim])
    made[:, dim] = 1.0
    return made
