"""How far from the input each parameter of an encoder is, for learning rates that differ from block to block."""

from typing import Any

from benchkit import BenchkitError


def depths(encoder: Any, used: int | None) -> tuple[dict[str, int], int]:
    """By parameter: 0 before the blocks, i + 1 in block i; and the depth of what stands behind the last block.

    used: only so many blocks are, and what is behind them is left out (none: all). Models differ in their names, so
    the blocks are found as the outermost list of as many modules as the configuration has layers, and the rest is told
    apart by its place before or behind that list. Raises BenchkitError where there is no such list.
    """
    from torch.nn import ModuleList

    layers = getattr(encoder.config, "num_hidden_layers", None)
    lists = [name for name, m in encoder.named_modules() if isinstance(m, ModuleList) and len(m) == layers]
    if not lists:
        raise BenchkitError(f"a {type(encoder).__name__} cannot be fine-tuned: its {layers} blocks are in no list")
    blocks = min(reversed(lists), key=lambda name: name.count("."))
    last = layers if used is None else used
    found: dict[str, int] = {}
    behind = False
    for name, _ in encoder.named_parameters():
        if name.startswith(f"{blocks}."):
            behind, depth = True, int(name.removeprefix(f"{blocks}.").split(".")[0]) + 1
        else:
            depth = layers + 1 if behind or _final_norm(encoder, name) else 0
        if depth <= last or last == layers:
            found[name] = depth
    return found, last + 1


def _final_norm(encoder: Any, name: str) -> bool:
    """The stable variants of wav2vec 2.0 and its relatives have it behind the blocks, though it is listed before."""
    return getattr(encoder.config, "do_stable_layer_norm", False) and name.startswith("encoder.layer_norm.")
