"""Retrieval: does the nearest by cosine, and do the nearest, share the class of what is asked for?

Two examples are of a kind where they share a class (of several labels: one of them). An example is asked for among
all others of the test split but those of its own group (its recording), or among training examples. One without a
label, or without any of its kind to be found, is not asked for.

r_at_1          share of the nearest that are of the kind (Recall@1 of metric learning, Oh Song et al. 2016)
p_at_1          share of the nearest one's labels that the query has too; of one label the same as r_at_1
map_at_r        MAP@R (Musgrave et al. 2020, arXiv 2003.08505, section 3.3): with R of the kind to be found, the sum of
                the precision at each of the first R places that is of the kind, divided by R
retrieval_auroc the chance that one of the kind is nearer than one that is not, mean over queries

What is equally near is in no order: each number is its mean over all orders. Similarities are rounded to 2^-20, below
which float32 orders equal vectors by chance.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from benchkit.catalog.spec import param
from benchkit.classifiers.answers import MeanAnswer
from benchkit.classifiers.data import one_column_a_class
from benchkit.errors import FitError
from benchkit.interfaces import Answer, Asked, Problem, Question, Rows
from benchkit.machine import cpus
from benchkit.machine.seeds import Purpose, generator

COLUMNS = ("map_at_r", "r_at_1", "p_at_1", "retrieval_auroc")

_BYTES = 2**27
"""Of similarities held at a time."""
_GALLERY = 4096
"""Examples of the gallery read at a time."""
_GRID = np.float32(2.0**20)
_GONE = np.float32(-3.0)
"""In a similarity's place: not to be found. Below all others."""


@dataclass(frozen=True)
class RetrievalParams:
    gallery: Literal["test", "train"] = param(
        "test", help="what is searched: the other test examples, less those of the query's group, or training examples"
    )
    queries: int | None = param(
        50_000, help="test examples that are asked for at most, drawn with the seed; none: all of them", low=1
    )


class Retrieval(Question):
    """The nearest by cosine, as features are, without normalisation. Memory: some hundred MB, whatever their number."""

    Params = RetrievalParams
    metrics = COLUMNS

    @classmethod
    def trains(cls, params: Any) -> bool:
        """Where training examples are searched."""
        return bool(params.gallery == "train")

    def ask(self, test: Asked, train: Asked | None, problem: Problem, *, seed: int) -> Answer:
        gallery = test if train is None else train
        table = np.full((len(test.labels), len(COLUMNS)), np.nan, np.float32)
        rows = self._queries(test, problem, seed)
        search = _Search.of(test, gallery, problem, within=train is None)
        chance = np.full((len(table), len(COLUMNS)), np.nan)
        for some in search.blocks(rows):
            table[some], chance[some] = search.judge(some)
        asked = ~np.isnan(table[:, 0])
        if not asked.any():
            raise FitError("no test example has another of its class to be found: there is nothing to retrieve")
        record = {
            "queries": int(asked.sum()),
            "gallery": len(gallery.labels),
            "not_asked": int(len(rows) - asked.sum()),
        }
        means = {name: float(np.nanmean(chance[:, i])) for i, name in enumerate(COLUMNS)}
        return MeanAnswer(COLUMNS, table, means, record)

    def _queries(self, test: Asked, problem: Problem, seed: int) -> Int64[np.ndarray, " q"]:
        labelled = np.arange(len(test.labels)) if test.labels.ndim == 1 else np.flatnonzero(test.labels.any(axis=1))
        if not len(labelled):
            raise FitError("no test example has a label: there is nothing to retrieve")
        most = self.params.queries
        if most is None or len(labelled) <= most:
            return labelled
        return np.sort(generator(seed, Purpose.QUESTION).permutation(labelled)[:most])


