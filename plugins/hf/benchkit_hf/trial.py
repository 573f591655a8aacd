"""What a model is asked once, before anything is computed with it: is it the same twice, are all tokens there, and in
the order of what it was shown? Masked autoencoders answer three times no, and give features all the same."""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import BenchkitError

SAME = 1e-3
"""Of their norm, by which tokens of one example may differ from run to run: more than rounding on any device."""
PLACES = 6
"""Patches that are changed one at a time; of sound two stretches are."""


def example(rate: int | None, seconds: float) -> Float32[np.ndarray, " n"] | UInt8[np.ndarray, "H W 3"]:
    """Noise: a clip of that length, or an image."""
    rng = np.random.default_rng(0)
    if rate is None:
        return rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)


def refuse(name: str, why: str) -> BenchkitError:
    return BenchkitError(f"model 'hf:{name}' cannot be used: {why}")


def same_twice(name: str, first: Any, second: Any) -> None:
    """first, second: tokens [1, T, D] of one example, of two runs. Raises BenchkitError."""
    if first.shape != second.shape:
        raise refuse(name, f"it gives {first.shape[1]} tokens of an example, and {second.shape[1]} the next time")
    gap = float((first - second).float().norm() / first.float().norm().clamp_min(1e-12))
    if not gap < SAME:
        raise refuse(
            name,
            f"its features are not the same twice (they differ by {gap:.2g} of their norm): its forward pass draws "
            "random numbers, as a masked autoencoder's does",
        )


def whole_clip(name: str, seconds: float, one: np.ndarray, again: np.ndarray, tail: np.ndarray | None) -> None:
    """one, again: of the same image or clip of `seconds`. tail: of a clip that differs from it in its last tenth.
    Raises BenchkitError where the processor draws random numbers, or leaves off before the end."""
    if not np.array_equal(one, again):
        raise refuse(name, "its processor does not give the same twice: it draws random numbers")
    if tail is not None and np.array_equal(one, tail):
        raise refuse(
            name,
            f"its processor hears less than seconds={seconds:g}: what lies beyond would be ignored; give fewer "
            "seconds, and cut recordings into windows that long",
        )


def grid_of(config: Any, pixels: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of patches of an image of this shape, [..., H, W], where the configuration says how large they
    are."""
    size = getattr(config, "patch_size", None)
    if size is None or len(pixels) < 2:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return int(pixels[-2] // height), int(pixels[-1] // width)


def cells_of(
    name: str, grid: tuple[int, int], n_tokens: int, prefix: int, *, merges: bool, asked: bool
) -> tuple[int, int]:
    """The grid of the tokens, which is that of the patches, or a coarser one. merges: whether the model's stages put
    patches together. asked: whether the user said how many tokens come before. Raises BenchkitError where tokens are
    left out."""
    rows, columns = grid
    while True:
        if rows * columns == n_tokens:
            return rows, columns
        if not merges or rows * columns <= 1:
            break
        rows, columns = -(-rows // 2), -(-columns // 2)
    n, total = grid[0] * grid[1], n_tokens + prefix
    if n <= total <= n + 16 and asked:
        raise refuse(name, f"it gives {total} tokens of {n} patches, so prefix_tokens={total - n}, not {prefix}")
    raise refuse(
        name,
        f"it gives {n_tokens} tokens of an image of {n} patches ({grid[0]} x {grid[1]}): it leaves patches out, as a "
        "masked autoencoder does" + (", or prefix_tokens is another" if asked else ""),
    )


def changed_images(x: Any, cells: tuple[int, int]) -> tuple[Any, list[int]]:
    """Copies of one preprocessed image [1, C, H, W], each with one cell turned over, and which."""
    rows, columns = cells
    tall, wide = x.shape[-2] // rows, x.shape[-1] // columns
    chosen = np.random.default_rng(1).permutation(rows * columns)[:PLACES].tolist()
    made = x.repeat(len(chosen), 1, 1, 1)
    for copy, cell in zip(made, chosen, strict=True):
        row, column = divmod(cell, columns)
        place = (slice(None), slice(row * tall, (row + 1) * tall), slice(column * wide, (column + 1) * wide))
        copy[place] = -copy[place] + copy[place].std()
    return made, chosen


def in_order(name: str, before: Any, after: Any, chosen: list[int]) -> None:
    """before: tokens [1, T, D]. after: those of the changed images. The token that turned furthest must be the changed
    cell's, mostly, for attention changes the others too; or be the same one whatever was changed, as the few tokens are
    where some models keep what is of the whole image. Raises BenchkitError."""
    import torch

    alike = torch.cosine_similarity(after.float(), before.float(), dim=2)
    turned = alike.argmin(dim=1).tolist()
    hits = sum(place == cell for place, cell in zip(turned, chosen, strict=True))
    if 2 * hits < len(chosen) <= len(set(turned)) + 1:
        raise refuse(
            name,
            f"its tokens are not in the order of the image's patches: of {len(chosen)} patches that were changed one "
            f"at a time, {hits} changed the token in their place most",
        )
