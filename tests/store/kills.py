"""Starts one launcher after the other on the same cells and kills each at a random instant; the last one finishes.

python kills.py REGISTRY REPORT CELLS KILLS: see crowd.py. Prints how many launchers were killed at work.
"""

import os
import random
import signal
import sys
import time

import crowd


def main(registry: str, report: str, cells: str, kills: str) -> None:
    rng, killed = random.Random(0), 0
    while killed < int(kills):
        child = os.fork()
        if not child:
            crowd.work(registry, report, int(cells))
            os._exit(0)
        time.sleep(rng.random() ** 2 * 0.09)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break  # everything was done
        killed += 1
    crowd.work(registry, report, int(cells))
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
