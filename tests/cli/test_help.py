"""What somebody sees who asks benchkit what it is and what it can do, and a shell that asks on their behalf."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchkit import __version__
from benchkit.cli.group import HEADINGS, OTHERS


def test_the_version_is_one_line(script) -> None:
    ran = script("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"benchkit {__version__}\n", "")


def headings(text: str) -> dict[str, list[str]]:
    """The commands under each heading of a help text."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([A-Z][a-z ]+):", line):
            found[match[1]] = []
        elif (match := re.match(r"  ([a-z]+)  ", line)) and found:
            found[list(found)[-1]].append(match[1])
    found.pop("Options", None)
    return found


def test_the_commands_stand_under_headings_and_none_is_left_over(script) -> None:
    found = headings(script("--help").out)
    found.pop(OTHERS, None)
    assert found == {heading: list(names) for heading, names in HEADINGS.items()}
    assert sum(map(len, found.values())) >= 22


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_no_summary_ends_in_the_middle_of_a_sentence(script, width: str) -> None:
    groups = [[], *([name] for name in ("activations", "sae", "cache"))]
    for words in groups:
        shown = script(*words, "--help", COLUMNS=width).out
        assert "..." not in shown.replace("[ARGS]...", ""), words
        summaries = re.split(r"^  [a-z]+ +", shown[shown.index("--help") :], flags=re.M)[1:]
        assert all(s.strip().split("\n\n")[0].endswith(".") for s in summaries), (words, summaries)


# ---------------------------------------------------------------------------------------------------------- completion

PLACES = {
    "bash": ".bash_completions/benchkit.sh",
    "zsh": ".zfunc/_benchkit",
    "fish": ".config/fish/completions/benchkit.fish",
}


@pytest.mark.parametrize("shell", PLACES)
def test_completion_is_installed_for_a_shell_that_is_named(shell: str, tmp_path: Path, script) -> None:
    ran = script("--install-completion", shell, HOME=str(tmp_path))
    assert (ran.code, ran.err) == (0, "")
    assert str(tmp_path / PLACES[shell]) in ran.out
    assert "_BENCHKIT_COMPLETE" in (tmp_path / PLACES[shell]).read_text()


def test_without_a_name_it_is_the_shell_that_it_was_typed_into(tmp_path: Path) -> None:
    typed = f"{sys.executable} -m benchkit --install-completion; true"
    done = subprocess.run(
        ["bash", "-c", typed],
        env={**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
    )
    assert "for bash" in done.stdout, done.stderr
    assert (tmp_path / PLACES["bash"]).is_file()


def test_a_shell_that_it_is_not_for_is_refused_with_those_that_it_is_for(tmp_path: Path, script) -> None:
    ran = script("--install-completion", "tcsh", HOME=str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in ran.err
    assert not any(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path, script) -> None:
    (tmp_path / "file").write_text("")
    ran = script("--install-completion", "fish", HOME=str(tmp_path / "file"))
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1


ASKED = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.mark.parametrize("shell", ASKED)
@pytest.mark.parametrize(
    ("line", "offered", "others"),
    [
        ("benchkit ta", {"table", "tasks"}, {"run"}),
        ("benchkit activations re", {"record"}, {"fit"}),
        ("benchkit run --n", {"--n-train"}, {"--task"}),
        ("benchkit table --format m", {"markdown"}, {"csv"}),
    ],
)
def test_a_shell_is_offered_what_may_come_next(
    shell: str, line: str, offered: set[str], others: set[str], script
) -> None:
    ran = script(_BENCHKIT_COMPLETE=f"complete_{shell}", **ASKED[shell](line))
    assert ran.err == ""
    words = set(re.findall(r"[a-z-]+", ran.out))
    assert offered <= words
    assert not others & words


def test_bash_itself_completes_after_the_installation(tmp_path: Path, script) -> None:
    script("--install-completion", "bash", HOME=str(tmp_path))
    program = Path(sys.executable).parent
    asks = (
        "source ~/.bashrc; COMP_WORDS=(benchkit mer); COMP_CWORD=1; _benchkit_completion benchkit; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asks], capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{program}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["merge"], done.stderr
