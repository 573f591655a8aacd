"""What is wrong with a spec, or with a plugin's parameters, is one line with the way out."""

from collections.abc import Iterator
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from benchkit.catalog.discovery import Catalog, Plugin
from benchkit.catalog.params import check_range, hints_of
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import RawSpec, param, parse_params
from benchkit.errors import BenchkitError, PluginError, SpecError

from .toys import CATALOG, error


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("evry", "no model named 'evry'; did you mean 'every'? (benchkit models lists all)"),
        ("every,sise=3", "model 'every' has no parameter 'sise'; did you mean 'sizes'? (it has box, flag, k, "),
        ("bare,k=3", "model 'bare' has no parameter 'k' (it has none)"),
        ("every,k=five", "model 'every': parameter 'k' is 'five', not a whole number"),
        ("every,k=1.5", "not a whole number"),
        ("every,k=\u0663", "is '\u0663', not a whole number"),
        ("every,k=0", "is 0, below the least allowed, 1"),
        ("every,k=101", "is 101, above the most allowed, 100"),
        ("every,lr=-0.5", "is -0.5, below the least allowed, 0"),
        ("every,lr=nan", "not a finite number"),
        ("every,lr=1e999", "not a finite number"),
        ("every,flag=maybe", "not true or false"),
        ("every,pool=men", "is 'men', which is none of mean, cls; did you mean 'mean'?"),
        ("every:larg", "checkpoint is 'larg', which is none of base, large; did you mean 'large'?"),
        ("every,sizes=1+x", "is 'x', not a whole number"),
        ("every,box=1+2+3", "is '1+2+3', which is not 2 values, as in A+B"),
        ("every,k=1,k=1", "'k' is given twice"),
        ("every,k", "'k' is no key=value"),
        ("every,checkpoint=large", "write the checkpoint as 'every:large'"),
        ("every:", "nothing follows the ':'"),
        ("bare:large", "model 'bare' has no checkpoints; 'bare:large' names one"),
        ("every@0", "must be a number from 1, not '0'"),
        ("every@x", "must be a number from 1, not 'x'"),
        ("every@2", "model 'every' is at version 1 here, not 2: old results stay in the registry"),
        ("fixed@1", "new ones are of 'fixed@2'"),
        ("hf", "model 'hf' needs checkpoint, as in 'hf:NAME': a repository of the hub, or a folder"),
        ("places", "model 'places' needs root, as in 'places,root=...'"),
        ("places,root=/no/such/folder", "there is no such file or folder"),
        ("places,root=", "there is no such file or folder"),
        ("other/bare", "distribution 'other' provides no model 'bare'; toys does"),
        ("-/bare", "'-' is no name of a distribution"),
        ("Every", "must begin with a name (lower case)"),
        ("", "must begin with a name"),
        ("every,name=50%", "a '%' in a value is written %25"),
        ("every,name=%ff", "does not decode as UTF-8"),
        ("every,name=%0A", "holds a character that cannot be printed"),
        ("even,n=3", "n=3 is odd"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_way_out(typed: str, words: str) -> None:
    assert words in error(typed)


def test_a_spec_of_another_kind_is_not_found() -> None:
    with pytest.raises(SpecError, match="no task named 'every'"):
        resolve("task", "every", CATALOG)


def test_broken_plugins_are_mentioned_where_a_name_is_missing() -> None:
    catalog = Catalog((*CATALOG.plugins, Plugin("bad", "bad", "1", "bad", error="SyntaxError")))
    assert "1 plugin(s) failed to load (bad): see benchkit plugins" in error("nowhere", catalog)


def test_a_very_long_spec_does_not_make_a_very_long_line() -> None:
    assert len(error("Z" * 100_000)) < 400


# ------------------------------------------------------------------------------- Params that could not be told apart


def _bad_schemas() -> Iterator[tuple[str, type]]:
    def schema(hint: Any, *default: Any, **options: Any) -> type:
        return make_dataclass("Bad", [("x", hint, param(*default, **options))], frozen=True)

    yield "cannot spell: 'none' means None, not 'none'", schema(str | None, "none")
    yield "cannot spell: 'a+b' means ('a', 'b'), not ('a+b',)", schema(tuple[str, ...], ("a+b",))
    yield "cannot spell: '' means (), not ('',)", schema(tuple[str, ...], ("",))
    yield "default that is not allowed: it is '1', not true or false".replace("1'", "x'"), schema(bool, "x")
    yield "default that is not allowed: it is 'true', not a whole number", schema(int, True)
    yield "default that is not allowed: it is 'inf', not a finite number", schema(float, float("inf"))
    yield "default that is not allowed: it is 0, below the least allowed, 1", schema(int, 0, low=1)
    yield "cannot spell: '-0' means 0.0, not -0.0", schema(float, -0.0)
    yield "cannot spell: 'a\nb'", schema(str, "a\nb")
    yield "two choices are spelled alike", schema(Literal[1, "1"], 1)
    yield "two choices are spelled alike", schema(Literal[True, "true"], True)
    yield "have a meaning of their own there", schema(Literal["none", "x"] | None, None)
    yield "use one type, or one type and None", schema(int | str, 1)
    yield "use bool, int, float, str, Path, Literal, tuple or Optional", schema(dict[str, int], None)
    yield "use bool, int, float, str, Path, Literal, tuple or Optional", schema(list[int], None)
    yield "use bool, int, float, str, Path, Literal, tuple or Optional", schema(tuple[tuple[int, ...], ...], ())
    yield "is a tuple of paths", schema(tuple[Path, ...], ())
    yield "is a place, but annotated", schema(int, 1, place=("*",))
    yield "is a place, but annotated", schema(tuple[str, ...], (), place=("*",))
    yield "cannot be set in a spec", make_dataclass("Bad", [("X", int, 1)], frozen=True)
    yield "is no frozen dataclass", make_dataclass("Bad", [("x", int, 1)])
    yield "is no frozen dataclass", type("Bad", (), {})
    yield "cannot be evaluated", make_dataclass("Bad", [("x", "Missing", 1)], frozen=True)


@pytest.mark.parametrize(("words", "schema"), list(_bad_schemas()))
def test_params_with_two_meanings_of_one_spelling_are_the_plugins_error(words: str, schema: type) -> None:
    with pytest.raises(PluginError) as caught:
        parse_params("model", RawSpec("bad"), schema)
    assert words in str(caught.value)


def test_optional_and_tuple_parameters_take_what_their_annotation_says() -> None:
    schema = make_dataclass(
        "Good",
        [("a", tuple[int, ...] | None, None), ("b", tuple[float, ...], (1, 0.5)), ("c", Path | None, None)],
        frozen=True,
    )
    assert set(hints_of(schema)) == {"a", "b", "c"}
    made = parse_params("model", RawSpec.parse("x,a=1+2,b=1e-3+2,c=none"), schema)
    assert (made.a, made.b, made.c) == ((1, 2), (0.001, 2.0), None)


def test_params_that_raise_something_odd_are_the_plugins_error_not_the_users() -> None:
    def explode(self: Any) -> None:
        raise KeyError("boom")

    schema = make_dataclass("Odd", [("x", int, 1)], frozen=True, namespace={"__post_init__": explode})
    with pytest.raises(PluginError, match="its Params raise KeyError: 'boom'"):
        parse_params("model", RawSpec("odd"), schema)


def test_a_range_holds_for_each_number_of_a_tuple() -> None:
    (field,) = fields(make_dataclass("T", [("x", tuple[int, ...], param((1,), low=0))], frozen=True))
    assert check_range(field, (0, 5)) == (0, 5)
    with pytest.raises(ValueError, match="is -1, below the least allowed, 0"):
        check_range(field, (0, -1))


def test_every_error_of_this_module_is_one_a_user_may_meet() -> None:
    assert issubclass(SpecError, BenchkitError)
    assert issubclass(PluginError, BenchkitError)
