"""The diagnosis in a terminal."""

from collections.abc import Sequence

from benchkit.diagnose.judge import RULE, Judged
from benchkit.diagnose.run import Looked
from benchkit.diagnose.weights import standouts
from benchkit.diagnose.words import amount
from benchkit.reading.tables import Screen, text_table

COLUMNS = ("norm1", "attn_out", "resid_mid", "norm2", "mlp_out", "resid_post")
SHOWN = 8
"""Layers that stand out, in the summary."""


def summary(looked: Looked, against: Looked | None, screen: Screen, every_point: bool) -> str:
    """Verdict, remedies, each block, and what stands out of the weights."""
    tokens = max(j.stats.tokens for j in looked.judged)
    dim = max(j.stats.dim for j in looked.judged)
    lines = [screen.bold(f"{looked.model} on {looked.inputs}: {looked.n_examples} examples, {tokens} tokens, {dim} "
                         "dimensions"), ""]  # fmt: skip
    lines += _verdict(looked, screen)
    lines += _notes(looked)
    if looked.effects:
        lines += ["", "what helps", effects_table(looked, screen)]
    lines += ["", "largest dimension over the median dimension, * where it is an outlier", _blocks(looked, screen)]
    if every_point:
        lines += ["", "every place", points_table(looked.judged, screen), "", f"rule: {RULE}"]
    if found := standouts(looked.layers):
        lines += ["", "weights that stand out", *(f"  {line}" for line in found[:SHOWN])]
        lines += [f"  and {len(found) - SHOWN} more: see the page"] if len(found) > SHOWN else []
    if against is not None:
        lines += ["", screen.bold(f"against {against.model} on {against.inputs}"), "", *_verdict(against, screen)]
        lines += _notes(against)
        lines += ["", _blocks(against, screen)]
    return "\n".join(lines)


def _notes(looked: Looked) -> list[str]:
    return [f"  note: {note}" for note in looked.notes]


def _verdict(looked: Looked, screen: Screen) -> list[str]:
    if looked.healthy:
        return [looked.verdict]
    lines = [screen.bad("UNHEALTHY")]
    lines += [f"  {i}. {f.text[:1].upper()}{f.text[1:]}." for i, f in enumerate(looked.findings, 1)]
    return [*lines, f"  remedy: {looked.remedy}"]


def effects_table(looked: Looked, screen: Screen) -> str:
    header = ("at", "as recorded", "share of the norm", "of the variance", "directions used", "neighbours agree")
    rows = [
        (e.point, e.name, _percent(e.norm_share), _percent(e.variance_share), f"{e.participation:.1f} of {e.dim}",
         "-" if e.neighbours is None else f"{e.neighbours:.2f} (chance {looked.chance:.2f})")
        for e in looked.effects
    ]  # fmt: skip
    return text_table([header], rows, right=(2, 3), screen=screen)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _blocks(looked: Looked, screen: Screen) -> str:
    """A row for each block, and for what is outside of them."""
    by_block: dict[int | None, dict[str, Judged]] = {}
    for j in looked.judged:
        place = j.stats.place
        by_block.setdefault(place.block, {})[place.name] = j
    rows = []
    for block, cells in by_block.items():
        if block is not None:
            rows.append((str(block), *(_ratio(cells.get(name)) for name in COLUMNS)))
    outside = [f"{name} {_ratio(j)}" for name, j in by_block.get(None, {}).items()]
    if (first := by_block.get(0, {}).get("resid_pre")) is not None:
        outside.insert(0, f"embedding {_ratio(first)}")
    table = text_table([("block", *COLUMNS)], rows, right=range(7), screen=screen) if rows else ""
    return "\n".join(part for part in (table, ", ".join(outside)) if part)


def _ratio(j: Judged | None) -> str:
    if j is None:
        return "-"
    if not j.stats.finite:
        return "NaN*"
    ratio = j.outliers[0].ratio if j.outliers else j.stats.top_ratio
    return f"{amount(ratio)}{'' if j.healthy else '*'}"


def _some(dims: Sequence[int], shown: int = 4) -> str:
    return ", ".join(map(str, dims[:shown])) + (", ..." * (len(dims) > shown)) or "-"


def points_table(judged: Sequence[Judged], screen: Screen) -> str:
    header = (
        "place",
        "mean",
        "std",
        "usual size",
        "kurtosis",
        "to a Gaussian",
        "outlier dimensions",
        "dead",
        "NaN",
        "",
    )
    rows = [
        (
            j.point, amount(j.stats.mean), amount(j.stats.std), amount(j.stats.scale), amount(j.stats.kurtosis),
            f"{j.stats.gaussian_distance():.2f}", _some(j.dims),
            str(len(j.constant)), str(j.stats.n_nan + j.stats.n_infinite), "" if j.healthy else "unhealthy",
        )
        for j in judged
    ]  # fmt: skip
    return text_table([header], rows, right=(1, 2, 3, 4, 5, 7, 8), screen=screen)
