"""Specs: two spellings of one thing are one string, two things are two strings, and no text does anything but that."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchkit.errors import BenchkitError, DataError, PluginError, SpecError
from benchkit.hookspecs import Entry
from benchkit.interfaces import Backbone, Encoded
from benchkit.params import check_range, format_value, hints_of, local_path, parse_value
from benchkit.plugins import Catalog, Plugin
from benchkit.spec import NoParams, RawSpec, Spec, param, parse_params, resolve

# ------------------------------------------------------------------------------------------------- toy plugins to name


@dataclass(frozen=True)
class Everything:
    """One parameter of each type that there is."""

    checkpoint: Literal["base", "large"] = "base"
    flag: bool = False
    k: int = param(5, low=1, high=100)
    lr: float = param(1e-3, low=0.0)
    name: str = "plain"
    pool: Literal["mean", "cls"] | None = None
    layer: int | None = None
    sizes: tuple[int, ...] = (8, 8)
    words: tuple[str, ...] = ()
    box: tuple[int, float] = (1, 0.5)


@dataclass(frozen=True)
class Places:
    root: Path
    weights: str = param("ORG/NAME", place=("*.npz", "**/*.json"))


@dataclass(frozen=True)
class Hub:
    checkpoint: str = param(place=("*.safetensors",), help="a repository of the hub, or a folder")


@dataclass(frozen=True)
class Even:
    n: int = 2

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"n={self.n} is odd\nand has two lines")


class Toy(Backbone):
    modalities = ("image",)
    Params: ClassVar[type] = NoParams

    @property
    def dim(self) -> int:
        return 1

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(np.zeros((len(batch), 1), np.float32))

    def fingerprint(self) -> str:
        return "toy"


class ToyEverything(Toy):
    Params = Everything


class ToyPlaces(Toy):
    Params = Places


class ToyHub(Toy):
    Params = Hub


class ToyEven(Toy):
    Params = Even


class ToyFixed(Toy):
    version = 2


CLASSES = {
    "bare": Toy, "every": ToyEverything, "places": ToyPlaces, "hf": ToyHub, "even": ToyEven, "fixed": ToyFixed,
}  # fmt: skip
MODELS = {name: Entry("a toy", f"{__name__}:{cls.__name__}") for name, cls in CLASSES.items()}
CATALOG = Catalog((Plugin("toys", "toys", "1.0", "toys", {"model": MODELS}),))
TWO = Catalog((*CATALOG.plugins, Plugin("more", "More_Toys", "0.3", "more", {"model": {"bare": MODELS["bare"]}})))


def model(text: str, catalog: Catalog = CATALOG) -> Spec:
    return resolve("model", text, catalog)


def canonical(text: str) -> str:
    return model(text).canonical


def error(text: str, catalog: Catalog = CATALOG) -> str:
    """The one line that a user reads."""
    with pytest.raises(SpecError) as caught:
        model(text, catalog)
    line = str(caught.value)
    assert line.isprintable(), line
    assert line
    return line


# ---------------------------------------------------------------------------------------------------- strategies

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


# --------------------------------------------------------------------------------------------------------- properties


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


# ------------------------------------------------------------------------------------------------ one meaning, one name


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("every", "every"),
        ("  every ", "every"),
        ("every@1", "every"),
        ("every:base", "every"),
        ("every:large,k=5", "every:large"),
        ("toys/every,k=7", "every,k=7"),
        ("every,lr=1e-3,flag=no,k=05,pool=None,sizes=8+08", "every"),
        ("every,lr=0.001", "every"),
        ("every,lr=1E-3", "every"),
        ("every,lr=.01", "every,lr=0.01"),
        ("every,lr=10e-3", "every,lr=0.01"),
        ("every,lr=1e-5", "every,lr=1e-5"),
        ("every,lr=0.00001", "every,lr=1e-5"),
        ("every,lr=1e22", "every,lr=1e22"),
        ("every,lr=2", "every,lr=2"),
        ("every,lr=-0", "every,lr=0"),
        ("every,flag=yes", "every,flag=true"),
        ("every,flag=TRUE", "every,flag=true"),
        ("every,k=7,flag=1", "every,flag=true,k=7"),
        ("every,name=a%2cb", "every,name=a%2Cb"),
        ("every,name=p%6Cain", "every"),
        ("every,name=pl%61ne", "every,name=plane"),
        ("every,name=", "every,name="),
        ("every,name=a=b", "every,name=a%3Db"),
        ("every,name=zürich", "every,name=z%C3%BCrich"),
        ("every,name=~", "every,name=%7E"),
        ("every,layer=-3,pool=cls", "every,layer=-3,pool=cls"),
        ("every,sizes=1+2+3", "every,sizes=1+2+3"),
        ("every,sizes=", "every,sizes="),
        ("every,box=1+.5", "every"),
        ("fixed", "fixed@2"),
        ("fixed@2", "fixed@2"),
        ("hf:ORG/NAME", "hf:ORG/NAME"),
        ("hf:ORG/NAME@main:x", "hf:ORG/NAME@main:x"),
    ],
)
def test_every_spelling_has_its_one_canonical_form(typed: str, name: str) -> None:
    assert canonical(typed) == name
    assert canonical(name) == name


def test_a_distribution_is_named_only_where_two_provide_the_name_and_in_one_way() -> None:
    assert model("toys/bare", CATALOG).canonical == "bare"
    for typed in ("more-toys/bare", "More_Toys/bare", "more.toys/bare"):
        assert model(typed, TWO).canonical == "more-toys/bare"
    assert model("toys/bare", TWO).canonical == "toys/bare"
    assert error("bare", TWO) == (
        "model 'bare' is provided by More_Toys 0.3 and toys 1.0: write 'more-toys/bare' or 'toys/bare'"
    )


def test_a_name_that_one_distribution_provides_twice_says_which_entry_points_do() -> None:
    twice = Catalog((CATALOG.plugins[0], Plugin("again", "toys", "1.0", "toys", {"model": MODELS})))
    assert "from its entry points 'toys' and 'again'" in error("toys/bare", twice)


def test_the_provider_and_every_value_are_on_record() -> None:
    spec = model("every:large,k=7")
    assert spec.dist == "toys 1.0"
    assert spec.describe() == {
        "checkpoint": "large", "flag": False, "k": 7, "lr": 1e-3, "name": "plain", "pool": None, "layer": None,
        "sizes": [8, 8], "words": [], "box": [1, 0.5],
    }  # fmt: skip
    assert isinstance(spec.build(), ToyEverything)
    assert spec.build().params.k == 7


# --------------------------------------------------------------------------------------------------------------- places


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "audio").mkdir(parents=True)
    (folder / "meta.csv").write_text("a,b\n1,2\n")
    (folder / "audio" / "1.wav").write_bytes(b"RIFF")
    return folder


def test_moving_a_place_keeps_the_name_and_changing_it_changes_the_name(data: Path, tmp_path: Path) -> None:
    before = canonical(f"places,root={data}")
    assert before.startswith("places,root=fp-")
    assert shlex.quote(before) == before

    moved = data.rename(tmp_path / "elsewhere, with a comma")
    assert canonical(f"places,root={str(moved).replace(',', '%2C')}") == before

    (moved / "audio" / "1.wav").write_bytes(b"RIFX")
    changed = canonical(f"places,root={str(moved).replace(',', '%2C')}")
    assert changed != before

    (moved / "audio" / "1.wav").rename(moved / "audio" / "2.wav")
    assert canonical(f"places,root={str(moved).replace(',', '%2C')}") not in (before, changed)


def test_a_file_is_named_by_its_contents_alone(tmp_path: Path) -> None:
    one, two, other = tmp_path / "one.csv", tmp_path / "two.txt", tmp_path / "other.csv"
    one.write_text("same")
    two.write_text("same")
    other.write_text("else")
    assert canonical(f"places,root={one}") == canonical(f"places,root={two}") != canonical(f"places,root={other}")


def test_every_way_to_write_a_path_is_one_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = canonical(f"places,root={data}")
    monkeypatch.chdir(data.parent)
    monkeypatch.setenv("HOME", str(data.parent))
    for typed in ("data", "./data", "data/", "data/../data", "~/data", str(data / "audio" / "..")):
        assert canonical(f"places,root={typed}") == absolute


def test_the_portable_form_means_the_same_from_another_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    spec = model("places,root=data,weights=some/repository")
    monkeypatch.chdir(tmp_path.parent)
    again = model(spec.portable)
    assert again.canonical == spec.canonical
    assert again.params.root == data
    assert again.params.weights == "some/repository"


def test_a_place_that_is_no_local_file_is_named_as_the_user_named_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    assert canonical("hf:ORG/NAME") == "hf:ORG/NAME"
    (data.parent / "ORG" / "NAME").mkdir(parents=True)
    (data.parent / "ORG" / "NAME" / "model.safetensors").write_bytes(b"weights")
    local = canonical("hf:ORG/NAME")
    assert local.startswith("hf:fp-")
    (data.parent / "ORG" / "NAME" / "README.md").write_text("no weights")
    assert canonical("hf:ORG/NAME") == local, "only what `place` lists counts"


def test_a_default_that_names_a_local_file_is_in_the_name_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise other files under the default path would hide behind the old results."""
    monkeypatch.chdir(data)
    assert ",weights=" not in canonical(f"places,root={data}")
    (data / "ORG" / "NAME").mkdir(parents=True)
    weights = data / "ORG" / "NAME" / "w.npz"
    weights.write_bytes(b"1")
    first = canonical("places,root=audio")
    assert ",weights=fp-" in first
    weights.write_bytes(b"2")
    assert canonical("places,root=audio") != first


def test_a_fingerprint_given_for_a_place_is_refused(data: Path) -> None:
    """It would be taken for the name of something remote, with the canonical form of the files themselves."""
    for text in (canonical(f"places,root={data}"), "hf:fp-0123456789abcdef"):
        assert "the fingerprint of a file or folder: give its path" in error(text)


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing that matches"):
        _ = model(f"places,root={tmp_path / 'empty'}").canonical


def test_local_path_decides_what_is_local_and_never_raises(tmp_path: Path) -> None:
    assert local_path(str(tmp_path)) == tmp_path
    for remote in ("", "ORG/NAME", "x" * 10_000, "~nobody-of-that-name/x", "a\0b"):
        assert local_path(remote) is None


# --------------------------------------------------------------------------------------------------------------- errors


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
