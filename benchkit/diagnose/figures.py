"""The charts of the page, from what was found."""

from collections.abc import Sequence

import numpy as np

from benchkit.diagnose.judge import RATIO, Judged
from benchkit.diagnose.run import Looked
from benchkit.diagnose.svg import Axis, Series, chart, covering
from benchkit.diagnose.weights import Layer, density
from benchkit.interfaces import WeightRole

MOST_LINES = 4
"""Outlier dimensions drawn, the largest first."""
BINS = 70
ROLES: tuple[tuple[WeightRole, str, str], ...] = (
    ("attn_in", "c1", "QKV (reads)"), ("attn_out", "c2", "attention out (writes)"), ("mlp_in", "c3", "MLP in (reads)"),
    ("mlp_out", "c4", "MLP out (writes)"),
)  # fmt: skip


def dims_of(looked: Looked) -> list[int]:
    """The outlier dimensions that are drawn."""
    return list(dict.fromkeys(o.dim for o in looked.origins))[:MOST_LINES]


# ---------------------------------------------------------------------------------------------------------- activations


def histograms(looked: Looked) -> list[str]:
    """All activations (of the sampled tokens) at a few telling places, those of the outlier dimensions coloured."""
    return [_histogram(j, dims_of(looked)) for j in telling(looked)]


def telling(looked: Looked) -> list[Judged]:
    """The embedding, what the writer of the first outlier adds, the last place of the stream, its norm2 and the pooled
    features."""
    finite = [j for j in looked.judged if j.stats.finite]
    stream = [j for j in finite if j.stats.place.kind == "residual"]
    wanted = stream[:1] + stream[-1:]
    wanted += [j for j in finite if j.point in {o.first for o in looked.origins[:2]}]
    if stream:
        wanted += [j for j in finite if j.stats.place.name == "norm2"][-1:]
    wanted += [j for j in finite if j.stats.place.kind == "pooled"]
    return [j for j in finite if j.point in {w.point for w in wanted}]


def _histogram(j: Judged, dims: Sequence[int]) -> str:
    x = j.stats.sample_nd.astype(np.float64)
    unit = max(j.stats.scale, 1e-12)
    bent = np.sign(x) * np.log10(1 + np.abs(x) / unit)
    edges = np.linspace(min(float(bent.min()), -0.1), max(float(bent.max()), 0.1) * 1.02, BINS + 1)
    inside = np.zeros(x.shape[1], bool)
    inside[[d for d in dims if d < x.shape[1]]] = True
    at = np.sign(edges) * (10 ** np.abs(edges) - 1) * unit
    series = []
    top = 1.0
    for css, name, chosen in (
        ("plain", "other dimensions" if dims else "all dimensions", ~inside),
        ("bad", _named(dims), inside),
    ):
        if chosen.any():
            counts = np.histogram(bent[:, chosen], edges)[0].astype(float)
            top = max(top, float(counts.max()))
            series.append(Series("steps", css, name, at[:-1].tolist(), np.maximum(counts, 0.5).tolist()))
    axis = Axis("value (linear near 0, logarithmic beyond)", float(at[0]), float(at[-1]), "symlog", unit)
    count = Axis(f"values among {x.size:,} sampled", 0.5, top * 1.5, "log")
    return chart(f"{j.point}{'' if j.healthy else ' — unhealthy'}", axis, count, series)


def _named(dims: Sequence[int]) -> str:
    return f"dimension{'s' * (len(dims) > 1)} {', '.join(map(str, dims))}"


def through_layers(looked: Looked) -> list[str]:
    """Mean, usual size and outlier dimensions of the stream, of what attention adds and of what the MLPs add."""
    made = []
    for title, kind, name in (("Residual stream", "residual", None), ("Attention output", "module", "attn_out"),
                              ("MLP output", "module", "mlp_out")):  # fmt: skip
        group = [j for j in looked.judged if j.stats.finite and j.stats.place.kind == kind
                 and name in (None, j.stats.place.name)]  # fmt: skip
        if group:
            made.append(_through(title, group, dims_of(looked)))
    return made


def _depth(j: Judged) -> float:
    """In blocks: 1 is behind the first one."""
    within = {"resid_pre": 0.0, "embeddings": 0.0, "norm_ffn1": 0.04, "ffn1_out": 0.08, "resid_ffn1": 0.12,
              "norm1": 0.15, "attn_out": 0.35, "resid_mid": 0.5, "conv_out": 0.55, "resid_conv": 0.6, "norm2": 0.65,
              "mlp_out": 0.85, "resid_out": 0.95, "resid_post": 1.0}  # fmt: skip
    return (j.stats.place.block or 0) + within.get(j.stats.place.name, 0.0)


