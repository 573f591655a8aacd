"""Starts one launcher after the other on the same cells and kills each at a random instant; the last one finishes.

python kills.py REGISTRY REPORT CELLS KILLS: see crowd.py. Prints how many launchers were killed, and how many of them
were at work: they had claims.
"""

import os
import random
import select
import signal
import sqlite3
import sys
import time
from pathlib import Path

import crowd


def main(registry: str, report: str, cells: str, kills: str) -> None:
    rng, killed, with_claims = random.Random(0), 0, 0
    while killed < int(kills):
        heard, told = os.pipe()
        child = os.fork()
        if not child:
            crowd.work(registry, report, int(cells), began=lambda: os.write(told, b"."))  # noqa: B023
            os._exit(0)
        os.close(told)
        if killed % 2:  # at work, however long it takes to begin; the others at any instant
            select.select([heard], [], [], 60)
        time.sleep(rng.random() ** 2 * 0.09)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(heard)
        if not os.WIFSIGNALED(status):
            break  # everything was done
        killed += 1
        with_claims += has_claims(registry, child)
    crowd.work(registry, report, int(cells))
    sys.stdout.write(f"{killed} {with_claims}\n")


def has_claims(registry: str, pid: int) -> bool:
    if not Path(registry).exists():
        return False
    db = sqlite3.connect(registry)
    try:
        return bool(db.execute("SELECT count(*) FROM claims WHERE pid = ?", (pid,)).fetchone()[0])
    except sqlite3.OperationalError:  # killed before there were tables
        return False
    finally:
        db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
