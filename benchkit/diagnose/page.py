"""The diagnosis as one HTML page: nothing in it comes from outside, and it reads in light and in dark."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from benchkit.diagnose import figures
from benchkit.diagnose.judge import RULE
from benchkit.diagnose.run import Looked
from benchkit.diagnose.weights import standouts
from benchkit.diagnose.words import amount
from benchkit.machine.times import shown
from benchkit.machine.version import __version__

STYLE = files("benchkit.diagnose").joinpath("page.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing."""


def html(looked: Looked, against: Looked | None, made_at: str) -> str:
    """The whole page. made_at: ISO 8601."""
    title = f"{looked.model} on {looked.inputs}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{_subtitle(looked)} · {escape(shown(made_at))} · benchkit {__version__}</p>',
        _verdict(looked),
    ]
    if looked.effects:
        body += ["<h2>What helps</h2>", _effects(looked)]
    if against is not None:
        body += [f"<h2>Against {escape(against.model)} on {escape(against.inputs)}</h2>",
                 f'<p class="soft">{_subtitle(against)}</p>', _verdict(against),
                 *(f"<p>{escape(n)}.</p>" for n in against.notes)]  # fmt: skip
    if chart := figures.ratios(looked, against):
        body += ["<h2>Through the layers</h2>",
                 "<p>Each dimension's size is its root mean square over examples, where it is largest among the token "
                 "positions. A point shows its value under the mouse.</p>",
                 _charts([*figures.through_layers(looked), chart])]  # fmt: skip
    body += ["<h2>Activations</h2>",
             "<p>Counts on a logarithmic scale, of all values of the sampled tokens at a few telling places.</p>",
             _charts(figures.histograms(looked))]  # fmt: skip
    if looked.layers:
        body += _weights(looked)
    body += ["<h2>Every place</h2>", _points(looked)]
    if against is not None:
        body += [f"<h2>Every place of {escape(against.model)}</h2>", _points(against)]
    body += ["<h2>How this was judged</h2>", f"<p>{escape(RULE)}</p>", *(f"<p>{escape(n)}.</p>" for n in looked.notes),
             f'<p class="soft">weights {escape(looked.model_fingerprint)}, data {escape(looked.data_fingerprint)}, '
             f"task {escape(looked.task)}</p>"]  # fmt: skip
    return "\n".join([
        '<!doctype html>', '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>',
        f"<style>\n{STYLE.read_text()}</style></head>",
        "<body>", *body, "</body></html>", "",
    ])  # fmt: skip


def _subtitle(looked: Looked) -> str:
    tokens = max(j.stats.tokens for j in looked.judged)
    dim = max(j.stats.dim for j in looked.judged)
    return f"{looked.n_examples} examples, {tokens:,} tokens each, {dim:,} dimensions, {len(looked.judged)} places"


def _verdict(looked: Looked) -> str:
    if looked.healthy:
        words = escape(looked.verdict.partition(": ")[2])
        return f'<div class="verdict"><b class="big">Healthy</b><p>{words[:1].upper()}{words[1:]}</p></div>'
    items = "".join(f"<li>{escape(f.text[:1].upper() + f.text[1:])}.</li>" for f in looked.findings)
    return (
        f'<div class="verdict bad"><b class="big">Unhealthy</b><ol>{items}</ol>'
        f"<p><b>Remedy.</b> {escape(looked.remedy)}</p></div>"
    )


def _effects(looked: Looked) -> str:
    header = ("place", "as recorded", "outliers' share of the norm", "of the variance", "directions used",
              "nearest neighbour shares a label")  # fmt: skip
    rows = [
        (
            e.point, e.name, _percent(e.norm_share), _percent(e.variance_share), f"{e.participation:.1f} of {e.dim}",
            "–" if e.neighbours is None else f"{e.neighbours:.2f}",
        )
        for e in looked.effects
    ]  # fmt: skip
    chance = "" if looked.chance is None else f" A random neighbour shares a label with chance {looked.chance:.2f}."
    return _table(header, rows, right=(2, 3, 4, 5)) + (
        '<p class="soft">Directions used: the participation ratio, (Σλ)² / Σλ² over the variances along principal axes.'
        f" Neighbours: by cosine of each example's mean token, leaving it out.{chance}</p>"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _weights(looked: Looked) -> list[str]:
    found = standouts(looked.layers)
    listed = "".join(f"<li>{escape(line)}</li>" for line in found[:40])
    body = ["<h2>What writes the stream, and what suppresses</h2>",
            "<p>Column d of an attention's or MLP's output weights is what it writes into dimension d; a norm's weight "
            "near zero keeps a dimension from what reads behind it.</p>",
            _charts([*figures.output_columns(looked), *figures.norm_weights(looked)]),
            "<h2>Weights through depth</h2>", _charts(figures.by_depth(looked)),
            "<h2>Singular values against a random matrix's</h2>",
            "<p>Values beyond the curve's right end hold what was learnt, or what was planted.</p>",
            _charts(figures.spectra(looked))]  # fmt: skip
    if found:
        body += ["<h2>Weights that stand out</h2>", f"<ul>{listed}</ul>"]
    rows = [
        (
            y.name, y.role, f"{y.n:,}", f"{y.n_nan:,}", amount(y.std), amount(y.kurtosis), amount(y.peak),
            amount(y.norm),
            "–" if y.spectrum is None else amount(float(y.spectrum.values[0]) / max(y.spectrum.edge, 1e-300)),
            "–" if y.spectrum is None else f"{y.spectrum.outside:.1%}",
        )
        for y in looked.layers
    ]  # fmt: skip
    header = ("layer", "role", "weights", "not finite", "std", "kurtosis", "largest / std", "norm",
              "largest singular / edge", "singular values outside")  # fmt: skip
    table = _table(header, rows, right=range(2, 10), bad=[i for i, y in enumerate(looked.layers) if y.n_nan])
    return [*body, f"<details><summary>Every layer ({len(rows)})</summary>{table}</details>"]


def _points(looked: Looked) -> str:
    header = ("place", "", "mean", "std", "usual size", "largest / usual", "dimension", "kurtosis",
              "distance from a Gaussian", "outlier dimensions", "dead", "NaN or infinite")  # fmt: skip
    rows = [
        (
            j.point, "healthy" if j.healthy else "unhealthy", amount(s.mean), amount(s.std), amount(s.scale),
            amount(s.top_ratio), str(s.top_dim), amount(s.kurtosis), f"{s.gaussian_distance():.3f}",
            ", ".join(map(str, j.dims[:8])) + (", …" if len(j.dims) > 8 else "") or "–", f"{len(j.constant):,}",
            f"{s.n_nan + s.n_infinite:,}",
        )
        for j, s in ((j, j.stats) for j in looked.judged)
    ]  # fmt: skip
    bad = [i for i, j in enumerate(looked.judged) if not j.healthy]
    return _table(header, rows, right=(2, 3, 4, 5, 6, 7, 8, 10, 11), bad=bad)


def _charts(charts: Sequence[str]) -> str:
    two = " two" * (len(charts) in (2, 4))
    return f'<div class="charts{two}">{"".join(charts)}</div>'


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), bad: Sequence[int] = ()
) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td{' class=n' * (k in right)}>{escape(c)}</td>" for k, c in enumerate(row))
        body.append(f"<tr{' class=bad' * (i in bad)}>{cells}</tr>")
    return f'<div class="table"><table><tr>{head}</tr>{"".join(body)}</table></div>'