@dataclass(frozen=True)
class _Search:
    """Queries from `test` in `gallery`. within: both are the same examples. scale: one over each vector's length."""

    test: Asked
    gallery: Asked
    problem: Problem
    within: bool
    test_scale: Float32[np.ndarray, " N"]
    scale: Float32[np.ndarray, " M"]
    harmonic: Float64[np.ndarray, " M1"]
    """1 + 1/2 + ... + 1/i."""
    members: dict[int, Int64[np.ndarray, " _"]]
    """Of one label: each class's examples in the gallery."""
    n_labels: Float32[np.ndarray, " M"]

    @staticmethod
    def of(test: Asked, gallery: Asked, problem: Problem, within: bool) -> "_Search":
        scale = _scale(gallery.features, "gallery")
        m = len(gallery.labels)
        single = gallery.labels.ndim == 1
        members = {int(c): np.flatnonzero(gallery.labels == c) for c in np.unique(gallery.labels)} if single else {}
        n_labels = np.ones(m, np.float32) if single else gallery.labels.sum(axis=1).astype(np.float32)
        return _Search(
            test, gallery, problem, within, scale if within else _scale(test.features, "test"), scale,
            np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, m + 1))]), members, n_labels,
        )  # fmt: skip

    def blocks(self, rows: Int64[np.ndarray, " q"]) -> Iterator[Int64[np.ndarray, " b"]]:
        step = max(1, _BYTES // (4 * max(1, len(self.gallery.labels))))
        return (rows[start : start + step] for start in range(0, len(rows), step))

    def judge(self, rows: Int64[np.ndarray, " b"]) -> tuple[Float64[np.ndarray, "b 4"], Float64[np.ndarray, "b 4"]]:
        """The four numbers of each query, and what features that know nothing would get."""
        near_bm = self._similarities(rows)
        shared_bm = None
        if self.gallery.labels.ndim == 2:
            asked, there = (one_column_a_class(y, self.problem) for y in (self.test.labels[rows], self.gallery.labels))
            shared_bm = asked @ there.T
        with ThreadPoolExecutor(max(1, min(cpus.available(), 8))) as pool:
            found = list(pool.map(partial(self._one, rows, near_bm, shared_bm), range(len(rows))))
        made = np.array(found).reshape(len(rows), 2, len(COLUMNS))
        return made[:, 0], made[:, 1]

    def _similarities(self, rows: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b M"]:
        """Cosines on a grid; what a query must not find is marked."""
        query_bd = self.test.features[rows] * self.test_scale[rows, None]
        out = np.empty((len(rows), len(self.scale)), np.float32)
        for start in range(0, len(self.scale), _GALLERY):
            part = slice(start, start + _GALLERY)
            np.matmul(query_bd, self.gallery.features[part].T, out=out[:, part])
            out[:, part] *= self.scale[part]
        out *= _GRID
        np.rint(out, out=out)
        out /= _GRID
        return out

    def _one(
        self, rows: Int64[np.ndarray, " b"], near_bm: Float32[np.ndarray, "b M"],
        shared_bm: Float32[np.ndarray, "b M"] | None, b: int,
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:  # fmt: skip
        row, near = int(rows[b]), near_bm[b]
        if self.within:
            near[self.gallery.groups == self.test.groups[row]] = _GONE  # itself among them
        if shared_bm is None:
            members = self.members.get(int(self.test.labels[row]), np.arange(0))
            shared = None
        else:
            shared = shared_bm[b]
            members = np.flatnonzero(shared)
        kind = near[members]
        kind = np.sort(kind[kind > _GONE])
        if not len(kind):
            return (np.nan,) * 4, (np.nan,) * 4
        best = near == near.max()
        p_at_1 = float((shared[best] / np.maximum(self.n_labels[best], 1.0)).mean()) if shared is not None else None
        p_chance = None
        if shared is not None:
            there = near > _GONE
            p_chance = float((shared[there] / np.maximum(self.n_labels[there], 1.0)).mean())
        everything = np.sort(near)
        everything = everything[np.searchsorted(everything, _GONE, "right") :]
        return judged(everything, kind, self.harmonic, p_at_1), by_chance(
            len(everything), len(kind), self.harmonic, p_chance
        )


def judged(
    near: Float32[np.ndarray, " n"], kind: Float32[np.ndarray, " r"], harmonic: Float64[np.ndarray, " _"],
    p_at_1: float | None = None,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Of one query: map_at_r, r_at_1, p_at_1, retrieval_auroc. near: similarities of all that can be found, ascending;
    kind: of those of its kind, ascending. NaN for the last where all are of the kind."""
    n, r = len(near), len(kind)
    value, first, alike = np.unique(kind, return_index=True, return_counts=True)
    above = n - np.searchsorted(near, value, "right")  # of all that are nearer than each of the kind
    equal = n - np.searchsorted(near, value, "left") - above
    before = r - first - alike  # of the kind that are nearer
    r_at_1 = float(alike[-1] / equal[-1]) if above[-1] == 0 else 0.0
    pairs = float((alike * ((n - above - equal) - (r - before - alike) + 0.5 * (equal - alike))).sum())
    auroc = pairs / (r * (n - r)) if n > r else np.nan
    return _map_at_r(r, above, equal, before, alike, harmonic), r_at_1, r_at_1 if p_at_1 is None else p_at_1, auroc


def _map_at_r(
    r: int, above: np.ndarray, equal: np.ndarray, before: np.ndarray, alike: np.ndarray,
    harmonic: Float64[np.ndarray, " _"],
) -> float:  # fmt: skip
    """The mean over all orders of what is equally near. Of a group of g equals, a of them of the kind, behind A nearer
    ones, b of the kind: place A + j is of the kind with a / g, and then has (b + 1 + (j - 1) (a - 1) / (g - 1)) of them
    up to it."""
    places = np.clip(r - above, 0, equal)
    step = (alike - 1) / np.maximum(equal - 1, 1)
    # The sum over j of (b + 1 + step (j - 1)) / (A + j) is step for each place, and harmonic numbers for the rest.
    rest = before + 1 - step * (above + 1)
    sums = step * places + rest * (harmonic[above + places] - harmonic[above])
    return float((alike / equal * sums).sum() / r)


def by_chance(
    n: int, r: int, harmonic: Float64[np.ndarray, " _"], p_at_1: float | None = None
) -> tuple[float, float, float, float]:
    """What a query gets where all are equally near."""
    one, zero = np.array([n]), np.array([0])
    share = r / n
    return (
        _map_at_r(r, zero, one, zero, np.array([r]), harmonic),
        share,
        share if p_at_1 is None else p_at_1,
        0.5 if n > r else np.nan,
    )


def _scale(rows: Rows, where: str) -> Float32[np.ndarray, " N"]:
    """One over each vector's length, 0 for one of zeros. Raises FitError for what is not finite."""
    norms = np.concatenate([
        np.linalg.norm(rows[start : start + _GALLERY].astype(np.float64), axis=1)
        for start in range(0, len(rows), _GALLERY)
    ] or [np.zeros(0)])  # fmt: skip
    finite: Bool[np.ndarray, " N"] = np.isfinite(norms)
    if not finite.all():
        raise FitError(f"the features of {int((~finite).sum())} of {len(rows)} {where} examples hold NaN or infinity")
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
