"""The layers of the ViT as benchkit.interfaces.Weights."""

from collections.abc import Iterator
from typing import Any

from benchkit import WeightRole, Weights
from benchkit_bird_mae.vit import ViT

BLOCK: tuple[tuple[str, WeightRole], ...] = (
    ("norm1", "norm1"), ("attn.qkv", "attn_in"), ("attn.proj", "attn_out"),
    ("norm2", "norm2"), ("mlp.fc1", "mlp_in"), ("mlp.fc2", "mlp_out"),
)  # fmt: skip


def anatomy(model: ViT) -> Iterator[Weights]:
    """In the order of computation."""
    yield _layer("patch_embed.proj", "patches", None, model.patch_embed.proj)
    yield Weights("pos_embed", "positions", None, _array(model.pos_embed[0]))
    yield Weights("cls_token", "token", None, _array(model.cls_token[0]))
    for i, block in enumerate(model.blocks):
        for name, role in BLOCK:
            yield _layer(f"blocks.{i}.{name}", role, i, block.get_submodule(name))
    yield _layer("norm", "norm", None, model.norm)
    if model.fc_norm.elementwise_affine:
        yield _layer("fc_norm", "pool_norm", None, model.fc_norm)


def _layer(name: str, role: WeightRole, block: int | None, module: Any) -> Weights:
    weight = module.weight.flatten(1) if module.weight.dim() > 1 else module.weight
    return Weights(name, role, block, _array(weight), _array(module.bias))


def _array(tensor: Any) -> Any:
    return tensor.detach().float().cpu().numpy()
