"""A real Slurm for the whole session, and a registry on it for each test."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LIB = Path(__file__).parent / "lib"
sys.path.insert(0, str(LIB))

from slurm_cluster import Cluster  # noqa: E402
from slurm_lab import Lab, make_lab  # noqa: E402


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Without accounting."""
    yield from _started(accounting=False)


@pytest.fixture(scope="session")
def cluster_with_accounts() -> Iterator[Cluster]:
    yield from _started(accounting=True)


def _started(*, accounting: bool) -> Iterator[Cluster]:
    if why := Cluster.missing(accounting=accounting):
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with Cluster.start(accounting=accounting) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sample plugin is installed."""
    site = tmp_path_factory.mktemp("site")
    info = site / "slurm_samples-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slurm-samples\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[benchkit]\nslurm_samples = slurm_samples\n")
    return site


@dataclass(frozen=True)
class Limited:
    """Jobs of one minute: Slurm knows no shorter limit."""

    told: Lab
    """Hears that its limit is near, and may not be queued again."""
    ended: Lab
    """Does not hear it."""


@pytest.fixture(scope="session")
def limited(cluster: Cluster, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    """Started before the first test that has a cluster, so that nobody waits for their minute."""
    folder = tmp_path_factory.mktemp("limited")
    told, ended = (make_lab(folder / name, site, cluster) for name in ("told", "ended"))
    for lab, option in ((told, "max_timeouts=0"), (ended, "signal=0")):
        lab.benchkit(*lab.grid("gated,gate=a"), "--detach", "--slurm", "time=1", "--slurm", option)
    yield Limited(told, ended)
    for lab in (told, ended):
        lab.end()


@pytest.fixture
def lab(cluster: Cluster, limited: Limited, site: Path, tmp_path: Path) -> Iterator[Lab]:
    lab = make_lab(tmp_path, site, cluster)
    yield lab
    lab.end()
