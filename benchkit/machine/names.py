"""Names of files as people and file systems spell them."""

import os
import unicodedata
from pathlib import Path


def on_disk(path: Path) -> Path:
    """The path as the folders on its way spell it; as it is, where nothing, or more than one thing, is there.

    The same letters can be written in two ways in Unicode, `ü` as one character (NFC, what tables mostly hold) or as
    `u` and a diaeresis (NFD, what macOS writes into file names): both look the same (Unicode Standard Annex 15).
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = on_disk(path.parent)
    try:
        same = [name for name in os.listdir(parent) if _plain(name) == _plain(path.name)]
    except OSError:
        return path
    return parent / (same[0] if len(same) == 1 else path.name)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
