"""Where and how a report is made, as its record."""

from collections.abc import Sequence

from benchkit.machine.environment import (
    command,
    device_name,
    git_state,
    host,
    loaded_versions,
    peak_device,
    peak_rss,
)  # fmt: skip
from benchkit.machine.version import __version__
from benchkit.records.report import Environment


def describe(
    providers: dict[str, str], device: str, wall_s: float, cpu_s: float, typed: Sequence[str] | None = None
) -> Environment:
    """The environment of this process. providers: 'distribution version' of each plugin that took part. typed: the
    command that the user gave, where this process was started by another."""
    commit, dirty = git_state()
    versions = loaded_versions() | dict(provider.split(" ", 1) for provider in providers.values())
    return Environment(
        benchkit_version=__version__,
        git_commit=commit,
        git_dirty=dirty,
        argv=list(typed or command()),
        versions=versions,
        host=host(),
        device=device_name(device),
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_rss_bytes=peak_rss(),
        peak_device_bytes=peak_device(device),
    )
