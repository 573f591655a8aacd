"""What questions without a probe find, as numbers that any resample of the examples has."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt16

from benchkit.interfaces import Answer

_ROWS = 8192


class MeanAnswer(Answer):
    """Each metric is the mean of a column over the examples that have it (are not NaN)."""

    def __init__(
        self, columns: Sequence[str], table: Float32[np.ndarray, "n K"], chance: Mapping[str, float],
        record: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.columns, self.table, self.chance, self.record = tuple(columns), table, chance, record

    def values(
        self, name: str, weights: UInt16[np.ndarray, "n1 R"], repeats: UInt16[np.ndarray, "k1 R"]
    ) -> Float64[np.ndarray, " R"]:
        """The weighted mean of the column of this name."""
        return weighted_mean(self.table[:, self.columns.index(name)], weights)


def weighted_mean(values: Float32[np.ndarray, " n"], weights: UInt16[np.ndarray, "m R"]) -> Float64[np.ndarray, " R"]:
    """Over the values that are not NaN; NaN where none weighs anything. Weights beyond the n-th row do not count."""
    total, size = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64)
        known = ~np.isnan(part)
        some = weights[start : start + len(part)][known].astype(np.float64)
        total += part[known] @ some
        size += some.sum(axis=0)
    return np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)


class PartitionAnswer(Answer):
    """Several partitions of the examples into clusters, against their classes.

    labels: of each example, -1 where it has no single one and does not count. clusters: one partition a row.
    sampled, silhouettes: rows whose silhouettes were computed, and these, in each partition. ami: the adjusted mutual
    information of each.
    """

    def __init__(
        self, labels: Int64[np.ndarray, " n"], clusters: Int64[np.ndarray, "k n"], sampled: Int64[np.ndarray, " s"],
        silhouettes: Float32[np.ndarray, "k s"], ami: Sequence[float], chance: Mapping[str, float],
        record: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.repeats, self.chance, self.record = len(clusters), chance, record
        self.columns = tuple(f"cluster_{i}" for i in range(1, len(clusters) + 1))
        self.table = clusters.T.astype(np.float32)
        self.sampled, self.silhouettes = sampled, silhouettes
        rows = np.flatnonzero(labels >= 0)
        self._overlaps = [_Overlap(rows, labels[rows], each[rows]) for each in clusters]
        self._expected = [o.expected(a) for o, a in zip(self._overlaps, ami, strict=True)]

    def values(
        self, name: str, weights: UInt16[np.ndarray, "n1 R"], repeats: UInt16[np.ndarray, "k1 R"]
    ) -> Float64[np.ndarray, " R"]:
        """The mean over the repeats that each resample draws."""
        each = np.stack([self._one(i, name, weights) for i in range(self.repeats)])
        drawn = repeats[:-1] * ~np.isnan(each)
        total, size = (np.nan_to_num(each) * drawn).sum(axis=0), drawn.sum(axis=0, dtype=np.float64)
        return np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)

    def _one(self, i: int, name: str, weights: UInt16[np.ndarray, "n1 R"]) -> Float64[np.ndarray, " R"]:
        if name == "silhouette":
            return weighted_mean(self.silhouettes[i], weights[self.sampled])
        overlap = self._overlaps[i]
        if name == "ari":
            return overlap.ari(weights)
        information, mean = overlap.information(weights)
        expected = self._expected[i] if name == "ami" else 0.0
        # Where both partitions are of one part there is nothing to know, and all of it is known (as scikit-learn).
        return np.divide(information - expected, mean - expected, out=np.ones_like(mean), where=mean - expected > 1e-12)


class _Overlap:
    """How many examples each class and each cluster share, on any resample."""

    def __init__(
        self, rows: Int64[np.ndarray, " m"], labels: Int64[np.ndarray, " m"], clusters: Int64[np.ndarray, " m"]
    ) -> None:
        width = int(clusters.max(initial=0)) + 1
        pairs, self.pair = np.unique(labels * width + clusters, return_inverse=True)
        _, self.row_of = np.unique(pairs // width, return_inverse=True)
        _, self.column_of = np.unique(pairs % width, return_inverse=True)
        order = np.argsort(self.pair, kind="stable")
        self.rows, self.starts = rows[order], np.searchsorted(self.pair[order], np.arange(len(pairs)))

    def counts(self, weights: UInt16[np.ndarray, "n1 R"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of pairs [P, R], of classes [C, R], of clusters [K, R]."""
        pairs = np.add.reduceat(weights[self.rows], self.starts, axis=0, dtype=np.float64)
        return pairs, _summed(pairs, self.row_of), _summed(pairs, self.column_of)

    def information(
        self, weights: UInt16[np.ndarray, "n1 R"]
    ) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """Mutual information of class and cluster, and the mean of their entropies, in nats."""
        pairs, rows, columns = self.counts(weights)
        n = np.maximum(pairs.sum(axis=0), 1.0)
        of_rows, of_columns = _entropy(rows / n), _entropy(columns / n)
        return np.maximum(of_rows + of_columns - _entropy(pairs / n), 0.0), (of_rows + of_columns) / 2

    def expected(self, ami: float) -> float:
        """The mutual information that chance gives, from the adjusted one of the examples as they are."""
        information, mean = (float(v[0]) for v in self.information(_once(self.rows)))
        return (information - ami * mean) / (1 - ami) if ami < 1 - 1e-9 else 0.0

    def ari(self, weights: UInt16[np.ndarray, "n1 R"]) -> Float64[np.ndarray, " R"]:
        """The adjusted Rand index (Hubert and Arabie 1985)."""
        counts = self.counts(weights)
        pairs, rows, columns = (_choose(c).sum(axis=0) for c in counts)
        by_chance = rows * columns / np.maximum(_choose(counts[0].sum(axis=0)), 1.0)
        most = (rows + columns) / 2
        return np.divide(
            pairs - by_chance, most - by_chance, out=np.ones_like(most), where=np.abs(most - by_chance) > 1e-12
        )


def _summed(pairs: Float64[np.ndarray, "P R"], part_of: Int64[np.ndarray, " P"]) -> Float64[np.ndarray, "_ R"]:
    made = np.zeros((int(part_of.max(initial=-1)) + 1, pairs.shape[1]))
    np.add.at(made, part_of, pairs)
    return made


def _entropy(share: Float64[np.ndarray, "m R"]) -> Float64[np.ndarray, " R"]:
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=0)


def _choose(n: np.ndarray) -> np.ndarray:
    return n * (n - 1) / 2


def _once(rows: Int64[np.ndarray, " m"]) -> UInt16[np.ndarray, "n1 1"]:
    weights = np.zeros((int(rows.max(initial=-1)) + 2, 1), np.uint16)
    weights[rows] = 1
    return weights
