"""Which training examples a cell uses: nested subsets, the same on every machine.

    rows = subset(labels, n_train=5, seed=0, problem=problem)

Every class has an order of its own, drawn from (seed, class): the i-th example of class c gets the i-th 64-bit word of
`PCG64(SeedSequence(seed, spawn_key=(c,)))` as its key, and smaller keys come first. numpy promises that these raw words
never change (NEP 19), which it does not promise of `permutation`. An example that is left out because it does not
decode keeps its key, so the choice among the others stays what it was.
"""

import numpy as np
from jaxtyping import Bool, Int

from benchkit.errors import FitError
from benchkit.interfaces import Labels, Problem


def subset(
    labels: Labels,
    n_train: int,
    seed: int,
    problem: Problem,
    valid: Bool[np.ndarray, " N"] | None = None,
) -> Int[np.ndarray, " n"]:
    """Rows to train on, ascending. For one seed the rows for n_train are among those for n_train + 1.

    n_train: examples of each class (k-shot); -1 is all. multiclass: exactly so many. multilabel and detection: at
        least so many, where an example counts for each of its classes: round k walks through the classes in their
        order, and one that has fewer than k examples so far takes the next of its own. traits: so many in total.
    valid: rows that may be used; all, where it is not given.

    Classes without any example are left alone. Raises FitError, in one line, for an n_train that is 0, below -1 or
    larger than a class, for a negative seed, and where no row is valid.
    """
    if n_train == 0 or n_train < -1:
        raise FitError(f"n_train={n_train} is no number of training examples: give 1 or more, or -1 for all")
    if seed < 0:
        raise FitError(f"seed={seed} is negative: give 0 or more")
    usable = np.ones(len(labels), bool) if valid is None else valid
    if not usable.any():
        raise FitError(f"none of the {len(labels)} training examples can be used")
    if n_train == -1:
        return np.flatnonzero(usable)
    if problem.kind == "traits":
        order = _order(np.arange(len(labels)), usable, seed, 0)
        if n_train > len(order):
            raise FitError(f"n_train={n_train} is more than the {len(order)} training examples (-1 uses all)")
        return np.sort(order[:n_train])
    members = (lambda c: labels == c) if labels.ndim == 1 else (lambda c: labels[:, c] != 0)
    orders = [_order(np.flatnonzero(members(c)), usable, seed, c) for c in range(problem.n_classes)]
    _check_sizes(orders, n_train, problem)
    if labels.ndim == 1:
        return np.sort(np.concatenate([order[:n_train] for order in orders]))
    return _rounds(labels, orders, n_train)


def _order(rows: Int[np.ndarray, " m"], usable: Bool[np.ndarray, " N"], seed: int, number: int) -> np.ndarray:
    """The usable ones among `rows`, in the order that (seed, number) gives."""
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(number,))).random_raw(len(rows))
    order = rows[np.argsort(keys, kind="stable")]
    return order[usable[order]]


def _rounds(labels: np.ndarray, orders: list[np.ndarray], n_train: int) -> np.ndarray:
    """Fills every class up to 1, then to 2, ... then to n_train examples."""
    chosen = np.zeros(len(labels), bool)
    counts = np.zeros(len(orders), np.int64)
    following = [iter(order) for order in orders]
    for k in range(1, n_train + 1):
        for c, rows in enumerate(following):
            if not len(orders[c]) or counts[c] >= k:
                continue
            row = next(r for r in rows if not chosen[r])
            chosen[row] = True
            counts += labels[row] != 0
    return np.flatnonzero(chosen)


def _check_sizes(orders: list[np.ndarray], n_train: int, problem: Problem) -> None:
    sizes = np.array([len(order) for order in orders])
    if not sizes.any():
        raise FitError(f"none of the training examples has one of the {problem.n_classes} classes")
    small = np.flatnonzero((sizes > 0) & (sizes < n_train))
    if not len(small):
        return
    worst = int(small[np.argmin(sizes[small])])
    name = f"'{problem.classes[worst]}'" if problem.classes else f"number {worst}"
    who = (
        f"class {name} has {sizes[worst]}"
        if len(small) == 1
        else f"{len(small)} of {problem.n_classes} classes have fewer (the smallest, {name}, has {sizes[worst]})"
    )
    raise FitError(
        f"n_train={n_train} needs {n_train} training examples of every class, and {who}: "
        f"the largest n_train that works is {sizes[worst]} (-1 uses all)"
    )
