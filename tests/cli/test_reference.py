"""docs/cli.md says what the commands say."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchkit.cli import with_commands
from benchkit.cli.reference import reference

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"


def test_the_reference_is_that_of_the_commands() -> None:
    assert DOCUMENT.read_text() == reference(), "write it anew: python -m benchkit.cli.reference > docs/cli.md"


def test_every_command_and_every_option_that_help_shows_is_in_it() -> None:
    def told(*words: str) -> str:
        return CliRunner().invoke(with_commands(), [*words, "--help"], env={"COLUMNS": "200"}).output

    text = DOCUMENT.read_text()
    sections = dict(re.findall(r"^## benchkit (.+?)\n(.+?)(?=^## |\Z)", text, flags=re.M | re.S))
    listed = told()
    shown = re.findall(r"^  ([a-z]+) ", listed[listed.index("Run:") :], flags=re.M)
    assert len(shown) >= 22
    assert {name.split()[0] for name in sections} == set(shown)
    for name, section in sections.items():
        help = told(*name.split())
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", help)) - {"--help"} <= set(
            re.findall(r"--[a-z][a-z0-9-]*", section)
        )
        if "[OPTIONS]" in section:
            assert set(re.findall(r"`(--[a-z0-9-]+)", section)) <= set(re.findall(r"--[a-z][a-z0-9-]*", help))


@pytest.mark.parametrize(("command", "code"), [(["nothing"], 2), (["ls", "--nothing"], 2), (["show"], 2)])
def test_what_there_is_not_is_refused(script, command: list[str], code: int) -> None:
    ran = script(*command)
    assert (ran.code, ran.out) == (code, "")
    assert "Traceback" not in ran.err


def test_values_are_converted_and_refused_as_typer_does(script, tmp_path: Path) -> None:
    for words, said in (
        (["ls", "--limit", "-3"], "greater than or equal to 0"),
        (["ls", "--limit", "many"], "valid integer"),
        (["ls", "--n-train", "1", "--n-train", "x"], "valid integer"),
        (["table", "--format", "pdf"], "is not one of 'text', 'markdown', 'latex', 'csv', 'json'"),
        (["table", "--digits", "16"], "less than or equal to 15"),
    ):
        ran = script(*words, "--db", tmp_path / "none.sqlite")
        assert (ran.code, ran.out) == (2, ""), words
        assert said in " ".join(ran.err.split())
