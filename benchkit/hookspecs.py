"""The hooks a plugin may implement: the whole extension story on one page.

A plugin is a package with an entry point in the group `benchkit` that names a module like this one:

    from benchkit.hookspecs import Entry, hookimpl

    @hookimpl
    def benchkit_models():
        return {"my-model": Entry("one line about it", "my_package.model:MyModel")}

Nothing is imported until it is used, so a plugin that brings a large framework costs nothing to list.
docs/plugins.md walks through a whole one.
"""

from dataclasses import dataclass

import pluggy

hookspec = pluggy.HookspecMarker("benchkit")
hookimpl = pluggy.HookimplMarker("benchkit")


@dataclass(frozen=True)
class Entry:
    """Where to find one backbone, task, classifier, scorer, objective or command.

    summary: one line for `benchkit models` and its like.
    target: `module:Class`. Importing that module must not import torch, jax, transformers, datasets or sklearn:
        heavy imports belong inside the methods that need them.
    """

    summary: str
    target: str


@hookspec
def benchkit_tasks() -> dict[str, Entry]:  # type: ignore[empty-body]
    """Tasks by name; each target is a benchkit.Task."""


@hookspec
def benchkit_models() -> dict[str, Entry]:  # type: ignore[empty-body]
    """Backbones by name; each target is a benchkit.Backbone."""


@hookspec
def benchkit_classifiers() -> dict[str, Entry]:  # type: ignore[empty-body]
    """Classifiers (probes) by name; each target is a benchkit.Classifier."""


@hookspec
def benchkit_scorers() -> dict[str, Entry]:  # type: ignore[empty-body]
    """Prototype scorers by name; each target is a benchkit.Scorer."""


@hookspec
def benchkit_commands() -> dict[str, Entry]:  # type: ignore[empty-body]
    """Commands of `benchkit` by name; each target is a typer.Typer: of one command, or a group of some."""


@hookspec
def benchkit_objectives() -> dict[str, Entry]:  # type: ignore[empty-body]
    """What pretraining minimises, by name; each target is a benchkit.Objective."""
