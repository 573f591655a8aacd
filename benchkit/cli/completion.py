"""Completion of commands and options by a shell's Tab key: `benchkit --install-completion bash` (or zsh, fish)."""

import os
import sys
from enum import StrEnum
from pathlib import Path

import typer

from benchkit.errors import BenchkitError
from benchkit.progress import say

PROGRAM = "benchkit"
ASKED = "_BENCHKIT_COMPLETE"
"""The variable in which a shell asks the program, instead of running it, what may come next."""


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def install(shell: Shell | None) -> Shell | None:
    """Writes what makes `shell` ask, says where, and ends. Raises BenchkitError where it cannot be written."""
    if shell is None:
        return None
    from typer.completion import install

    try:
        _, path = install(shell=shell.value, prog_name=PROGRAM, complete_var=ASKED)
    except OSError as e:
        raise BenchkitError(f"cannot write '{e.filename}': {e.strerror}") from e
    say(
        f"completion for {shell.value} installed in {path}; it works in shells that are started from now on", sys.stdout
    )
    raise typer.Exit


def current_shell() -> str:
    """The name of the shell that this process was started from, else of the user's own; '' where there is none."""
    from shellingham import ShellDetectionFailure, detect_shell

    try:
        return str(detect_shell()[0])
    except ShellDetectionFailure:
        return Path(os.environ.get("SHELL", "")).name


def answer_shells() -> None:
    """Teaches typer how the scripts that it installs ask; costs nothing where no shell asks."""
    if ASKED in os.environ:
        from typer.completion import completion_init

        completion_init()
