"""What is inside the blocks of pre-norm encoders: activations by forward hooks, and the weights of every layer.

A block's attention and MLP end in layer scales, dropped paths and sums that differ from model to model, so what each
adds to the residual stream is taken as a difference: the stream at norm2 less the stream at the block's start, and the
stream at its end less that at norm2.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from benchkit import WeightRole, Weights

PLACES = ("resid_pre", "norm1", "attn_out", "resid_mid", "norm2", "mlp_out", "resid_post")
"""Inside each block, in the order of computation."""
CONFORMER_PLACES = (
    "resid_pre", "norm_ffn1", "ffn1_out", "resid_ffn1", "norm1", "attn_out", "resid_mid", "conv_out", "resid_conv",
    "norm2", "mlp_out", "resid_out", "resid_post",
)  # fmt: skip
"""Inside each block of a conformer (wav2vec2-bert, wav2vec2-conformer): a feed-forward part, attention, a convolution,
another feed-forward part, each beside the residual stream; resid_post is the norm of resid_out, and ends the block."""
CONFORMER = ("ffn1_layer_norm", "self_attn_layer_norm", "conv_module", "ffn2_layer_norm", "final_layer_norm")
"""Modules by which such a block is known."""
NORMS = (
    ("layernorm_before", "layernorm_after"),  # ViT, DeiT, AST, ViT-MAE
    ("norm1", "norm2"),  # DINOv2, DINOv3
    ("layer_norm1", "layer_norm2"),  # CLIP, SigLIP
    ("self_attn_layer_norm", "final_layer_norm"),  # Whisper
)
"""Names of the norms before attention and before the MLP."""
FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm")
SCALES = {"attn_out": "layer_scale1", "mlp_out": "layer_scale2"}
LINEAR: tuple[tuple[str, WeightRole], ...] = (
    ("q_proj", "attn_in"), ("k_proj", "attn_in"), ("v_proj", "attn_in"), ("o_proj", "attn_out"),
    ("out_proj", "attn_out"), ("fc1", "mlp_in"), ("gate_proj", "mlp_in"), ("up_proj", "mlp_in"), ("fc2", "mlp_out"),
    ("down_proj", "mlp_out"),
)  # fmt: skip
"""The last part of a linear layer's name, and what it is."""


def blocks_of(encoder: Any) -> list[tuple[str, Any]]:
    """Name and module of each block, where they are pre-norm blocks that are known here; else none.

    One list must hold them all: in a hierarchical model, tokens change from stage to stage.
    """
    from torch.nn import ModuleList

    n = getattr(encoder.config, "num_hidden_layers", None)
    for name, module in encoder.named_modules():
        if isinstance(module, ModuleList) and len(module) == n and norms_of(module[0]) and "decoder" not in name:
            return [(f"{name}.{i}", block) for i, block in enumerate(module)]
    return []


def norms_of(block: Any) -> tuple[Any, Any] | None:
    """The two norms of a pre-norm block: before attention, and before the MLP (of a conformer, the second one)."""
    if is_conformer(block):
        return block.self_attn_layer_norm, block.ffn2_layer_norm
    for first, second in NORMS:
        if hasattr(block, first) and hasattr(block, second):
            return getattr(block, first), getattr(block, second)
    return None


def is_conformer(block: Any) -> bool:
    return all(hasattr(block, name) for name in CONFORMER)


def places_of(encoder: Any) -> tuple[str, ...]:
    """Of each of its blocks."""
    blocks = blocks_of(encoder)
    return CONFORMER_PLACES if blocks and is_conformer(blocks[0][1]) else PLACES


def final_norm(encoder: Any) -> tuple[str, Any] | None:
    """Name and module of the norm behind the last block, where there is one."""
    blocks = blocks_of(encoder)
    inside = blocks[0][0].rsplit(".", 1)[0] + "." if blocks else ""
    for wanted in FINAL_NORMS:
        for name, module in encoder.named_modules():
            path, _, last = name.rpartition(".")
            if blocks and last == wanted and not name.startswith(inside) and not path.endswith(("head", "pooler")):
                return name, module
    return None


def points(encoder: Any) -> tuple[str, ...]:
    """Every place of an encoder with known blocks; none of another one. CLIP's last norm sees the class token alone."""
    blocks = blocks_of(encoder)
    found = [f"blocks.{i}.{place}" for i in range(len(blocks)) for place in places_of(encoder)]
    last = final_norm(encoder)
    if last is not None and not encoder.config.model_type.startswith("clip"):
        found.append("norm")
    return ("embeddings", *found) if blocks else ()


