"""Small charts as inline SVG: axes with ticks and labels; lines, points, bands and steps. The page has the colours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Scale = Literal["linear", "log", "symlog"]
Num = float | int
Shape = Literal["line", "points", "band", "steps", "level"]
WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 46
"""Pixels around the plot."""


@dataclass(frozen=True)
class Axis:
    """symlog: linear within `unit` of zero, logarithmic beyond, for values of either sign."""

    label: str
    low: Num
    high: Num
    scale: Scale = "linear"
    unit: Num = 1.0
    whole: bool = False
    """Ticks at whole numbers alone."""

    def at(self, value: Num) -> float:
        """0 at the low end, 1 at the high end."""
        low, high = self._bend(self.low), self._bend(self.high)
        return (self._bend(value) - low) / (high - low) if high > low else 0.5

    def _bend(self, value: Num) -> float:
        if self.scale == "log":
            return math.log10(max(value, 1e-300))
        if self.scale == "symlog":
            return math.copysign(math.log10(1 + abs(value) / self.unit), value)
        return float(value)

    def ticks(self) -> list[Num]:
        if self.scale == "linear":
            return _linear_ticks(self.low, self.high, self.whole)
        if self.scale == "log":
            return [t for t in _powers(self.low, self.high) if self.low <= t <= self.high]
        top = max(abs(self.low), abs(self.high))
        sizes = [t for t in _powers(self.unit, top) if t >= self.unit]
        return [t for t in (*(-s for s in reversed(sizes)), 0.0, *sizes) if self.low <= t <= self.high]


@dataclass(frozen=True)
class Series:
    """css: the class that colours it. other: of a band, its lower edge. labels: shown under the mouse, one a point."""

    shape: Shape
    css: str
    name: str
    x: Sequence[Num]
    y: Sequence[Num]
    other: Sequence[Num] = ()
    labels: Sequence[str] = ()


def covering(label: str, values: Sequence[Num], scale: Scale = "linear", unit: Num = 1.0) -> Axis:
    """An axis with room for all finite values."""
    known = [v for v in values if math.isfinite(v) and (scale != "log" or v > 0)] or [1.0]
    low, high = min(known), max(known)
    if scale == "log":
        return Axis(label, low / 1.3, max(high, low * 1.01) * 1.3, scale)
    if scale == "symlog":
        return Axis(label, low * (1.5 if low < 0 else 0.7), high * (1.5 if high > 0 else 0.7) or unit, scale, unit)
    margin = 0.06 * (high - low or abs(high) or 1.0)
    return Axis(label, low - margin, high + margin, scale)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], width: int = WIDTH, height: int = HEIGHT) -> str:
    """A figure with its title and a legend of every named series."""
    w, h = width - LEFT - RIGHT, height - TOP - BOTTOM

    def across(v: Num) -> float:
        return round(LEFT + w * x.at(v), 1)

    def down(v: Num) -> float:
        return round(TOP + h * (1 - min(max(y.at(v), -0.02), 1.02)), 1)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    for tick in _apart(y.ticks(), down, lambda _: 15.0):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{down(tick)}" y2="{down(tick)}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{down(tick) + 3.5}" text-anchor="end">{number(tick)}</text>'
        )
    for tick in _apart(x.ticks(), across, lambda t: 6.5 * len(number(t)) + 8):
        parts.append(f'<line class="mark" x1="{across(tick)}" x2="{across(tick)}" y1="{TOP + h}" y2="{TOP + h + 4}"/>')
        parts.append(
            f'<text class="tick" x="{across(tick)}" y="{TOP + h + 16}" text-anchor="middle">{number(tick)}</text>'
        )
    parts.append(f'<path class="frame" d="M{LEFT} {TOP}V{TOP + h}H{width - RIGHT}"/>')
    for s in series:
        parts += _draw(s, across, down, TOP + h, (LEFT, width - RIGHT))
    parts.append(
        f'<text class="label" x="{LEFT + w / 2}" y="{height - 8}" text-anchor="middle">{escape(x.label)}</text>'
    )
    middle = TOP + h / 2
    parts.append(f'<text class="label" transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">'
                 f"{escape(y.label)}</text></svg>")  # fmt: skip
    keys = "".join(
        f'<span class="key"><i class="{s.css} {s.shape}"></i>{escape(s.name)}</span>' for s in series if s.name
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}<div>{keys}</div></figure>"


def _apart(ticks: list[Num], place: Callable[[Num], Num], room: Callable[[Num], Num]) -> list[Num]:
    """Those ticks whose labels do not touch: zero first, then from the largest down."""
    kept: list[Num] = []
    for tick in sorted(ticks, key=lambda t: (t != 0, -abs(t))):
        if all(abs(place(tick) - place(other)) >= (room(tick) + room(other)) / 2 for other in kept):
            kept.append(tick)
    return sorted(kept)


def _draw(
    s: Series,
    across: Callable[[Num], Num],
    down: Callable[[Num], Num],
    floor: Num,
    ends: tuple[Num, Num],
) -> list[str]:
    known = [i for i, v in enumerate(s.y) if math.isfinite(v)]
    points = [(across(s.x[i]), down(s.y[i])) for i in known] if s.shape != "level" else []
    if s.shape == "level":
        return [
            f'<line class="{s.css} level" x1="{ends[0]}" x2="{ends[1]}" y1="{down(v)}" y2="{down(v)}"/>' for v in s.y
        ]
    if s.shape == "points":
        titles = [f"<title>{escape(s.labels[i])}</title>" if s.labels else "" for i in known]
        return [f'<circle class="{s.css}" cx="{x}" cy="{y}" r="3">{t}</circle>'
                for (x, y), t in zip(points, titles, strict=True)]  # fmt: skip
    if not points:
        return []
    if s.shape == "line":
        return [f'<polyline class="{s.css} line" points="{_joined(points)}"/>']
    if s.shape == "band":
        back = [(across(s.x[i]), down(s.other[i])) for i in reversed(known)]
        return [f'<polygon class="{s.css} band" points="{_joined([*points, *back])}"/>']
    corners = [(points[0][0], floor)]  # steps: y[i] from x[i] to x[i + 1]
    ends_at = [x for x, _ in points[1:]]
    ends_at.append(2 * points[-1][0] - points[-2][0] if len(points) > 1 else points[-1][0])
    for (x, y), after in zip(points, ends_at, strict=True):
        corners += [(x, y), (after, y)]
    corners.append((corners[-1][0], floor))
    return [f'<polygon class="{s.css} steps" points="{_joined(corners)}"/>']


def _joined(points: Sequence[tuple[Num, Num]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def number(value: Num) -> str:
    """A tick: 0.05, 20, 2,000, 10⁶."""
    size = abs(value)
    if size and (size >= 1e6 or size < 1e-3):
        exponent = math.floor(math.log10(size) + 1e-9)
        factor = value / 10**exponent
        power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return power if abs(factor - 1) < 1e-6 else f"{factor:.3g}·{power}"
    return f"{value:,.10g}".replace("-", "−")


def _powers(low: Num, high: Num, most: int = 7) -> list[Num]:
    """Powers of ten within; where there are few, twice and five times as well, where there are many, each so many."""
    first, last = math.floor(math.log10(max(low, 1e-300))), math.ceil(math.log10(max(high, 1e-300)))
    if last - first <= 2:
        steps = (1, 2, 5) if high >= 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
        return [f * 10.0**e for e in range(first, last + 1) for f in steps]
    step = math.ceil((last - first + 1) / most)
    return [10.0**e for e in range(first, last + 1, step)]


def _linear_ticks(low: Num, high: Num, whole: bool, about: int = 6) -> list[Num]:
    span = high - low or 1.0
    raw = span / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(f * size for f in (1, 2, 5, 10) if f * size >= raw * 0.999)
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
