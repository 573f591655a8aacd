"""Where an outlier dimension comes from: the module that writes it, by which weights, and the norms that stop it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchkit.diagnose import weights
from benchkit.diagnose.judge import Judged, Outlier, describe, positions_of
from benchkit.diagnose.places import MODULES
from benchkit.diagnose.weights import Layer
from benchkit.diagnose.words import amount
from benchkit.interfaces import WeightRole

MOST = 32
"""Outlier dimensions that are followed up, the largest first."""
STANDS_OUT = 5.0
"""Times the median column's norm, or the median weight, from which on a layer's column or weight stands out."""
SUPPRESSED = 0.1
"""Of a norm's median weight, up to which it suppresses a dimension."""

Module = Literal[
    "embedding", "attention", "MLP", "first feed-forward part", "convolution", "norm", "several modules", "unknown"
]


@dataclass(frozen=True)
class Origin:
    """first: the point where the dimension is first an outlier. layer, part: which weights write it, as far as the
    backbone shows them. because: in words. reaches: later points of the residual stream where it is one, of how many.
    suppressed_by, passed_by: norms behind it by whether their weight there is near zero."""

    dim: int
    first: str
    module: Module
    block: int | None
    layer: str | None
    part: str | None
    because: str
    peak: Outlier
    reaches: tuple[int, int]
    suppressed_by: tuple[str, ...]
    passed_by: tuple[str, ...]

    @property
    def writer(self) -> str:
        """In words."""
        if self.module == "embedding":
            return "the embedding"
        if self.module in MODULES.values():
            return f"block {self.block}'s {self.module}"
        return f"the norm at {self.first}" if self.module == "norm" else self.module


def attribute(judged: Sequence[Judged], layers: Sequence[Layer]) -> list[Origin]:
    """One Origin for each outlier dimension, the largest first; two where a norm makes one of its own as well."""
    best: dict[int, float] = {}
    for j in judged:
        for o in j.outliers:
            best[o.dim] = max(best.get(o.dim, 0.0), o.ratio)
    found = []
    for dim in sorted(best, key=lambda d: -best[d])[:MOST]:
        found += _of_dimension(dim, judged, layers)
    return found


def _of_dimension(dim: int, judged: Sequence[Judged], layers: Sequence[Layer]) -> list[Origin]:
    at = [i for i, j in enumerate(judged) if j.outlier(dim)]
    stream = [i for i in at if judged[i].stats.place.kind in ("residual", "module", "other")]
    norms = [i for i in at if judged[i].stats.place.kind == "norm" and not judged[_input_of(i, judged)].outlier(dim)]
    found = [_from_stream(dim, stream, judged, layers)] if stream else []
    for i in norms:
        made = _from_norm(dim, i, judged, layers)
        if made.part is not None or (not layers and not stream):
            found.append(made)
            break
    if not found and norms:  # no weight of the norm makes it: it comes in, though it is no outlier there yet
        found.append(_from_stream(dim, [_input_of(norms[0], judged)], judged, layers))
    if not found:
        found.append(_elsewhere(dim, at[0], judged, layers))
    return found


def _input_of(i: int, judged: Sequence[Judged]) -> int:
    """The residual stream that a norm at index i is given."""
    return next((k for k in range(i - 1, -1, -1) if judged[k].stats.place.kind == "residual"), i)


# -------------------------------------------------------------------------------------------------- the residual stream


