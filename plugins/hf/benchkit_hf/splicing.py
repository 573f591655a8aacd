"""Other activations in the place of those that an encoder makes, by forward hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchkit import BenchkitError
from benchkit_hf.blocks import blocks_of, is_conformer, norms_of


@contextmanager
def replaced(encoder: Any, stack: Sequence[Any], point: str, other: Callable[[Any], Any]) -> Iterator[None]:
    """While it is open, a forward pass goes on from other(x) where it was at a place. stack: the blocks. Raises
    BenchkitError for a place that is no output of a module."""

    def of_output(_: Any, args: Any, output: Any) -> Any:
        return (other(output[0]), *output[1:]) if isinstance(output, tuple) else other(output)

    def of_input(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (other(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": other(kwargs["hidden_states"])}

    if point == "embeddings":
        handle = stack[0].register_forward_pre_hook(of_input, with_kwargs=True)
    else:
        _, number, place = point.split(".") if point.count(".") == 2 else ("", "-1", point)
        block = stack[int(number)] if int(number) >= 0 else None
        norms = norms_of(block) if block is not None and blocks_of(encoder) else None
        if block is not None and place == "resid_post":
            handle = block.register_forward_hook(of_output)
        elif block is not None and place == "resid_pre":
            handle = block.register_forward_pre_hook(of_input, with_kwargs=True)
        elif norms is not None and place in ("norm1", "norm2"):
            handle = norms[place == "norm2"].register_forward_hook(of_output)
        elif block is not None and place == "norm_ffn1" and is_conformer(block):
            handle = block.ffn1_layer_norm.register_forward_hook(of_output)
        else:
            raise BenchkitError(f"nothing goes on from '{point}': splice at resid_pre, norm1, norm2 or resid_post")
    try:
        yield
    finally:
        handle.remove()
