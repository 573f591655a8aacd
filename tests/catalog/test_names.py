"""Every spec has one canonical name, in which a place is named by what is there."""

import shlex
from pathlib import Path

import pytest

from benchkit.catalog.discovery import Catalog, Plugin
from benchkit.catalog.params import local_path
from benchkit.errors import DataError

from .toys import (
    CATALOG,
    MODELS,
    TWO,
    ToyEverything,
    canonical,
    error,
    model,
)


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
