"""Every bound that a probe's parameter states is held, and stands open where the formula divides."""

import dataclasses

import pytest

from benchkit.catalog.params import format_value
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError

PROBES = ("linear", "mlp", "logreg", "centroid", "knn", "prototypical", "attentive", "attentive-pool", "finetune")
BOUNDS = [
    (probe, field.name, bound, field.metadata[bound])
    for probe in PROBES
    for field in dataclasses.fields(resolve("classifier", probe).build().Params)
    for bound in ("low", "high", "above", "below")
    if field.metadata.get(bound) is not None
]
BEYOND = {"low": -1, "high": 1, "above": 0, "below": 0}


@pytest.mark.parametrize(("probe", "name", "bound", "value"), BOUNDS)
def test_a_value_beyond_a_bound_is_refused_by_name(probe: str, name: str, bound: str, value: float) -> None:
    given = format_value(value + BEYOND[bound])
    with pytest.raises(BenchkitError, match=name) as refused:
        resolve("classifier", f"{probe},{name}={given}")
    assert given in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("probe", [p for p in PROBES if p not in ("logreg", "centroid", "knn")])
@pytest.mark.parametrize(("name", "value"), [("beta1", "1"), ("beta2", "1"), ("eps", "0")])
def test_what_a_formula_divides_by_is_never_zero(probe: str, name: str, value: str) -> None:
    with pytest.raises(BenchkitError, match=f"{name}.*is {value}"):
        resolve("classifier", f"{probe},{name}={value}")


def test_connections_that_their_rectifier_would_keep_dead_are_refused() -> None:
    with pytest.raises(BenchkitError, match="connection"):
        resolve("classifier", "prototypical,connection=0")
