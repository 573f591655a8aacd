"""A preset is a name for a set of values: however the same values are spelled, they are one cell."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit.catalog.spec import RawSpec, Spec, param, parse_params
from benchkit.errors import SpecError


@dataclass(frozen=True)
class Params:
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"lr": 0.0004, "loss": "asymmetric", "epochs": 30},
        "long": {"epochs": 300},
    }
    lr: float = param(0.003)
    loss: str = param("auto")
    epochs: int = param(50)
    batch: int = param(64)


class Probe:
    version = 1


def canonical(text: str) -> str:
    return Spec("classifier", "probe", "x", Probe, parse_params("classifier", RawSpec.parse(text), Params)).canonical


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("probe", "probe"),
        ("probe:paper", "probe:paper"),
        ("probe:paper,lr=4e-4", "probe:paper"),
        ("probe,lr=4e-4,loss=asymmetric,epochs=30", "probe:paper"),
        ("probe,lr=4e-4,loss=asymmetric,epochs=30,batch=32", "probe:paper,batch=32"),
        ("probe:paper,lr=0.001", "probe:paper,lr=0.001"),
        ("probe:paper,lr=0.003,loss=auto,epochs=50", "probe"),
        ("probe:paper,lr=0.003,loss=auto", "probe,epochs=30"),
        ("probe,epochs=300", "probe:long"),
        ("probe:paper,epochs=300,lr=0.003,loss=auto", "probe:long"),
    ],
)
def test_equal_values_are_one_string_however_they_are_spelled(spelled: str, expected: str) -> None:
    assert canonical(spelled) == expected


@given(
    preset=st.sampled_from(["", ":paper", ":long"]),
    lr=st.none() | st.sampled_from([0.0004, 0.003, 0.01]),
    loss=st.none() | st.sampled_from(["auto", "asymmetric"]),
    epochs=st.none() | st.sampled_from([30, 50, 300]),
)
def test_the_canonical_form_depends_on_the_values_alone(preset: str, **given: Any) -> None:
    text = "probe" + preset + "".join(f",{k}={v}" for k, v in given.items() if v is not None)
    params = parse_params("classifier", RawSpec.parse(text), Params)
    in_full = f"probe,lr={params.lr},loss={params.loss},epochs={params.epochs},batch={params.batch}"
    assert canonical(text) == canonical(in_full)
    assert parse_params("classifier", RawSpec.parse(canonical(text)), Params) == params


def test_an_unknown_preset_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'probe' has no preset 'papr'; did you mean 'paper'\? \(it has long, paper\)"):
        canonical("probe:papr")
