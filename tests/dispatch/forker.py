"""Runs benchkit commands in forks of one process that has imported everything: a fresh launcher in milliseconds.

Reads requests as lines of JSON: {"words": arguments, "errors": file} forks and answers with the pid, {"wait": pid}
answers with the wait status once it has ended. Until then the pid is nobody else's.
"""

import json
import os
import sys
import tempfile
from contextlib import suppress


def run(words: list[str], errors: str) -> None:
    """In the fork: the command as the console script runs it."""
    from benchkit.cli import main

    os.setsid()
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["benchkit", *words]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    finally:
        os._exit(code)


def warm(words: list[str]) -> None:
    """Once in this process, into a registry that nobody keeps."""
    from benchkit.cli import main

    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["benchkit", *words, "--db", f"{folder}/r.sqlite", "--cache", f"{folder}/cache"]
        with suppress(SystemExit):
            main()
    os.dup2(out, 1)


def loop() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "warm" in request:
            warm(request["warm"])
            answer: object = "warm"
        elif "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        else:
            answer = os.fork()
            if not answer:
                run(request["words"], request["errors"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    loop()
