"""Small faults put into the code one at a time: do the tests nearest to each notice?

    python bench/mutants.py                  every room
    python bench/mutants.py metrics checks   some rooms
    python bench/mutants.py metrics --only 3 7   some of a room's faults, by number
    python bench/mutants.py --list           what there is

`bench/mutants/ROOM.toml` lists a room's faults: each is one place of one file (`old`, which stands there once), what is
written there instead (`new`), and the tests that should fail then (`tests`; by default the room's). It is put into a
copy of the tree, and killed where one of these tests fails or takes far longer than it did before. A fault that no test
can notice says why (`survives`). Ends with 1 where a fault without such a word survives, fewer than nine of ten are
killed, or one is of a line that has changed since.

One process that has imported numpy, torch and pytest, but nothing of benchkit, is forked for each fault, so that each
takes little more than its tests.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "bench" / "mutants"
KILLED = 0.9
"""Of each room's faults, at least."""
LEAST_LIMIT, TIMES = 60.0, 4.0
"""Seconds that the tests of a fault may take, at least, and times what they took before."""


@dataclass(frozen=True)
class Mutant:
    number: int
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.number:>3} {self.file}: {old}  =>  {new or '(nothing)'}"

    def fits(self, tree: Path) -> bool:
        """Whether `old` stands in the file once: what was written anew since the list was made must be listed anew."""
        path = tree / self.file
        return path.is_file() and path.read_text(encoding="utf-8").count(self.old) == 1


def read(path: Path) -> list[Mutant]:
    """A room's list."""
    room = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Mutant(i, m["file"], m["old"], m["new"], tuple(m.get("tests", room.get("tests", ()))), m.get("survives", ""))
        for i, m in enumerate(room["mutant"], 1)
    ]


# ---------------------------------------------------------------------------------------------------------- the tree


@contextmanager
def copied() -> Iterator[Path]:
    """What git knows of the tree, in a folder of its own beside the same reference data."""
    with tempfile.TemporaryDirectory(prefix="benchkit-mutants-") as folder:
        tree = Path(folder) / "tree"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to((ROOT.parent / "shared").resolve())
        yield tree


_STAMPS = itertools.count(int(time.time()) - 10**6)


def write(path: Path, text: str) -> None:
    """With a time of its own: Python takes a file of the same size and second for the one that it has compiled."""
    path.write_text(text, encoding="utf-8")
    stamp = next(_STAMPS)
    os.utime(path, (stamp, stamp))


# ------------------------------------------------------------------------------------------------------- the process


@dataclass(frozen=True)
class Ran:
    """code: of pytest; None where the limit ended it. failed: the first test that did."""

    code: int | None
    seconds: float
    failed: str
    said: str


class Runner:
    """The process that is forked."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.log = tree, tree.parent / "log"
        # Of the tree's own plugins, too, not of those that are installed and may change meanwhile.
        places = [tree, *sorted(p for kind in ("plugins", "tasks") for p in (tree / kind).glob("*") if p.is_dir())]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve"], cwd=tree, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, tests: Sequence[str], limit: float) -> Ran:
        """Ends with the first test that fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        words = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=short", *tests]
        began = time.monotonic()
        print(json.dumps({"words": words, "log": str(self.log), "limit": limit}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that runs the tests has ended")
        said = self.log.read_text(errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        return Ran(json.loads(answer), time.monotonic() - began, failed[1] if failed else "", said)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def serve() -> None:
    """Forks for each line of JSON on stdin; answers with pytest's exit code, or null where the limit was reached."""
    import hypothesis
    import numpy
    import pytest
    import scipy.stats
    import sklearn.metrics
    import torch

    assert all((hypothesis, numpy, scipy, sklearn, torch))
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            os.setsid()
            log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.path.insert(0, os.getcwd())
            code = 3
            try:
                code = int(pytest.main(request["words"]))
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(json.dumps(_wait(pid, request["limit"])), flush=True)


def _wait(pid: int, limit: float) -> int | None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# ----------------------------------------------------------------------------------------------------------- a room


def run_room(name: str, listed: Sequence[Mutant], runner: Runner) -> bool:
    """Whether enough are killed, who is not says why, and all of the list fits what stands there."""
    mutants = [m for m in listed if m.fits(runner.tree)]
    for m in listed:
        if m not in mutants:
            print(f"STALE            {m}")
    if not mutants:
        return False
    print(f"{name}: {len(mutants)} faults; their tests first, as they are", flush=True)
    limits: dict[tuple[str, ...], float] = {}
    for tests in dict.fromkeys(m.tests for m in mutants):
        before = runner(tests, 3600.0)
        if before.code:
            print(before.said[-4000:])
            print(f"{name}: {before.failed} fails before anything is changed")
            return False
        limits[tests] = max(LEAST_LIMIT, TIMES * before.seconds)
    began, killed, unsaid = time.monotonic(), 0, 0
    for m in mutants:
        path = runner.tree / m.file
        whole = path.read_text(encoding="utf-8")
        write(path, whole.replace(m.old, m.new))
        try:
            ran = runner(m.tests, limits[m.tests])
        finally:
            write(path, whole)
        if ran.code in (0, 5):
            unsaid += not m.survives
            print(f"SURVIVED {ran.seconds:5.1f} s {m}" + (f" ({m.survives})" if m.survives else ""), flush=True)
            continue
        killed += 1
        how = "took too long" if ran.code is None else ran.failed.partition("::")[2] or "the tests do not start"
        more = "; it was said to survive" if m.survives else ""
        print(f"killed   {ran.seconds:5.1f} s {m}  [{how}{more}]", flush=True)
    share = killed / len(mutants)
    print(f"{name}: {killed} of {len(mutants)} killed ({share:.0%}) in {time.monotonic() - began:.0f} s, "
          f"{len(mutants) - killed - unsaid} survive for a reason that is given", flush=True)  # fmt: skip
    return share >= KILLED and not unsaid and len(mutants) == len(listed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="all where none is named; or the path of a list")
    parser.add_argument("--only", nargs="+", type=int, metavar="N", help="these faults, by their number")
    parser.add_argument("--list", action="store_true", help="tell what there is, and do nothing")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    known = {path.stem: path for path in sorted(LISTS.glob("*.toml"))}
    wanted = {Path(room).stem: known.get(room, Path(room)) for room in given.rooms or known}
    if missing := [name for name, path in wanted.items() if not path.is_file()]:
        parser.error(f"there is no list of '{missing[0]}': {', '.join(known)} have one")
    rooms = {name: [m for m in read(path) if not given.only or m.number in given.only] for name, path in wanted.items()}
    if given.list:
        for name, mutants in rooms.items():
            print(name, *(f"{m}  [{' '.join(m.tests)}]" for m in mutants), sep="\n")
        return 0
    with copied() as tree:
        runner = Runner(tree)
        try:
            good = [run_room(name, mutants, runner) for name, mutants in rooms.items() if mutants]
        finally:
            runner.close()
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
