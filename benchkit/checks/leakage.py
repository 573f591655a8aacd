"""Are there identical examples in train and test?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check

Hashes = tuple[UInt64[np.ndarray, " _"], UInt64[np.ndarray, " _"]]
"""Of the decoded media of one fold, train and test."""
Ids = tuple[Sequence[str], Sequence[str]]

_PAIRS = 20
_SHOWN = 3


def check_leakage(hashes: Sequence[Hashes], ids: Sequence[Ids]) -> Check:
    """Both for each fold, train and test. fail: a test example's media is also in that fold's training set.

    Details name up to 20 pairs; two examples that meet in several folds are one pair.
    """
    n_leaked = n_test = 0
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for (train, test), (train_ids, test_ids) in zip(hashes, ids, strict=True):
        known, rows = np.unique(train, return_index=True)
        leaked = np.flatnonzero(np.isin(test, known))
        n_leaked, n_test = n_leaked + len(leaked), n_test + len(test)
        sources = rows[np.searchsorted(known, test[leaked])]
        for source, i in zip(sources.tolist(), leaked.tolist(), strict=True):
            pair = train_ids[source], test_ids[i]
            pairs.setdefault(frozenset(pair), pair)
    details = {
        "n_leaked": n_leaked,
        "n_test": n_test,
        "n_pairs": len(pairs),
        "pairs": [{"train": a, "test": b} for a, b in list(pairs.values())[:_PAIRS]],
    }
    findings = []
    if n_leaked:
        named = ", ".join(f"test '{b}' is train '{a}'" for a, b in list(pairs.values())[:_SHOWN])
        more = ", ..." if len(pairs) > _SHOWN else ""
        findings.append(Finding("fail", f"{n_leaked:,} of {n_test:,} test examples are also in train: {named}{more}"))
    return conclude("leakage", findings, f"none of {n_test:,} test examples is in train", details)