def _from_stream(dim: int, at: list[int], judged: Sequence[Judged], layers: Sequence[Layer]) -> Origin:
    residual = [i for i in at if judged[i].stats.place.kind == "residual"]
    anchor = residual[0] if residual else at[0]
    where = judged[anchor].outlier(dim) or describe(judged[anchor].stats, dim)
    writers = {i: _size(judged[i], dim, judged[anchor], where) for i in range(anchor + 1)
               if judged[i].stats.place.kind in ("module", "other") or i == 0}  # fmt: skip
    top = max(writers, key=lambda i: writers[i]) if writers else anchor
    place = judged[top].stats.place
    if writers and writers[top] < 0.5 * _size(judged[anchor], dim, judged[anchor], where):
        named = ", ".join(judged[i].stats.place.point for i in sorted(writers, key=lambda i: -writers[i])[:3])
        module, block, layer, part = "several modules", None, None, None
        because = f"no module writes half of it; the largest parts come from {named}"
    elif place.kind == "module":
        module, block = MODULES[place.name], place.block
        layer, part, because = _written_by(dim, judged[top], where, layers)
    elif place.kind == "residual" and top == 0:
        module, block = "embedding", None
        layer, part, because = _embedded_by(dim, judged[top], where, layers)
    else:
        module, block, layer, part = "unknown", place.block, None, None
        because = "the backbone does not show what comes before"
    first = min(at[0], top) if judged[top].outlier(dim) else at[0]
    later = [j for j in judged[anchor:] if j.stats.place.kind == "residual"]
    reaches = sum(j.outlier(dim) is not None for j in later), len(later)
    stopped, passed = _norms_behind(dim, top, judged, layers)
    in_stream = [o for i in residual if (o := judged[i].outlier(dim))]
    peak = max(in_stream, default=where, key=lambda o: abs(o.value))
    point = judged[top].point if judged[top].outlier(dim) or top == 0 else judged[first].point
    return Origin(dim, point, module, block, layer, part, because, peak, reaches, stopped, passed)  # type: ignore[arg-type]


def _size(at: Judged, dim: int, anchor: Judged, where: Outlier) -> float:
    """How large the dimension is here, over the tokens where it is an outlier at the anchor."""
    if where.where == "in scattered tokens" or at.stats.tokens != anchor.stats.tokens:
        return float(at.stats.peak_d[dim])
    column = at.stats.position_rms_td[positions_of(anchor.stats, dim), dim].astype(np.float64)
    return float(np.sqrt((column**2).mean()))


def _written_by(dim: int, at: Judged, where: Outlier, layers: Sequence[Layer]) -> tuple[str | None, str | None, str]:
    """Layer, part and reason within a module: its output layer's bias, its column of output weights, or its input."""
    place = at.stats.place
    roles: dict[str, WeightRole] = {"attn_out": "attn_out", "mlp_out": "mlp_out"}
    layer = weights.of(layers, roles[place.name], place.block) if place.name in roles else None
    if layer is None:
        return None, None, "the backbone does not show its weights"
    size = _size(at, dim, at, where)
    column = float(layer.row_norms[dim] / max(float(np.median(layer.row_norms)), 1e-30))
    bias = 0.0 if layer.bias is None else float(layer.bias[dim])
    at_column = f"column {dim} of its output weights (row {dim} of {layer.name}.weight) has {amount(column)} times the "
    at_column += "median column's norm"
    unit, share = layer.top_column[dim]
    if share > 0.5:
        at_column += f", {share:.0%} of it from input unit {int(unit)}"
    if abs(bias) >= 0.5 * size:
        also = f"; {at_column} as well" if column >= STANDS_OUT else ""
        return layer.name, "bias", f"{layer.name}.bias[{dim}] = {amount(bias)} is most of it{also}"
    if column >= STANDS_OUT:
        return layer.name, "weight", at_column
    return layer.name, None, f"no weight of {layer.name} stands out there: what comes into it is large"


def _embedded_by(dim: int, at: Judged, where: Outlier, layers: Sequence[Layer]) -> tuple[str | None, str | None, str]:
    """Layer, part and reason within the embedding: patch projection, positions, class token."""
    if not any(layer.role in ("patches", "positions", "token") for layer in layers):
        return None, None, "the backbone does not show its weights"
    mask = positions_of(at.stats, dim)
    size = _size(at, dim, at, where)
    tokens = [layer for layer in layers if layer.role == "token"]
    n_tokens = sum(len(layer.vectors) for layer in tokens if layer.vectors is not None)
    made: list[tuple[float, str, str, str]] = []
    for layer in layers:
        if layer.role == "positions" and layer.vectors is not None:
            rows = layer.vectors[mask] if len(layer.vectors) == len(mask) else layer.vectors
            value = float(np.sqrt((rows[:, dim].astype(np.float64) ** 2).mean()))
            made.append(
                (value, layer.name, "positions", f"{layer.name}[{_rows(mask)}, {dim}] is {amount(value)} (RMS)")
            )
        elif layer.role == "token" and layer.vectors is not None and mask[:n_tokens].any() and not mask.all():
            value = float(np.abs(layer.vectors[:, dim]).max())
            made.append((value, layer.name, "token", f"{layer.name}[{dim}] is {amount(value)}"))
        elif layer.role == "patches" and mask[n_tokens:].any():
            bias = 0.0 if layer.bias is None else abs(float(layer.bias[dim]))
            made.append((bias, layer.name, "bias", f"{layer.name}.bias[{dim}] is {amount(bias)} in size"))
            ratio = float(layer.row_norms[dim] / max(float(np.median(layer.row_norms)), 1e-30))
            text = f"row {dim} of {layer.name}.weight has {amount(ratio)} times the median row's norm"
            made.append((0.5 * size if ratio >= STANDS_OUT else 0.0, layer.name, "weight", text))
    value, name, part, text = max(made, default=(0.0, "", "", ""))
    if value >= 0.45 * size:
        return name, part, text
    return None, None, "no weight of the embedding stands out there"