def _through(title: str, group: Sequence[Judged], dims: Sequence[int]) -> str:
    x = [_depth(j) for j in group]
    usual = [j.stats.scale for j in group]
    series = [
        Series("band", "plain", "usual size (median dimension)", x, usual, [-u for u in usual]),
        Series("line", "c1", "mean of all", x, [j.stats.mean for j in group]),
    ]
    for k, dim in enumerate(dims):
        y = [signed_size(j, dim) for j in group]
        series += _curve(f"bad b{k}", f"dimension {dim}", x, y, [j.point for j in group])
    if not dims:
        y = [j.stats.top_ratio * j.stats.scale for j in group]
        series += _curve("c2", "largest dimension", x, y, [_largest(j) for j in group])
    values = [v for s in series for v in (*s.y, *s.other)]
    blocks = Axis("depth (blocks)", min(x) - 0.1, max(x) + 0.1 if len(x) > 1 else min(x) + 1, whole=True)
    unit = max(float(np.median(usual)), 1e-12)
    return chart(title, blocks, covering("activation, where it is largest", values, "symlog", unit), series)


def signed_size(j: Judged, dim: int) -> float:
    """Root mean square at the position where it is largest, with the sign of the largest value."""
    s = j.stats
    if dim >= s.dim:
        return float("nan")
    sign = 1.0 if s.high_d[dim] >= -s.low_d[dim] else -1.0
    return sign * float(s.position_rms_td[:, dim].max())


def _curve(css: str, name: str, x: Sequence[float], y: Sequence[float], what: Sequence[str]) -> list[Series]:
    """A line with a point for each value, which says what it is."""
    labels = [f"{w}: {v:,.4g}" for w, v in zip(what, y, strict=True)]
    return [Series("line", css, name, x, y), Series("points", css, "", x, y, labels=labels)]


def _largest(j: Judged) -> str:
    return f"{j.point}, dimension {j.stats.top_dim}"


def ratios(looked: Looked, against: Looked | None) -> str:
    """The largest dimension over the median one at every place, beside another model's."""
    series = []
    groups = (
        ("c1", "residual stream", "residual"),
        ("c2", "module outputs", "module"),
        ("c3", "norms", "norm"),
    )
    for which, suffix, css in ((looked, "", ""), (against, " (the other model)", " other")):
        if which is None:
            continue
        depth = max((_depth(j) for j in which.judged), default=1.0) or 1.0
        for colour, name, kind in groups:
            inside = [j for j in which.judged if j.stats.finite and j.stats.place.block is not None]
            group = [j for j in inside if j.stats.place.kind == kind]
            if not group or (suffix and kind != "residual"):
                continue
            x = [_depth(j) / depth for j in group]
            y = [max(j.stats.top_ratio, 1.0) for j in group]
            series += _curve(colour + css, name + suffix, x, y, [_largest(j) for j in group])
    if not series:
        return ""
    top = max(v for s in series for v in s.y)
    series.append(Series("level", "limit", f"outlier from {RATIO:g} on", [], [RATIO]))
    y_axis = Axis("largest over median dimension", 1.0, max(20.0, 1.5 * top), "log")
    return chart("Largest dimension over the median one", Axis("relative depth", -0.02, 1.02), y_axis, series)


# -------------------------------------------------------------------------------------------------------------- weights


def output_columns(looked: Looked) -> list[str]:
    """Norms of the columns of the output weights: by block, and each dimension's where the outlier is written."""
    dims, made = dims_of(looked), []
    for role, title in (("attn_out", "Attention output"), ("mlp_out", "MLP output")):
        group = [layer for layer in looked.layers if layer.role == role and not layer.n_nan]
        if group:
            norms = [layer.row_norms for layer in group]
            blocks = [float(layer.block or 0) for layer in group]
            made.append(_spread(f"{title}: column norms of the weights", blocks, norms, dims, "column norm", "log"))
    layers = {y.name: y for y in looked.layers if y.role in ("attn_out", "mlp_out") and not y.n_nan}
    shown = [layers[o.layer] for o in looked.origins[:1] if o.layer in layers] or list(layers.values())[-1:]
    made += [_columns(layer, dims) for layer in shown]
    return made


def _columns(layer: Layer, dims: Sequence[int]) -> str:
    norms = layer.row_norms
    x = np.arange(len(norms))
    here = [d for d in dims if d < len(norms)]
    series = [Series("points" if len(norms) <= 256 else "line", "plain-ink", "column norm", x.tolist(), norms.tolist())]
    if layer.bias is not None:
        series.append(
            Series("line", "c2", "size of the bias", x.tolist(), np.maximum(np.abs(layer.bias), 1e-6).tolist())
        )
    series.append(Series("points", "bad", "outlier dimensions" if here else "", here, [float(norms[d]) for d in here],
                         labels=[f"dimension {d}: {norms[d]:,.4g}" for d in here]))  # fmt: skip
    y = covering("size", [v for s in series for v in s.y if v > 1e-6], "log")
    return chart(f"{layer.name}: each dimension", Axis("dimension", -1.0, float(len(norms)), whole=True), y, series)


def norm_weights(looked: Looked) -> list[str]:
    dims, made = dims_of(looked), []
    for role in ("norm1", "norm2"):
        group = [
            layer for layer in looked.layers if layer.role == role and layer.weight_d is not None and not layer.n_nan
        ]
        if group:
            weights = [np.abs(layer.weight_d) for layer in group if layer.weight_d is not None]
            blocks = [float(layer.block or 0) for layer in group]
            made.append(_spread(f"{role}: weights", blocks, weights, dims, "size of the weight", "symlog"))
    return made