@contextmanager
def shown(encoder: Any, points: Collection[str]) -> Iterator[dict[str, Any]]:
    """While it is open, a forward pass fills the dictionary with the activations at these places, on the device."""
    found: dict[str, Any] = {}
    handles = []
    for i, (_, block) in enumerate(blocks_of(encoder)):
        wanted = {place for place in places_of(encoder) if f"blocks.{i}.{place}" in points}
        if wanted:
            hooks = _conformer_hooks if is_conformer(block) else _hooks
            handles += hooks(block, f"blocks.{i}.", wanted, found)
    if "norm" in points and (last := final_norm(encoder)) is not None:
        handles.append(last[1].register_forward_hook(lambda _, args, output: found.update(norm=output)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _hooks(block: Any, prefix: str, wanted: set[str], found: dict[str, Any]) -> list[Any]:
    norms = norms_of(block)
    assert norms is not None
    stream: dict[str, Any] = {}

    def keep(place: str, x: Any) -> None:
        if place in wanted:
            found[prefix + place] = x

    def before_block(_: Any, args: Any, kwargs: Any) -> None:
        stream["pre"] = args[0] if args else kwargs["hidden_states"]
        keep("resid_pre", stream["pre"])

    def at_norm2(_: Any, args: Any, output: Any) -> None:
        stream["mid"] = args[0]
        keep("attn_out", stream["mid"] - stream["pre"])
        keep("resid_mid", stream["mid"])
        keep("norm2", output)

    def after_block(_: Any, args: Any, output: Any) -> None:
        post = output[0] if isinstance(output, tuple) else output
        keep("mlp_out", post - stream["mid"])
        keep("resid_post", post)

    return [
        block.register_forward_pre_hook(before_block, with_kwargs=True),
        norms[0].register_forward_hook(lambda _, args, output: keep("norm1", output)),
        norms[1].register_forward_hook(at_norm2),
        block.register_forward_hook(after_block),
    ]


def _conformer_hooks(block: Any, prefix: str, wanted: set[str], found: dict[str, Any]) -> list[Any]:
    stream: dict[str, Any] = {}

    def keep(place: str, x: Any) -> None:
        if place in wanted:
            found[prefix + place] = x

    def enter(place: str, added: str | None, x: Any) -> None:
        """The stream is at a place; what was added to it since the place before is the difference."""
        if added is not None:
            keep(added, x - stream["at"])
        stream["at"] = x
        keep(place, x)

    def at(module: Any, place: str, added: str | None, normed: str | None) -> list[Any]:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            enter(place, added, args[0] if args else kwargs["hidden_states"])

        handles = [module.register_forward_pre_hook(before, with_kwargs=True)]
        if normed is not None:
            handles.append(module.register_forward_hook(lambda _, args, output: keep(normed, output)))
        return handles

    return [
        *at(block.ffn1_layer_norm, "resid_pre", None, "norm_ffn1"),
        *at(block.self_attn_layer_norm, "resid_ffn1", "ffn1_out", "norm1"),
        *at(block.conv_module, "resid_mid", "attn_out", None),
        *at(block.ffn2_layer_norm, "resid_conv", "conv_out", "norm2"),
        *at(block.final_layer_norm, "resid_out", "mlp_out", "resid_post"),
    ]


# -------------------------------------------------------------------------------------------------------------- weights


def anatomy(encoder: Any) -> Iterator[Weights]:
    """Every layer that is known by its name, in the order of computation; none for an encoder of other blocks, or of
    conformers, whose parts are more than the roles."""
    blocks = blocks_of(encoder)
    if not blocks or is_conformer(blocks[0][1]):
        return
    inside = blocks[0][0].rsplit(".", 1)[0] + "."
    yield from _embedding(encoder, inside)
    for i, (name, block) in enumerate(blocks):
        norms = norms_of(block)
        assert norms is not None
        first, second = (next(n for n, m in block.named_modules() if m is norm) for norm in norms)
        layers = list(block.named_modules())
        yield _norm(f"{name}.{first}", "norm1", i, norms[0])
        yield from _linear(name, i, block, layers, ("attn_in", "attn_out"))
        yield _norm(f"{name}.{second}", "norm2", i, norms[1])
        yield from _linear(name, i, block, layers, ("mlp_in", "mlp_out"))
    if (last := final_norm(encoder)) is not None:
        yield _norm(last[0], "norm", None, last[1])


def _embedding(encoder: Any, inside: str) -> Iterator[Weights]:
    for name, module in encoder.named_modules():
        if name.startswith(inside) or "decoder" in name:
            continue
        last = name.rpartition(".")[2]
        if type(module).__name__ == "Conv2d":
            yield Weights(name, "patches", None, _array(module.weight.flatten(1)), _array(module.bias))
        elif last in ("position_embedding", "embed_positions") and hasattr(module, "weight"):
            yield Weights(name, "positions", None, _array(module.weight))
    for name, parameter in encoder.named_parameters():
        last = name.rpartition(".")[2]
        vectors = _array(parameter).reshape(-1, parameter.shape[-1])
        if last == "position_embeddings":
            yield Weights(name, "positions", None, vectors)
        elif last in ("cls_token", "class_embedding", "distillation_token", "register_tokens") and len(vectors):
            yield Weights(name, "token", None, vectors)


def _linear(
    name: str, i: int, block: Any, layers: list[tuple[str, Any]], roles: tuple[WeightRole, WeightRole]
) -> Iterator[Weights]:
    for wanted in roles:
        for path, module in layers:
            role = dict(LINEAR).get(path.rpartition(".")[2])
            if role != wanted or not hasattr(module, "weight"):
                continue
            weight, bias = _array(module.weight), _array(module.bias)
            scale = getattr(getattr(block, SCALES.get(role, ""), None), "lambda1", None)
            if scale is None:
                yield Weights(f"{name}.{path}", role, i, weight, bias)
            else:
                by = _array(scale)
                named = f"{name}.{path} x {SCALES[role]}"
                yield Weights(named, role, i, weight * by[:, None], None if bias is None else bias * by)


def _norm(name: str, role: WeightRole, block: int | None, module: Any) -> Weights:
    return Weights(name, role, block, _array(module.weight), _array(getattr(module, "bias", None)))


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().float().cpu().numpy()
