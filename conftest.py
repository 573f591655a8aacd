"""Fixtures that every distribution's tests share."""

import os
import re
import signal
from collections import defaultdict
from pathlib import Path

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: tests send Ctrl-C to what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no falsified property: what hangs is ended by pytest-timeout.
hypothesis.settings.register_profile("benchkit", deadline=None)
hypothesis.settings.load_profile("benchkit")


PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite, or a tier of it, runs on every processor; files and tests that are named, in this process."""
    one = hasattr(config, "workerinput") or config.option.usepdb or config.option.collectonly  # it is a worker itself
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and config.option.numprocesses is None and not one:
        config.option.numprocesses = PROCESSORS
        config.option.dist = "loadgroup"  # what shares something costly, or bears no neighbour, is marked xdist_group
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each of them, and of what they start


GROUPS = {"cluster": "slurm", "cluster_with_accounts": "slurm", "browser": "browser", "wheelhouse": "wheels"}
"""Fixtures that are made once, or that two tests cannot have at a time, and the group of the tests that use one: all on
one processor. `@pytest.mark.xdist_group("name")` puts any other test into a group."""


SLOW = Path(__file__).parent / "tests" / "slow.txt"
SLOW_S = 0.4
"""Seconds; tests that took longer are listed there by `pytest --write-slow`, on a machine with nothing else to do."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-slow", action="store_true", help=f"put tests of more than {SLOW_S:g} s into {SLOW.name}")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.write_slow and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Durations(config))


class _Durations:
    """Adds up the setup, call and teardown of each test that runs, wherever it does."""

    def __init__(self, config: pytest.Config) -> None:
        self.everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[re.sub(r"@[a-z]+$", "", report.nodeid)] += report.duration  # xdist appends the group

    def pytest_sessionfinish(self) -> None:
        kept = [] if self.everything else [name for name in _listed_as_slow() if name not in self.seconds]
        found = [name for name, seconds in self.seconds.items() if seconds > SLOW_S]
        SLOW.write_text("".join(f"{name}\n" for name in sorted({*kept, *found})), encoding="utf-8")


def _listed_as_slow() -> set[str]:
    return set(SLOW.read_text(encoding="utf-8").splitlines()) if SLOW.exists() else set()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = _listed_as_slow()
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
        for group in {GROUPS[name] for name in getattr(item, "fixturenames", ()) if name in GROUPS}:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # the long ones first, so that none is last


@pytest.fixture(scope="session")
def kills() -> int:
    """At how many instants a test of robustness kills: BENCHKIT_KILLS, which CI sets to 30."""
    return int(os.environ.get("BENCHKIT_KILLS", "20"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository. Absent in a user's clone; CI must have it."""
    path = Path(__file__).parent.parent / "shared"
    if not path.is_dir():
        message = f"the reference data is not there: {path.name}/ beside the repository"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
