"""A state as flat named arrays and back: names of our own making, so that a checkpoint outlives a library's tree."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey, tree_flatten_with_path

from benchkit import BenchkitError


def _name(path: tuple[Any, ...]) -> str:
    parts = []
    for key in path:
        match key:
            case DictKey(key=name) | GetAttrKey(name=name) | FlattenedIndexKey(key=name):
                parts.append(str(name))
            case SequenceKey(idx=i):
                parts.append(str(i))
            case _:
                parts.append(str(key))
    return "/".join(parts)


def named(state: Any) -> dict[str, Any]:
    """Leaves by the way to them."""
    leaves, _ = tree_flatten_with_path(state)
    found = {_name(path): leaf for path, leaf in leaves}
    assert len(found) == len(leaves)
    return found


def copied(state: Any) -> dict[str, np.ndarray]:
    """On the host, each in memory of its own: one copy, whatever the device."""
    return {name: np.array(leaf, copy=True) for name, leaf in named(state).items()}


def restored(like: Any, arrays: Mapping[str, np.ndarray], where: str) -> Any:
    """A tree as `like`, of these arrays. Raises BenchkitError where they are not those of such a state."""
    leaves, shape = tree_flatten_with_path(like)
    names = [_name(path) for path, _ in leaves]
    missing, extra = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
    if missing or extra:
        which = f"{missing[0]} is missing" if missing else f"{extra[0]} has no place"
        raise BenchkitError(f"{where} is of another training than the configuration's: {which}")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise BenchkitError(
                f"{where} is of another training than the configuration's: {name} is {arrays[name].dtype} "
                f"{list(arrays[name].shape)}, not {leaf.dtype} {list(leaf.shape)}"
            )
    return jax.tree_util.tree_unflatten(shape, [arrays[name] for name in names])
