"""Numbers and dimensions in sentences."""


def amount(value: float) -> str:
    """2,359; 71.2; 9.01; 0.0034."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def dims_in_words(dims: tuple[int, ...], shown: int = 5) -> str:
    """'dimension 3 is', '7 dimensions (1, 2, 3, 4, 5, ...) are'."""
    if len(dims) == 1:
        return f"dimension {dims[0]} is"
    return f"{len(dims):,} dimensions ({', '.join(map(str, dims[:shown]))}{', ...' * (len(dims) > shown)}) are"
