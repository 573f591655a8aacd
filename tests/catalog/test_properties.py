"""Two spellings of one thing are one string, two things are two strings, and no text does anything but that."""

import shlex
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchkit.catalog.params import format_value, parse_value
from benchkit.catalog.spec import RawSpec
from benchkit.errors import SpecError

from .toys import (
    MODELS,
    Even,
    Everything,
    Hub,
    Places,
    canonical,
    model,
)

names = st.from_regex(r"[a-z0-9][a-z0-9_.-]*", fullmatch=True)
PER_TEST = [HealthCheck.function_scoped_fixture]  # the cache folder of conftest.py: one for all examples will do
keys = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True).filter(lambda k: k != "checkpoint")
values = st.text(max_size=20).filter(str.isprintable)
# Strategies give plain values and the tests build the RawSpec: beartype draws random numbers, which hypothesis owns.
raw_specs = st.fixed_dictionaries(
    {
        "name": names,
        "dist": st.none() | st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True),
        "version": st.none() | st.integers(1, 999_999_999),
        "checkpoint": st.none() | values.filter(bool),
        "params": st.dictionaries(keys, values, max_size=5).map(lambda d: tuple(sorted(d.items()))),
    }
)

number = st.floats(0, allow_nan=False, allow_infinity=False)
spelled_floats = st.one_of(
    number.map(repr),
    number.map(lambda x: f"{x:.17e}"),
    number.map(lambda x: f"{x:.17E}"),
    st.decimals(0, 10_000, places=5).map(str),
    st.integers(0, 10**15).map(lambda n: f"+{n}."),
)
every_params = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.sampled_from(["true", "TRUE", "yes", "on", "1", "false", "No", "off", "0"]),
        "k": st.integers(1, 100).map(str) | st.integers(1, 100).map(lambda n: f"+00{n}"),
        "lr": spelled_floats,
        "name": values,
        "pool": st.sampled_from(["mean", "cls", "none", "NONE"]),
        "layer": st.just("none") | st.integers(-(10**17), 10**17).map(str),
        "sizes": st.lists(st.integers(-9, 9).map(str), max_size=4).map("+".join),
        "words": st.lists(values, max_size=3).map("+".join),
        "box": st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda t: f"{t[0]}+{t[1]}e-1"),
    },
)
every_spec = st.tuples(st.sampled_from([None, "base", "large"]), every_params)


def written(checkpoint: str | None, params: dict[str, str]) -> str:
    return str(RawSpec("every", None, None, checkpoint, tuple(sorted(params.items()))))


@given(raw_specs)
def test_parsing_is_the_inverse_of_formatting(parts: dict[str, Any]) -> None:
    raw = RawSpec(**parts)
    assert RawSpec.parse(str(raw)) == raw


def _or_one_line(make: Callable[[], Any]) -> Any:
    """What `make` gives, or None where it raises a SpecError in one line; anything else it raises comes through."""
    try:
        return make()
    except SpecError as e:
        line = str(e)
    assert line.isprintable()
    return None


@given(st.text() | st.from_regex(r"[a-z./@]+(:[^,]*)?(,[a-z]+=[^,]*)*", fullmatch=True))
@example("a@1\u0662")
@example("a,k=%ff")
@example("a,k=\ud800")
@example("x@" + "9" * 5000)
@example("a/b/c")
@example("a\nb")
def test_any_text_parses_to_what_formats_back_or_is_a_spec_error_in_one_line(text: str) -> None:
    raw = _or_one_line(lambda: RawSpec.parse(text))
    assert raw is None or RawSpec.parse(str(raw)) == raw


@settings(max_examples=300, suppress_health_check=PER_TEST)
@given(
    st.text()
    | st.builds(
        lambda name, params: ",".join([name, *(f"{k}={v}" for k, v in params)]),
        st.sampled_from([*MODELS, "hf:ORG/NAME", "every:large", "every@1", "fixed@2", "toys/bare", "toy/bare"]),
        st.lists(
            st.tuples(
                st.sampled_from([f.name for c in (Everything, Places, Hub, Even) for f in fields(c)]) | keys,
                st.text(max_size=12) | st.sampled_from(["~", "~nobody/x", "x" * 5000, "1e999", "-0", "1_000", "None"]),
            ),
            max_size=3,
        ),
    )
)
@example("places,root=" + "x" * 5000)
@example("places,root=~nobody-of-that-name/x")
@example("hf:" + "x" * 5000)
@example("hf:%00")
@example("every,sizes=1+" + "2" * 400)
@example("every,k=\u0663")
@example("even,n=3")
def test_no_text_whatever_resolves_to_anything_but_a_spec_or_a_spec_error(text: str) -> None:
    spec = _or_one_line(lambda: model(text))
    assert spec is None or shlex.quote(spec.portable) == spec.portable


@settings(suppress_health_check=PER_TEST)
@given(every_spec)
@example((None, {"name": "~"}))
@example((None, {"name": "a b'c\"$`\\!*?[]{}()<>|&;#=%,:"}))
def test_the_canonical_form_needs_no_quoting_and_resolves_to_itself(parts: tuple[str | None, dict[str, str]]) -> None:
    spec = model(written(*parts))
    assert shlex.quote(spec.canonical) == spec.canonical
    again = model(spec.canonical)
    assert again.canonical == spec.canonical
    assert again.params == spec.params
    assert again == spec


@settings(suppress_health_check=PER_TEST)
@given(every_spec, every_spec)
@example((None, {"words": ""}), (None, {"words": "+"}))
@example((None, {"pool": "none"}), (None, {"name": "none"}))
def test_two_specs_have_one_canonical_form_exactly_if_their_parameters_are_equal(
    a: tuple[str | None, dict[str, str]], b: tuple[str | None, dict[str, str]]
) -> None:
    one, two = model(written(*a)), model(written(*b))
    assert (one.canonical == two.canonical) == (one.params == two.params)


@settings(suppress_health_check=PER_TEST)
@given(every_spec, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_needless_escapes_change_nothing(
    parts: tuple[str | None, dict[str, str]], random: Any
) -> None:
    checkpoint, params = parts
    pairs = list(params.items())
    random.shuffle(pairs)
    escaped = [f"{k}=" + "".join(f"%{b:02x}" for b in v.encode()) for k, v in pairs]
    head = "every" if checkpoint is None else f"every:{checkpoint}"
    assert canonical(",".join([head, *escaped])) == canonical(written(*parts))


@given(number)
def test_a_float_is_read_back_exactly(x: float) -> None:
    assert parse_value(format_value(x), float) == x
