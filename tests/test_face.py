"""What is public is a list, and static checkers see each name of it."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import benchkit

SOURCE = ast.parse(Path(benchkit.__file__).read_text())


def _seen_by_static_checkers() -> set[str]:
    block = next(n for n in SOURCE.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {a.asname or a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


def test_what_can_be_imported_is_what_is_listed_and_what_static_checkers_see() -> None:
    assert set(benchkit.__all__) == set(benchkit._WHERE) == _seen_by_static_checkers()


@pytest.mark.parametrize("name", benchkit.__all__)
def test_each_public_name_is_the_inner_one(name: str) -> None:
    module, inner = benchkit._WHERE[name]
    assert getattr(benchkit, name) is getattr(import_module(module), inner)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = benchkit.nothing  # type: ignore[attr-defined]
