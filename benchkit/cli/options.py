"""Options that several commands have, and how their words are read."""

import re
from collections.abc import Sequence

import typer


def numbers(option: str, given: Sequence[str] | None) -> list[int]:
    """Whole numbers from `--n-train 1,5,-1` and its like, repeated or not."""
    found = []
    for text in given or ():
        for word in text.split(","):
            if not re.fullmatch(r"[+-]?[0-9]{1,30}", word.strip()):
                hint = " (-1 is all)" if option == "--n-train" else ""
                raise typer.BadParameter(
                    f"'{text}': '{word.strip()}' is not a valid integer{hint}", param_hint=f"'{option}'"
                )
            found.append(int(word))
    return found
