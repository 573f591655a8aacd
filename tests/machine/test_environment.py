"""Where a run computes."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchkit.api import Settings
from benchkit.errors import BenchkitError
from benchkit.machine.environment import git_state, resolve_device


@pytest.mark.parametrize("wanted", ["tpu", "cuda:x", "cuda:", "gpu", "", "CPU", "meta"])
def test_what_is_no_device_is_one_line_before_anything_is_planned(wanted: str) -> None:
    for use in (resolve_device, lambda device: Settings(device=device)):
        with pytest.raises(BenchkitError, match=f"there is no device '{wanted}': give auto, cpu, cuda or cuda:N"):
            use(wanted)


def test_a_gpu_that_torch_does_not_see_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchkitError, match=r"torch does not see the GPU 'cuda' here: it sees none .*--device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(d) for d in ("cuda", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    with pytest.raises(BenchkitError, match="the GPU 'cuda:2' here: it sees 2, from cuda:0 on"):
        resolve_device("cuda:2")
    assert Settings(device="cuda:7").options().device == "cuda:7", "another machine may have it"


def test_what_a_folders_own_git_configuration_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "theirs"
    folder.mkdir()

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *words], check=True)

    git("init", "-q")
    (folder / "file.txt").write_text("one")
    git("add", ".")
    git("commit", "-qm", "one")
    (folder / ".gitattributes").write_text("*.txt filter=evil")
    (folder / "file.txt").write_text("two")
    for name in ("core.fsmonitor", "filter.evil.clean", "filter.evil.process"):
        git("config", name, f"touch '{ran}'; cat")
    monkeypatch.chdir(folder)
    git_state.cache_clear()
    try:
        commit, dirty = git_state()
    finally:
        git_state.cache_clear()
    assert commit is not None
    assert dirty is True
    assert not ran.exists()
