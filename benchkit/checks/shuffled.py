"""Does the same fit on permuted labels fall to chance? If not, something of the answer reaches the features."""

from benchkit.checks._conclude import Finding, conclude
from benchkit.checks.chance import gain_of_random_order
from benchkit.report import Check, Metric

_MARGIN = 0.03


def check_shuffled(permuted: Metric, chance: float, n_test: int) -> Check:
    """permuted: the primary metric of a fit on permuted training labels. n_test: examples in a fold's test set.

    fail: it is above chance by more than 0.03 and by more than twice the lower half of its interval (twice, for the
    permutation adds to what the test examples leave uncertain), both beside what random scores gain over constant ones.
    """
    low = permuted.value if permuted.low is None else permuted.low
    allowed = max(_MARGIN, 2 * (permuted.value - low)) + gain_of_random_order(permuted.name, n_test)
    shown = f"{permuted.name} {permuted.value:.4f} on permuted labels, a constant scorer {chance:.4f}"
    findings = []
    if permuted.value > chance + allowed:
        findings.append(Finding("fail", f"{shown}: the fit knows the answers without having been told them"))
    details = {
        "metric": permuted.name, "value": permuted.value, "low": permuted.low, "high": permuted.high,
        "chance": chance, "allowed": allowed,
    }  # fmt: skip
    return conclude("shuffled", findings, shown, details)
