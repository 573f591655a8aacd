"""Whether places that are hooked by names of modules are what they are called.

What attention and the MLP add is taken as a difference of the stream at two norms, which holds whatever lies between
them. So the modules themselves are asked, once a block: norm1 must be given the stream at the block's start, and some
module must have given exactly what attention added, and some other what the MLP added. Blocks whose norms come behind
(BART's, data2vec's), or whose parts lie in parallel, use the same names for other things.
"""

from collections.abc import Callable, Mapping
from typing import Any

from benchkit_hf.blocks import blocks_of, is_conformer, norms_of, shown

ROUNDING = {"torch.float32": 1e-3, "torch.bfloat16": 5e-2}
"""Of what is compared, by which it may differ."""
OF_STREAM = 1e-5
"""Of the stream itself: its rounding is in a difference."""


def untrue(encoder: Any, number: int, run: Callable[[], Any]) -> dict[str, str]:
    """Places of a block that are not what they are called, and why. run: a forward pass of some examples."""
    block = blocks_of(encoder)[number][1]
    outputs: list[tuple[str, Any]] = []
    given: list[Any] = []
    norms = norms_of(block)
    assert norms is not None
    handles = [norms[0].register_forward_pre_hook(lambda _, args: given.append(args[0]))]
    for name, module in block.named_modules():
        if name:
            handles.append(
                module.register_forward_hook(lambda _, a, out, name=name: outputs.append((name, _first(out))))
            )
    names = ("resid_pre", "resid_ffn1", "attn_out", "mlp_out", "ffn1_out", "conv_out")
    try:
        with shown(encoder, [f"blocks.{number}.{place}" for place in names]) as found:
            run()
    finally:
        for handle in handles:
            handle.remove()
    at: Mapping[str, Any] = {place.rpartition(".")[2]: x for place, x in found.items()}
    wrong: dict[str, str] = {}
    stream = at["resid_ffn1"] if is_conformer(block) else at["resid_pre"]
    if not _same(given[0], stream, stream):
        wrong["norm1"] = "the norm before attention is not given the residual stream"
    for place, what in (("attn_out", "attention"), ("mlp_out", "the MLP"), ("conv_out", "the convolution")):
        if place in at and not any(_same(out, at[place], stream) for _, out in _scaled(outputs)):
            wrong[place] = f"more than {what} lies between the norms, or its output is changed before it is added"
            if place == "attn_out":
                wrong |= dict.fromkeys(("resid_mid", "norm2"), wrong[place])
    return wrong


def _scaled(outputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """With half of what feed-forward parts give, which is what a conformer adds."""
    return [*outputs, *((name, 0.5 * out) for name, out in outputs if out is not None and "ffn" in name)]


def _first(output: Any) -> Any:
    made = output[0] if isinstance(output, tuple) else output
    return made if hasattr(made, "detach") else None


def _same(a: Any, b: Any, stream: Any) -> bool:
    if a is None or a.shape != b.shape:
        return False
    limit = ROUNDING.get(str(b.dtype), 1e-3) * float(b.float().norm()) + OF_STREAM * float(stream.float().norm())
    return float((a.float() - b.float()).norm()) <= limit