def _spread(
    title: str, x: list[float], values: Sequence[np.ndarray], dims: Sequence[int], label: str, scale: str
) -> str:
    """Median and range of a vector by block, and single dimensions of it."""
    low, middle, high = ([float(np.quantile(v, q)) for v in values] for q in (0.05, 0.5, 0.95))
    series = [
        Series("band", "plain", "90 % of the dimensions", x, high, low),
        Series("line", "c1", "median", x, middle),
    ]
    top = [int(v.argmax()) for v in values]
    series.append(Series("points", "c2", "largest", x, [float(v.max()) for v in values],
                         labels=[f"block {b:g}: dimension {d}" for b, d in zip(x, top, strict=True)]))  # fmt: skip
    for k, dim in enumerate(d for d in dims if d < len(values[0])):
        y = [float(v[dim]) for v in values]
        series += _curve(f"bad b{k}", f"dimension {dim}", x, y, [f"block {b:g}" for b in x])
    every = [v for s in series for v in (*s.y, *s.other)]
    unit = max(float(np.median(middle)), 1e-12) / 3
    y_axis = covering(label, every, "log") if scale == "log" else Axis(label, 0.0, 1.4 * max(every), "symlog", unit)
    return chart(title, _blocks(x), y_axis, series)


def by_depth(looked: Looked) -> list[str]:
    """Norms, kurtosis and largest singular value of the reading and the writing matrices."""
    made = []
    wanted = (
        ("Norms of what reads and writes the stream", "Frobenius norm", "log", lambda layer: layer.norm),
        ("Kurtosis of the weights (0: Gaussian, −1.2: uniform)", "excess kurtosis", "symlog",
         lambda layer: layer.kurtosis),
        ("Largest singular value over a random matrix's", "ratio to the Marchenko–Pastur edge", "log",
         lambda layer: layer.spectrum.values[0] / max(layer.spectrum.edge, 1e-300) if layer.spectrum else float("nan")),
    )  # fmt: skip
    for title, label, scale, value in wanted:
        series = []
        blocks: list[float] = []
        for role, css, name in ROLES:
            group = [y for y in looked.layers if y.role == role and not y.n_nan and np.isfinite(value(y))]
            if group:
                x = [float(layer.block or 0) for layer in group]
                y = [float(value(layer)) for layer in group]
                blocks += x
                series += _curve(css, name, x, y, [layer.name for layer in group])
        if series:
            axis = covering(label, [v for s in series for v in s.y], scale)  # type: ignore[arg-type]
            if "Marchenko" in label:
                series.append(Series("level", "limit", "random matrix", [], [1.0]))
                axis = covering(label, [1.0, *(v for s in series for v in s.y)], "log")
            made.append(chart(title, _blocks(blocks), axis, series))
    return made


def spectra(looked: Looked) -> list[str]:
    """Singular values of the four matrices of the block that writes the outlier (or the nearest that was looked at), or
    of the last one, and the density that a random matrix would have."""
    written = [o.block for o in looked.origins if o.block is not None]
    blocks = [layer.block for layer in looked.layers if layer.block is not None and layer.spectrum is not None]
    wanted = written[0] if written else max(blocks, default=0)
    block = min(blocks, key=lambda b: abs(b - wanted), default=None)
    found = [layer for layer in looked.layers if layer.block == block and layer.spectrum is not None]
    return [_spectrum(layer) for layer in found]


def _spectrum(layer: Layer) -> str:
    s = layer.spectrum
    assert s is not None
    large = len(s.values) / s.aspect
    eigen = s.values / (max(s.sigma, 1e-300) * np.sqrt(large))
    top = min(float(eigen[0]), 3.0 * (1 + np.sqrt(s.aspect)))
    edges = np.linspace(0, top * 1.03, 41)
    counts = np.histogram(np.minimum(eigen, top), edges)[0] / len(eigen) / (edges[1] - edges[0])
    grid = np.linspace(max(1 - np.sqrt(s.aspect), 0.02), 1 + np.sqrt(s.aspect), 120)
    ideal = 2 * grid * density(grid**2, s.aspect)
    beyond = int((eigen > top).sum())
    note = f", {beyond} beyond the right end (largest {eigen[0]:,.3g})" if beyond or eigen[0] > top else ""
    series = [
        Series("steps", "plain", "singular values", edges[:-1].tolist(), counts.tolist()),
        Series("line", "limit", "random matrix (Marchenko–Pastur)", grid.tolist(), ideal.tolist()),
    ]
    y = Axis("density", 0.0, 1.15 * float(max(counts.max(), ideal.max())))
    x = Axis(f"singular value / (σ√n){note}", 0.0, max(float(edges[-1]), 1.02 + float(np.sqrt(s.aspect))))
    return chart(layer.name, x, y, series)


def _blocks(x: Sequence[float]) -> Axis:
    return Axis("block", min(x) - 0.3, max(x) + 0.3, whole=True)
