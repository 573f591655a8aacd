"""The command line: typer commands, one file a group, without logic of their own.

Every import that is not needed to print `--help` happens inside the command that needs it.
"""

import os
import sys
import warnings
from typing import Any

import typer

from benchkit.errors import BenchkitError

app = typer.Typer(
    name="benchkit",
    help="Benchmarks frozen backbones: every (task, model, classifier, n_train) cell once, kept for good.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script: a user's mistake is one line and a non-zero exit, never a traceback."""
    from benchkit.cli import catalog, read, run

    for group in (run, read, catalog):
        group.register(app)
    warnings.showwarning = _show_warning
    try:
        app()
    except BenchkitError as e:
        fail(str(e))
    except BrokenPipeError:  # `benchkit ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        fail("interrupted; what was finished is kept, the same command goes on from there", code=130)


def fail(message: str, code: int = 1) -> None:
    """One line on stderr, and out."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
