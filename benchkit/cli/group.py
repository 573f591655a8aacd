"""How commands are listed: under headings, each with its first sentence, whole; and the cheap conversion of values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

from benchkit.cli.light import lighten

HEADINGS: Mapping[str, Sequence[str]] = {
    "Run": ("run", "status", "job", "fetch"),
    "Read": ("ls", "show", "table", "compare", "sql"),
    "Look inside": ("diagnose", "activations", "sae", "features"),
    "Keep": ("check", "backup", "merge", "rm", "cache"),
    "Catalog": ("plugins", "tasks", "models", "classifiers", "scorers", "objectives"),
}
"""The headings of `benchkit --help` in their order, and the commands under each."""
OTHERS = "From plugins"
"""The heading of what stands under none of them."""


class Group(TyperGroup):
    """Commands below one name."""

    headings: Mapping[str, Sequence[str]] = {}

    def get_params(self, ctx: Any) -> Any:
        return lighten(super().get_params(ctx))

    def get_command(self, ctx: Any, name: str) -> Any:
        command = super().get_command(ctx, name)
        if command is not None:
            lighten(command.get_params(ctx))
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Typer would cut each command's sentence after some forty letters."""
        summaries = self.summaries(ctx)
        for heading, names in self._sections(list(summaries)):
            with formatter.section(heading):
                formatter.write_dl([(name, summaries[name]) for name in names])

    def summaries(self, ctx: Any) -> dict[str, str]:
        """Of each command that is not hidden its first sentence."""
        return {name: c.get_short_help_str(_WHOLE) for name, c in self.commands.items() if not c.hidden}

    def _sections(self, names: list[str]) -> Iterator[tuple[str, list[str]]]:
        for heading, listed in self.headings.items():
            if found := [name for name in listed if name in names]:
                yield heading, found
        if rest := [name for name in names if not any(name in listed for listed in self.headings.values())]:
            yield OTHERS, rest


_WHOLE = 10_000
"""Letters that a first sentence may have."""
