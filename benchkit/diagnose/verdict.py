"""From what was found to sentences: what is wrong, where it comes from, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchkit.diagnose.attribution import Origin
from benchkit.diagnose.judge import Judged
from benchkit.diagnose.weights import WRITES, Layer
from benchkit.diagnose.words import amount, dims_in_words

GROWTH = 10.0
"""Times as large as before it, from which on a module is said to blow the residual stream up."""
UNIT = 20.0
"""Times the median input unit's weights, from which on one unit is said to stand out."""

MANY = 3
"""Outlier dimensions of one origin that are told of together."""
SHOWN = 10

Kind = Literal["nan", "dead", "growth", "tokens", "outlier", "constant"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in one sentence. points: where."""

    kind: Kind
    text: str
    points: tuple[str, ...]


@dataclass(frozen=True)
class Other:
    """The same places on other inputs. dims: outlier dimensions of the residual stream and the modules there."""

    name: str
    dims: tuple[int, ...]


def findings(
    judged: Sequence[Judged], origins: Sequence[Origin], layers: Sequence[Layer], others: Sequence[Other]
) -> list[Finding]:
    """The gravest first."""
    found = [*_not_finite(judged, layers), *_dead(judged), *_growth(judged, layers), *_large_tokens(judged, layers)]
    return [*found, *_outliers(origins, others), *_constant(judged)]


def _outliers(origins: Sequence[Origin], others: Sequence[Other]) -> list[Finding]:
    """One sentence each; where many have one origin, one for all of them."""
    groups: dict[tuple[object, ...], list[Origin]] = {}
    for o in origins:
        groups.setdefault((o.first, o.module, o.layer, o.part, o.peak.where), []).append(o)
    found = []
    for group in groups.values():
        if len(group) < MANY:
            found += [Finding("outlier", _outlier(o, others), (o.first,)) for o in group]
            continue
        dims = ", ".join(str(o.dim) for o in group[:SHOWN]) + ", ..." * (len(group) > SHOWN)
        text = (
            f"{len(group)} dimensions ({dims}) come from {group[0].writer}; the largest: {_outlier(group[0], others)}"
        )
        found.append(Finding("outlier", text, (group[0].first,)))
    return found


def _not_finite(judged: Sequence[Judged], layers: Sequence[Layer]) -> list[Finding]:
    broken = [j for j in judged if not j.stats.finite]
    bad = [layer for layer in layers if layer.n_nan]
    if not broken and not bad:
        return []
    named = ", ".join(f"{layer.name} ({layer.n_nan:,} of {layer.n:,})" for layer in bad[:3])
    if not broken:
        return [
            Finding("nan", f"weights that are not finite: {named}; none of the places that are shown uses them", ())
        ]
    first = broken[0]
    why = (
        f": weights that are not finite, in {named}{', ...' * (len(bad) > 3)}"
        if bad
        else (", though every weight that is shown is finite: an overflow" if layers else "")
    )
    module = first.stats.place.module
    where = first.point if module == first.point else f"{module} ({first.point})"
    text = f"NaN or infinite values from {where} on, at {len(broken)} of {len(judged)} "
    return [Finding("nan", f"{text}places{why}", tuple(j.point for j in broken))]


def _dead(judged: Sequence[Judged]) -> list[Finding]:
    found = [j.point for j in judged if "the same for every example: dead" in j.problems]
    return (
        [Finding("dead", "the features are the same for every example: the model is dead", tuple(found))]
        if found
        else []
    )


def _growth(judged: Sequence[Judged], layers: Sequence[Layer]) -> list[Finding]:
    found = []
    for before, here, after in steps(judged):
        if not (before.stats.finite and after.stats.finite and before.stats.scale):
            continue
        factor = after.stats.scale / before.stats.scale
        unit = _unit(here, layers) if here.stats.std >= before.stats.std else ""
        unit = unit or (_large_inside(here, layers) if factor >= GROWTH else "")
        if factor >= GROWTH or unit:
            text = (
                f"{here.stats.place.module} makes all of the residual stream {amount(factor)} times as large "
                f"(the median dimension from {amount(before.stats.scale)} to {amount(after.stats.scale)}){unit}"
            )
            found.append(Finding("growth", text, (here.point, after.point)))
    return found


def steps(judged: Sequence[Judged]) -> list[tuple[Judged, Judged, Judged]]:
    """The stream before a module, the module's output, the stream behind it."""
    found = []
    for i, here in enumerate(judged):
        if here.stats.place.kind == "module":
            before = next((j for j in reversed(judged[:i]) if j.stats.place.kind == "residual"), None)
            after = next((j for j in judged[i:] if j.stats.place.kind == "residual"), None)
            if before is not None and after is not None:
                found.append((before, here, after))
    return found


def _unit(here: Judged, layers: Sequence[Layer]) -> str:
    place = here.stats.place
    role = "attn_out" if place.name == "attn_out" else "mlp_out"
    for layer in layers:
        if layer.role == role and layer.role in WRITES and layer.block == place.block:
            norms = layer.column_norms
            usual = float(sorted(norms)[len(norms) // 2])
            unit = int(norms.argmax())
            if usual and norms[unit] >= UNIT * usual:
                return (
                    f": input unit {unit} of {layer.name} has output weights {amount(norms[unit] / usual)} times the "
                    "median unit's, so the stream lies along one direction"
                )
    return ""


def _large_inside(here: Judged, layers: Sequence[Layer]) -> str:
    """Which layer of the module, or of the norm before it, stands out: a bias, a row, or all of it beside the same one
    of the other blocks."""
    place = here.stats.place
    roles = ("norm1", "attn_in", "attn_out") if place.name == "attn_out" else ("norm2", "mlp_in", "mlp_out")
    found: list[tuple[float, str]] = []
    for layer in (y for y in layers if y.block == place.block and y.role in roles):
        last = layer.name.rpartition(".")[2]
        others = [y.norm for y in layers if y.role == layer.role and y.name.rpartition(".")[2] == last]
        usual = float(np.median(others)) if len(others) > 2 else 0.0
        if usual and layer.norm >= GROWTH * usual:
            times = layer.norm / usual
            found.append((times, f"{layer.name}.weight is {amount(times)} times as large as in the median block"))
        for values, name in ((layer.bias, f"{layer.name}.bias"), (layer.row_norms, f"the norm of {layer.name}.weight")):
            if values is None:
                continue
            sizes = np.abs(np.asarray(values, np.float64))
            top, middle = int(sizes.argmax()), max(float(np.median(sizes)), 0.01 * layer.std, 1e-30)
            if sizes[top] >= UNIT * middle:
                text = f"{name}[{top}] is {amount(float(sizes[top]))}, the median one {amount(middle)}"
                found.append((float(sizes[top]) / middle, text))
    return f": {max(found)[1]}" if found else ""


def _large_tokens(judged: Sequence[Judged], layers: Sequence[Layer]) -> list[Finding]:
    """Token positions that are large in every dimension."""
    at = [j for j in judged if j.tokens]
    if not at:
        return []
    first, tokens = at[0], at[0].tokens
    by_position = np.median(first.stats.position_rms_td, axis=1)
    size = float(by_position[list(tokens)].max())
    what = f"token position{'s' * (len(tokens) > 1)} {', '.join(map(str, tokens[:5]))}{', ...' * (len(tokens) > 5)}"
    if 0 in tokens:
        what += " (0 is the class token, where there is one)"
    why = ""
    for layer in layers:
        if first.stats.place.name == "resid_pre" and layer.vectors is not None:
            rows = [t for t in tokens if t < len(layer.vectors)]
            if rows and float(np.sqrt((layer.vectors[rows] ** 2).mean())) >= 0.5 * size:
                why = f", from {layer.name}"
    times = amount(size / max(float(np.median(by_position)), 1e-30))
    text = f"{what} {'are' if len(tokens) > 1 else 'is'} {times} times as large as the others in every dimension"
    return [Finding("tokens", f"{text} (at {len(at)} places, first at {first.point}{why})", tuple(j.point for j in at))]


def _constant(judged: Sequence[Judged]) -> list[Finding]:
    """Places with the same constant dimensions together."""
    by_dims: dict[tuple[int, ...], list[Judged]] = {}
    for j in judged:
        if any(p.endswith("constant in every token") for p in j.problems):
            by_dims.setdefault(j.constant, []).append(j)
    found = []
    for dims, at in by_dims.items():
        zero = "zero" if at[0].zero == dims else "constant"
        points = tuple(j.point for j in at)
        more = f" and at {len(at) - 1} later places" if len(at) > 1 else ""
        text = f"{dims_in_words(dims)} dead ({zero} in every token) at {points[0]}{more}"
        found.append(Finding("constant", text, points))
    return found


def _outlier(o: Origin, others: Sequence[Other]) -> str:
    peak = o.peak
    size = f"dimension {o.dim} is {amount(peak.ratio)} times as large as the median dimension ({amount(peak.value)})"
    where = {
        "in every token": "in every token",
        "at some positions": f"at {peak.positions} token position{'s' * (peak.positions > 1)} (the first is "
        f"{peak.first_position}{', the class token where there is one' * (peak.first_position == 0)})",
        "in scattered tokens": "in single tokens that differ from example to example",
    }[peak.where]
    text = f"{size} {where}; it comes from {o.writer} (first at {o.first}): {o.because}"
    n, of = o.reaches
    if o.module != "norm":
        text += f". It is an outlier at {n} of the {of} places of the residual stream from there on"
    if o.suppressed_by or o.passed_by:
        parts = []
        if o.suppressed_by:
            parts.append(
                f"{_named(o.suppressed_by)} suppress{'es' * (len(o.suppressed_by) == 1)} it (weight near zero)"
            )
        if o.passed_by:
            parts.append(f"{_named(o.passed_by)} do{'es' * (len(o.passed_by) == 1)} not")
        text += f". Of the norms behind it {'; '.join(parts)}"
    if others:
        same = [other.name for other in others if o.dim in other.dims]
        differ = [other.name for other in others if o.dim not in other.dims]
        if same:
            text += f". On {' and '.join(same)} it is an outlier too"
        if differ:
            text += f". On {' and '.join(differ)} it is none"
    return text


def _named(points: Sequence[str]) -> str:
    """'norm1 of blocks 1 to 3, norm2 of blocks 1 to 3, norm'."""
    by_name: dict[str, list[int | None]] = {}
    for point in points:
        head, _, name = point.rpartition(".")
        by_name.setdefault(name, []).append(int(head.split(".")[1]) if head.startswith("blocks.") else None)
    parts = []
    for name, blocks in by_name.items():
        numbers = [b for b in blocks if b is not None]
        if not numbers:
            parts.append(name)
        elif len(numbers) == 1:
            parts.append(f"{name} of block {numbers[0]}")
        elif numbers == list(range(numbers[0], numbers[-1] + 1)):
            parts.append(f"{name} of blocks {numbers[0]} to {numbers[-1]}")
        else:
            parts.append(f"{name} of blocks {', '.join(map(str, numbers))}")
    return ", ".join(parts)


def remedy(judged: Sequence[Judged], found: Sequence[Finding], base: Judged | None, instead: Judged | None) -> str:
    """What to do, in one sentence; '' where nothing is wrong.

    base: the place that the remedies were measured at. instead: a healthy place to record at.
    """
    kinds = {f.kind for f in found}
    if not found:
        return ""
    if "nan" in kinds:
        return "Repair or fetch the checkpoint anew: nothing recorded behind the first NaN can be used."
    if "dead" in kinds:
        return "Check that the weights were loaded and that the inputs reach the model: these features hold nothing."
    way, also = "", []
    growth = next((f for f in found if f.kind == "growth"), None)
    if growth is not None:
        way = f"record before {growth.points[0]}, or normalise per dimension, or whiten"
    elif "outlier" in kinds and base is not None:
        way = "normalise per dimension, or whiten"
        if instead is not None:
            place = "after norm2" if instead.stats.place.name == "norm2" else f"at {instead.point}"
            way = f"record {place} ({instead.point}, which is healthy) instead of at {base.point}; or {way}"
        elif base.stats.place.kind == "residual":
            way = f"do not record the residual stream as it is (norm2 does not suppress this): {way}"
    if "tokens" in kinds:
        also.append("leave the large tokens out, or normalise each token, as recording after norm2 does")
    if any(j.stats.place.kind == "pooled" and j.outliers for j in judged):
        also.append("the pooled features of ordinary runs have it too: prefer a probe that normalises each dimension")
    if "constant" in kinds:
        also.append("leave the dead dimensions out; the others can be used")
    text = "; ".join([*([way] if way else []), *also])
    return text[:1].upper() + text[1:] + "."
