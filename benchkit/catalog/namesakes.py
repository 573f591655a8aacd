"""Other distributions that bring an import package of this one's name: they and ours overwrite each other's files.

The distribution `benchkit` of the package index is such a one, and is none of ours: ours is `benchkit-core`.
"""

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

OURS = "benchkit-core"
PACKAGE = "benchkit"


def namesakes(installed: Iterable[Distribution] | None = None) -> list[str]:
    """The names of the distributions other than ours that put files into the package's folder, sorted."""
    found = set()
    for distribution in distributions() if installed is None else installed:
        if _brings_the_package(distribution):
            name = distribution.metadata["Name"]
            if name and name.lower().replace("_", "-") != OURS:
                found.add(name)
    return sorted(found)


def complaint() -> str | None:
    """What is wrong with this environment, and how to mend it, in one line; None where nothing is."""
    others = namesakes()
    if not others:
        return None
    return (
        f"other projects bring a package named '{PACKAGE}' too, which overwrites files of this one or is overwritten: "
        f"{', '.join(others)}; mend it with `pip uninstall {' '.join(others)}` and then "
        f"`pip install --force-reinstall --no-deps {OURS}`"
    )


def _brings_the_package(distribution: Distribution) -> bool:
    if PACKAGE in (distribution.read_text("top_level.txt") or "").split():
        return True
    files = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""
    return f"\n{PACKAGE}/" in f"\n{files}"