def _rows(mask: np.ndarray) -> str:
    found = np.flatnonzero(mask)
    if len(found) == len(mask):
        return ":"
    return ", ".join(map(str, found[:4])) + (", ..." if len(found) > 4 else "")


# ---------------------------------------------------------------------------------------------------------------- norms


def _norm_layer(judged: Judged, layers: Sequence[Layer]) -> Layer | None:
    place = judged.stats.place
    role = place.name if place.name in ("norm1", "norm2", "norm") else None
    return None if role is None else weights.of(layers, role, place.block)  # type: ignore[arg-type]


def norm_gain(layer: Layer, dim: int) -> float:
    """A norm's weight in this dimension over its median weight."""
    assert layer.weight_d is not None
    magnitudes = np.abs(layer.weight_d)
    return float(magnitudes[dim] / max(float(np.median(magnitudes)), 1e-30))


def _norms_behind(
    dim: int, writer: int, judged: Sequence[Judged], layers: Sequence[Layer]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Norms behind the writer that suppress the dimension, and those that let it pass."""
    stopped: list[str] = []
    passed: list[str] = []
    for j in judged[writer + 1 :]:
        if j.stats.place.kind != "norm":
            continue
        layer = _norm_layer(j, layers)
        stops = j.outlier(dim) is None if layer is None else norm_gain(layer, dim) <= SUPPRESSED
        (stopped if stops else passed).append(j.point)
    pool = weights.of(layers, "pool_norm")
    if pool is not None and pool.weight_d is not None and len(pool.weight_d) > dim:
        (stopped if norm_gain(pool, dim) <= SUPPRESSED else passed).append(pool.name)
    return tuple(stopped), tuple(passed)


def _from_norm(dim: int, i: int, judged: Sequence[Judged], layers: Sequence[Layer]) -> Origin:
    """A norm makes a dimension large that was not before it."""
    here = judged[i]
    peak = here.outlier(dim)
    assert peak is not None
    layer, part, name, because = _norm_layer(here, layers), None, None, "the backbone does not show its weights"
    if layer is not None:
        name, part, because = _within_norm(dim, layer, peak)
    same = [j for j in judged[i:] if j.stats.place.kind == here.stats.place.kind]
    reaches = sum(j.outlier(dim) is not None for j in same), len(same)
    return Origin(dim, here.point, "norm", here.stats.place.block, name, part, because, peak, reaches, (), ())


def _within_norm(dim: int, layer: Layer, peak: Outlier) -> tuple[str, str | None, str]:
    gain = norm_gain(layer, dim)
    shift = 0.0 if layer.bias is None else float(layer.bias[dim])
    if abs(shift) >= 0.5 * abs(peak.value):
        return layer.name, "bias", f"{layer.name}.bias[{dim}] = {amount(shift)} is most of it"
    if gain >= STANDS_OUT:
        return layer.name, "weight", f"{layer.name}.weight[{dim}] is {amount(gain)} times the median weight"
    return layer.name, None, f"no weight of {layer.name} stands out there: what comes into it is large"


def _elsewhere(dim: int, i: int, judged: Sequence[Judged], layers: Sequence[Layer]) -> Origin:
    """Only in pooled features, or behind a norm that was not told apart."""
    here = judged[i]
    peak = here.outlier(dim)
    assert peak is not None
    pool = weights.of(layers, "pool_norm")
    if here.stats.place.kind == "pooled" and pool is not None:
        name, part, because = _within_norm(dim, pool, peak)
        return Origin(dim, here.point, "norm", None, name, part, because, peak, (1, 1), (), ())
    return Origin(dim, here.point, "unknown", here.stats.place.block, None, None,
                  "it is large at no other place that is shown", peak, (1, 1), (), ())  # fmt: skip
