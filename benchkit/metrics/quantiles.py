"""Quantiles of Student's t without scipy, by the regularised incomplete beta function.

The continued fraction is that of Abramowitz and Stegun 26.5.8, evaluated as Lentz does (Press et al. 2007, 6.4).
"""

import math
from functools import cache

_TINY = 1e-300


@cache
def t_quantile(p: float, df: float) -> float:
    """The p quantile, 0.5 <= p < 1, of t with df >= 1 degrees of freedom, which need not be whole; to nine digits."""
    df = max(df, 1.0)
    low, high = 0.0, 2.0
    while t_cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
        if high - low <= 1e-11 * high:
            break
    return (low + high) / 2


def t_cdf(x: float, df: float) -> float:
    """The chance that t with df degrees of freedom is at most x, of x >= 0."""
    if x == 0:
        return 0.5
    if df > 1e7:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))
    return 1 - 0.5 * _beta(df / (df + x * x), df / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function."""
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    made = d
    for m in range(1, 10_000):
        up = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _away(1 + up * d), _away(1 + up / c)
        made *= d * c
        down = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _away(1 + down * d), _away(1 + down / c)
        made *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return made


def _away(x: float) -> float:
    """x, or something tiny where it is 0."""
    return x if abs(x) > _TINY else _TINY
