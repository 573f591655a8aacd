"""Is what was decoded worth listening to: not silent, not clipped, no channels that cancel, no end missing?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt64

from benchkit.checks._conclude import Finding, conclude, some
from benchkit.media.notes import CANCELS, CLIPPED, SILENT, UNVERIFIED
from benchkit.records.report import Check

NAMED = 20
SILENT_MANY, CLIPPED_MANY = 0.01, 0.05
"""Shares from which on a number means less than it seems."""


def check_media(notes: Mapping[str, UInt64[np.ndarray, " n"]], ids: Mapping[str, Sequence[str]], unit: str) -> Check:
    """notes, ids: of the examples that were decoded, by split. unit: what they are called, "recordings".

    warn: an example whose channels cancel in their mix; more than 1 % of silence; more than 5 % with clipping. Fewer
    are named all the same, as are those whose file does not say how long it is, so that a missing end would not be
    seen. Details name up to 20 of each.
    """
    flat = np.concatenate([np.asarray(n, np.uint64) for n in notes.values()])
    names = [name for split in notes for name in ids[split]]
    n = len(flat)

    def with_note(bit: int) -> list[str]:
        return [names[i] for i in np.flatnonzero(flat & np.uint64(bit))]

    cancel, silent, clipped, unverified = map(with_note, (CANCELS, SILENT, CLIPPED, UNVERIFIED))
    findings, remarks = [], []
    if cancel:
        text = (
            f"the channels of {_count(cancel, n)} cancel in their mix ({some(cancel)}): choose one with the task's "
            "parameter channel (left, right or loudest)"
        )
        findings.append(Finding("warn", text))
    for found, share, text in (
        (silent, SILENT_MANY, f"{_count(silent, n)} silent ({some(silent)})"),
        (clipped, CLIPPED_MANY, f"{_count(clipped, n)} clipped ({some(clipped)})"),
    ):
        if found and len(found) > share * n:
            findings.append(Finding("warn", text))
        elif found:
            remarks.append(text)
    if unverified:
        remarks.append(
            f"{_count(unverified, n)} with a length that could not be verified, for the file states none "
            f"({some(unverified)})"
        )
    details = {"n": n} | {
        key: {"n": len(found), "examples": found[:NAMED]}
        for key, found in (("cancel", cancel), ("silent", silent), ("clipped", clipped), ("unverified", unverified))
    }
    if findings:
        findings += [Finding("ok", text) for text in remarks]
    otherwise = "; ".join(remarks) if remarks else f"{n:,} {unit} hold what they say"
    return conclude("media", findings, otherwise, details)


def _count(names: Sequence[str], n: int) -> str:
    return f"{len(names):,} of {n:,}"
