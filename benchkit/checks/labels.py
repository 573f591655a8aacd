"""Do the labels look like labels: every class in train and test, positives rare, in step with the features?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, UInt8

from benchkit.catalog.labels import n_positives
from benchkit.checks._conclude import Finding, conclude, some
from benchkit.checks.alignment import Alignment, align
from benchkit.interfaces import Problem
from benchkit.records.report import Check

AnyLabels = Int64[np.ndarray, " _"] | UInt8[np.ndarray, "_ _"]
FoldLabels = tuple[AnyLabels, AnyLabels]
"""The training and the test labels of one fold."""
Aligned = tuple[Float[np.ndarray, "_ _"], AnyLabels] | tuple[Float[np.ndarray, "_ _"], AnyLabels, Int[np.ndarray, " _"]]
"""Features of one split and all its labels, in the split's own order; and the rows that have features, if not all."""

_MOST_CLASSES = 500  # whose prevalence is kept in the details


def check_labels(problem: Problem, labels: Sequence[FoldLabels], aligned: Mapping[str, Aligned] | None = None) -> Check:
    """labels: of each fold. aligned: features and labels by split, to see whether they belong to the same rows.

    warn: a class without positives in some fold's train, or in no fold's test; of several labels an example, a class
    that more than half of the examples have. fail: more than half of all such labels are set (inverted; of three
    classes or more, and no traits), or the labels of a split fit its features significantly better one to three rows
    away (see benchkit.checks.alignment).
    """
    names = problem.classes or tuple(map(str, range(problem.n_classes)))
    train_fc = np.stack([n_positives(train, problem.n_classes) for train, _ in labels])
    test_fc = np.stack([n_positives(test, problem.n_classes) for _, test in labels])
    prevalence = {
        "train": train_fc.sum(axis=0) / max(sum(len(y) for y, _ in labels), 1),
        "test": test_fc.sum(axis=0) / max(sum(len(y) for _, y in labels), 1),
    }
    absent = {"train": (train_fc == 0).any(axis=0), "test": (test_fc == 0).all(axis=0)}
    findings = [
        Finding("warn", f"{len(lacking)} of {len(names)} classes have no positives in {part}: {some(lacking)}")
        for part, is_absent in absent.items()
        if (lacking := _where(names, is_absent))
    ]
    if problem.kind != "multiclass":
        findings += _dense(problem, names, prevalence)
    found = {split: align(*part) for split, part in (aligned or {}).items()}
    findings += [_shifted(split, a) for split, a in found.items() if a.offset]
    details = {
        "absent": {part: _where(names, a)[:_MOST_CLASSES] for part, a in absent.items()},
        "prevalence": {
            part: dict(zip(names[:_MOST_CLASSES], np.round(p, 6).tolist(), strict=False))
            for part, p in prevalence.items()
        },
        "alignment": {split: _describe(a) for split, a in found.items()},
    }
    p = prevalence["test"]
    otherwise = f"{len(names)} classes, all in train and test, each on {p.min():.1%} to {p.max():.1%} of test examples"
    return conclude("labels", findings, otherwise, details)


def _where(names: Sequence[str], chosen: Bool[np.ndarray, " C"]) -> list[str]:
    return [name for name, yes in zip(names, chosen, strict=True) if yes]


def _dense(
    problem: Problem, names: Sequence[str], prevalence: Mapping[str, Float64[np.ndarray, " C"]]
) -> list[Finding]:
    """Positives where one would expect negatives. For traits, and for one or two classes, that is only a warning."""
    findings = []
    may_be_common = problem.kind == "traits" or len(names) <= 2
    for part, p in prevalence.items():
        if p.mean() > 0.5 and not may_be_common:
            text = f"{p.mean():.1%} of all labels in {part} are positive: are they inverted?"
            findings.append(Finding("fail", text))
        elif common := _where(names, p > 0.5):
            text = f"{len(common)} of {len(names)} classes are on more than half of {part}: {some(common)}"
            findings.append(Finding("warn", text))
    return findings


def _shifted(split: str, a: Alignment) -> Finding:
    by = f"{abs(a.offset)} row{'s' if abs(a.offset) > 1 else ''} {'later' if a.offset > 0 else 'earlier'}"
    at_own, at_offset = a.by_offset[0], a.by_offset[a.offset]
    text = (
        f"labels of '{split}' seem shifted: nearest neighbours agree in {at_offset:.1%} of the labels {by}, "
        f"in {at_own:.1%} at their own rows (z = {a.z:.1f})"
    )
    return Finding("fail", text)


def _describe(a: Alignment) -> dict[str, object]:
    agreement = {f"{offset:+d}" if offset else "0": round(v, 6) for offset, v in sorted(a.by_offset.items())}
    return {"offset": a.offset, "z": a.z, "n_pairs": a.n, "agreement": agreement}
