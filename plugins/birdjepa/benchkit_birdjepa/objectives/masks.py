"""Which patches are hidden. Shapes: B examples, T patches of a grid [rows, columns], S of them seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from benchkit import BenchkitError


class Hiding(NamedTuple):
    """blocks: hidden whole, each of block x block patches. singles: hidden one by one of what is left."""

    block: int
    blocks: int
    singles: int

    @property
    def patches(self) -> int:
        return self.blocks * self.block**2 + self.singles


def hiding(grid: tuple[int, int], block: int, ratio: float, fill: bool) -> Hiding:
    """facebookresearch/pixio: whole blocks alone, int(blocks * (1 - ratio)) of them seen. fill, as
    samuelstevens/birdjepa: exactly int(ratio * T) patches hidden, single ones where whole blocks do not suffice.

    Raises BenchkitError where blocks do not divide the grid, or nothing would be seen or hidden.
    """
    rows, columns = grid
    if rows % block or columns % block:
        raise BenchkitError(f"block={block} does not divide the grid of {rows} x {columns} patches: take another")
    n, of = rows * columns, rows * columns // block**2
    if fill:
        hidden = int(ratio * n)
        found = Hiding(block, hidden // block**2, hidden % block**2)
    else:
        found = Hiding(block, of - int(of * (1 - ratio)), 0)
    if not 0 < found.patches < n:
        raise BenchkitError(f"ratio={ratio:g} of {of} blocks hides {found.patches} of {n} patches: take another")
    return found


def order(key: Array, n: int, grid: tuple[int, int], how: Hiding) -> Int[Array, "B T"]:
    """For each of n examples a permutation of its patches, the hidden ones last."""
    (rows, columns), b = grid, how.block
    blocks, singles = jax.random.split(key)
    shape = (rows // b, columns // b)
    rank = jax.random.uniform(blocks, (n, shape[0] * shape[1])).argsort(axis=1).argsort(axis=1)
    whole = rank.reshape(n, *shape).repeat(b, axis=1).repeat(b, axis=2).reshape(n, rows * columns) < how.blocks
    # a permutation's numbers are distinct, where two uniform ones may be equal: so many patches are hidden, no more
    place = jax.random.uniform(singles, (n, rows * columns)).argsort(axis=1).argsort(axis=1)
    return jnp.where(whole, rows * columns + place, place).argsort(axis=1)
