"""Seeded splits: stratified by class, and whole groups on one side.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011) of groups: the rarest class first, each group to
the side that lacks most of it.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from benchkit import DataError, Fold

SIDES = ("train", "test", "val")


def sides_of(
    labels: Sequence[Sequence[int]], groups: Sequence[str], shares: Sequence[float], seed: int
) -> Int64[np.ndarray, " N"]:
    """The side of each example, 0 to len(shares) - 1: each gets about its share of every class, and a group is on one.

    labels: of each example, its classes. Equal for equal input, in whatever order the examples come. Raises DataError
    where there are fewer groups than sides.
    """
    wanted = [i for i, share in enumerate(shares) if share > 0]
    names = sorted(set(groups))
    if len(names) < len(wanted):
        raise DataError(f"{len(names)} groups cannot be on {len(wanted)} sides: group by something finer")
    number = {name: i for i, name in enumerate(names)}
    counts: list[Counter[int]] = [Counter() for _ in names]
    sizes = np.zeros(len(names), np.int64)
    for classes, group in zip(labels, groups, strict=True):
        g = number[group]
        counts[g].update(classes)
        sizes[g] += 1
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(names)).tolist()
    side = _assign(counts, sizes, np.array([shares[i] for i in wanted]), order)
    of_group = np.array(wanted)[side]
    return of_group[[number[group] for group in groups]].astype(np.int64)


def _assign(
    counts: Sequence[Counter[int]], sizes: np.ndarray, shares: np.ndarray, order: Sequence[int]
) -> Int64[np.ndarray, " G"]:
    shares = shares / shares.sum()
    totals: Counter[int] = Counter()
    holders: dict[int, list[int]] = {}
    for g in order:
        for c, n in counts[g].items():
            totals[c] += n
            holders.setdefault(c, []).append(g)
    lacks = {c: shares * n for c, n in totals.items()}
    room = shares * float(sizes.sum())
    side = np.full(len(sizes), -1, np.int64)

    def put(g: int, lack: np.ndarray) -> None:
        best = max(range(len(shares)), key=lambda s: (round(float(lack[s]), 9), round(float(room[s]), 9), -s))
        side[g] = best
        room[best] -= sizes[g]
        for c, n in counts[g].items():
            lacks[c][best] -= n

    for c in sorted(totals, key=lambda c: (totals[c], c)):
        for g in sorted(holders[c], key=lambda g: -counts[g][c]):
            if side[g] < 0:
                put(g, lacks[c])
    for g in order:
        if side[g] < 0:
            put(g, room)
    for empty in range(len(shares)):  # a side without a group gets the smallest of the side with most
        if not (side == empty).any():
            fullest = int(np.argmax(np.bincount(side, minlength=len(shares))))
            here = np.flatnonzero(side == fullest)
            side[here[np.argmin(sizes[here])]] = empty
    return side


def drawn_folds(
    split: str, labels: Sequence[Sequence[int]], groups: Sequence[str], test: float, val: float, folds: int, seed: int
) -> tuple[Fold, ...]:
    """One fold with these shares to test on and to choose by; or so many folds of a cross-validation."""
    if folds > 1:
        side = sides_of(labels, groups, [1 / folds] * folds, seed)
        return tuple(Fold(split, np.flatnonzero(side != i), split, np.flatnonzero(side == i)) for i in range(folds))
    return (fold_of(split, sides_of(labels, groups, [1 - test - val, test, val], seed)),)


def fold_of(split: str, side: np.ndarray) -> Fold:
    """One fold from each row's side, by its number in SIDES; rows of -1 are in none."""
    train, test, val = (np.flatnonzero(side == i) for i in range(3))
    return Fold(split, train, split, test, split if len(val) else None, val if len(val) else None)


def united(groups: Sequence[str], same: Sequence[str]) -> list[str]:
    """The groups, those joined that share something: `same` names what each example is a copy of."""
    parent: dict[str, str] = {}

    def root(x: str) -> str:
        while parent.setdefault(x, x) != x:
            x = parent[x]
        return x

    first: dict[str, str] = {}
    for group, copy in zip(groups, same, strict=True):
        a, b = root(group), root(first.setdefault(copy, group))
        if a != b:
            parent[max(a, b)] = min(a, b)
    return [root(group) for group in groups]
