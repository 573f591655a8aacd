"""Users without a home or a name, folders that are not UTF-8, names in another Unicode form, caches that are closed."""

import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit import Audio, MediaError, on_disk
from benchkit.errors import StoreError
from benchkit.machine.config import read_toml
from benchkit.machine.home import expanded, private_folder
from benchkit.machine.interpreter import BENCHKIT
from benchkit.planning.sweep import read_sweep

QUICK = ("run", "--task", "digits", "--model", "pixels", "--classifier", "centroid", "--replicates", "0")
NOBODY = 54321
"""The number of a user that has no name."""


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def benchkit(folder: Path, *words: str, env: dict[str, str] | None = None, user: int | None = None) -> str:
    other = () if user is None else ("setpriv", "--reuid", str(user), "--clear-groups")
    done = subprocess.run(
        [*other, *BENCHKIT, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300, env=env
    )
    assert "Traceback" not in done.stderr, done.stderr
    return f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_a_user_without_a_home_or_a_name_has_a_folder_of_its_own_among_the_temporary_ones(for_all: Path) -> None:
    work, temporary = for_all / "work", for_all / "temporary"
    for folder in (work, temporary):
        folder.mkdir()
        folder.chmod(0o777)
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary)}
    assert "1 computed" in benchkit(work, *QUICK, env=env, user=NOBODY)
    own = temporary / f"benchkit-{NOBODY}"
    assert (own / "features").is_dir()
    assert own.stat().st_mode & 0o077 == 0
    assert "2 entries" in benchkit(work, "cache", "ls", env=env, user=NOBODY)
    assert "there is no home folder for the ~ of '~/x.sqlite'" in benchkit(
        work, "ls", "--db", "~/x.sqlite", env=env, user=NOBODY
    )
    shutil.rmtree(own)
    own.mkdir()  # root's
    assert "is not this user's own folder" in benchkit(work, *QUICK, "--force", env=env, user=NOBODY)
    assert "1 computed" in benchkit(work, *QUICK, "--cache", "here", "--force", env=env, user=NOBODY)


def test_a_tilde_of_nobody_is_one_line() -> None:
    with pytest.raises(StoreError, match=r"'~nobody-of-that-name/x'.*write out the whole path"):
        expanded("~nobody-of-that-name/x")


def test_a_private_folder_is_no_link_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"it-{os.getuid()}").symlink_to("elsewhere")
    with pytest.raises(StoreError, match="is not this user's own folder"):
        private_folder("it")


def test_a_working_folder_that_is_not_utf8_holds_a_registry_like_any_other(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    two = (*QUICK, "--model", "pixels,size=12")
    env = os.environ | {"BENCHKIT_CACHE": str(tmp_path / "cache")}
    assert "2 computed" in benchkit(folder, *two, "--jobs", "2", env=env)
    for words in (
        ["ls"],
        ["status"],
        ["table"],
        ["show", "last"],
        [*QUICK, "--dry-run"],
        ["check"],
        ["backup", "copy"],
    ):
        assert benchkit(folder, *words, env=env).startswith("0 "), words


def test_a_dangling_link_as_a_registry_is_named_as_that(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").symlink_to("/nowhere/r.sqlite")
    for words in (["ls"], [*QUICK], [*QUICK, "--dry-run"]):
        said = benchkit(tmp_path, *words, "--db", "r.sqlite")
        assert said.startswith("1 error: registry 'r.sqlite' is a link to '/nowhere/r.sqlite', which is not there"), (
            said
        )
        assert "permissions" not in said


def test_toml_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b"task = 'digits'\nmodel = 'pixels'\n")
    (grid,) = read_sweep(path)
    assert grid.task == ("digits",)
    assert read_toml(path, "configuration") == {"task": "digits", "model": "pixels"}


@pytest.mark.parametrize(("table", "disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_found(tmp_path: Path, table: str, disk: str) -> None:
    def spelled(form: str) -> Path:
        return tmp_path / unicodedata.normalize(form, "Grünspecht") / unicodedata.normalize(form, "Ça va.wav")

    spelled(disk).parent.mkdir()
    soundfile.write(spelled(disk), np.full(800, 0.25, np.float32), 8000)
    assert not spelled(table).exists()
    assert on_disk(spelled(table)) == spelled(disk)
    assert len(Audio(spelled(table)).load(8000)) == 800
    gone = spelled(table).with_name("Ü.wav")
    assert on_disk(gone).name == gone.name
    with pytest.raises(MediaError, match="there is no such file"):
        Audio(gone).load(8000)


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from benchkit.errors import StoreError
from benchkit.features.lock import try_lock
os.seteuid(65534)
try:
    try_lock(Path(sys.argv[1]))
except StoreError as e:
    print(e)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_cache_that_may_not_be_entered_is_one_line(for_all: Path) -> None:
    closed = for_all / "cache"
    closed.mkdir(mode=0o700)  # umask 077
    command = [sys.executable, "-c", AS_ANOTHER_USER, str(closed / "features" / ("0" * 16))]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert f"this user may not enter '{closed}'" in said
    assert "--cache or BENCHKIT_CACHE" in said
