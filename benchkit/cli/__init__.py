"""The command line: typer commands, one file a group, without logic of their own.

Every import that is not needed to print `--help` happens inside the command that needs it.
"""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, NoReturn

import typer

from benchkit.cli.completion import Shell, answer_shells, install
from benchkit.cli.group import HEADINGS, Group
from benchkit.errors import BenchkitError
from benchkit.machine.version import __version__
from benchkit.progress import say


class _Benchkit(Group):
    """Typer would end a command that was interrupted, or that nobody reads any more, in its own way and words."""

    headings = HEADINGS

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args[-1:] == ["--install-completion"]:  # of the shell that this was typed into
            from benchkit.cli.completion import current_shell

            args = [*args, current_shell()]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        from benchkit.cli.plugged import plugged

        own = super().list_commands(ctx)
        return [*own, *(name for name in plugged() if name not in own)]

    def get_command(self, ctx: Any, name: str) -> Any:
        found = super().get_command(ctx, name)
        if found is None and name and not name.startswith("-"):
            from benchkit.cli.plugged import command, plugged

            if name in plugged():
                found = command(name)
        return found

    def summaries(self, ctx: Any) -> dict[str, str]:
        from benchkit.cli.plugged import plugged

        return {name: entry.summary for name, (entry, _) in plugged().items()} | super().summaries(ctx)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail(_INTERRUPTED, code=130)
        except BrokenPipeError:
            _leave_quietly()


app = typer.Typer(
    name="benchkit",
    cls=_Benchkit,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain words: half the time to print, and the same in a pipe
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        say(f"benchkit {__version__}", sys.stdout)
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
    install_completion: Annotated[
        Shell | None,
        typer.Option(
            metavar="[bash|zsh|fish]",
            is_eager=True,
            callback=install,
            help="Teach this or another shell to complete commands and options, and exit.",
        ),
    ] = None,
) -> None:
    """Benchmarks frozen backbones: every (task, model, classifier, n_train) cell once, kept for good."""


@cache
def with_commands() -> typer.Typer:
    """The app with every command."""
    from benchkit.cli import (
        activations,
        catalog,
        compare,
        data,
        diagnose,
        features,
        job,
        naming,
        read,
        run,
        sae,
        status,
        store,
    )

    groups = (run, status, job, read, compare, naming, store, activations, sae, diagnose, features, catalog, data)
    for group in groups:
        group.register(app)
    return app


def main() -> None:
    """The console script: a user's mistake is one line and a non-zero exit, never a traceback."""
    # torch asks Linux for its large tensors in pages of 2 MB then, not of 4 KB with a fault each, on which wide probes
    # on a CPU spend a tenth of their time (THP_MEM_ALLOC_ENABLE=0 bench/probes.py). It looks when it takes the first.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _open_standard_streams()
    try:
        _refuse_namesakes()
        answer_shells()
        with_commands()
        warnings.showwarning = _show_warning
        signal.signal(signal.SIGTERM, _terminate)  # a scheduler's way of asking: clean up as after Ctrl-C
        _refuse_unreadable(sys.argv[1:])
        try:
            code = app(standalone_mode=False, prog_name="benchkit")
        finally:
            sys.stdout.flush()  # here, where a reader that is gone is no error
        if code:
            sys.exit(code)
    except BenchkitError as e:
        fail(str(e))
    except _USAGE as e:
        _explain_usage(e)
    except (KeyboardInterrupt, typer.Abort):
        fail(_INTERRUPTED, code=130)
    except BrokenPipeError:
        _leave_quietly()
    except OSError as e:
        if e.errno not in _OF_THE_MACHINE:
            raise
        _discard_output()
        what = f"'{e.filename}'" if e.filename else "the output cannot be written"
        fail(f"{what}: {e.strerror}")
    except (MemoryError, RuntimeError, ImportError) as e:
        from benchkit.machine.trouble import trouble_of

        found = trouble_of(e)
        if found is None:
            raise
        fail(str(found))


def _refuse_namesakes() -> None:
    """Another project's `benchkit/__init__.py` over ours: nothing that plugins import from it is there any more."""
    face = sys.modules["benchkit"]
    if "hookimpl" not in getattr(face, "__all__", ()):
        from benchkit.catalog.namesakes import complaint

        fail(complaint() or f"'{face.__file__}' is not this project's: install benchkit-core anew")


def _open_standard_streams() -> None:
    """Those that whoever started us has closed (`>&-`, some daemons): no file that is opened may become one of them,
    and be written to as such."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


_INTERRUPTED = "interrupted; what was finished is kept, the same command goes on from there"
_USAGE: tuple[Any, ...] = typer.BadParameter.__bases__  # click's UsageError, wherever this typer has it from
_OF_THE_MACHINE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.EMFILE,
    errno.ENFILE, errno.ESTALE,
}  # fmt: skip
"""What a file that may be read or written now, and not a moment later, says of itself: no bug of ours."""


def _explain_usage(error: Any) -> NoReturn:
    """An option or a command that there is not, a value that an option does not take."""
    command = error.ctx.command_path if error.ctx else app.info.name
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    fail(f"{command}: {error.format_message()} (`{command} --help` lists what there is)", error.exit_code)


def _refuse_unreadable(words: Sequence[str]) -> None:
    """A registry holds text: a name in another encoding could not be written into it. (A job's file is only read.)"""
    for word in () if words[:1] == ["job"] else words:
        try:
            word.encode()
        except UnicodeEncodeError:
            fail(f"the argument {word!a} is not UTF-8")


def _leave_quietly() -> NoReturn:
    """`benchkit ls | head` has read enough."""
    _discard_output()
    sys.exit(0)


def _discard_output() -> None:
    """Or the interpreter would try once more to write it, as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int = 1) -> NoReturn:
    """One line on stderr, and out."""
    say(f"error: {' '.join(message.split())}", sys.stderr)
    sys.exit(code)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        say(f"warning: {message}", sys.stderr)
