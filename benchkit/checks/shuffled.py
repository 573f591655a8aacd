"""Does the same fit on permuted labels fall to chance? If not, something of the answer reaches the features."""

from benchkit.checks._conclude import Finding, conclude
from benchkit.checks.chance import gain_of_random_order
from benchkit.records.report import Check, Metric

_MARGIN = 0.03


def check_shuffled(permuted: Metric, true: Metric, chance: float, n_test: int) -> Check:
    """permuted, true: the primary metric of the fit on permuted training labels, and on the true ones. n_test: examples
    in a fold's test set.

    fail: the permuted fit keeps more than half of what the true one gains over chance, and is above chance by more than
    0.03 and by more than twice the lower half of its interval, both beside what random scores gain over constant ones.
    Half, because a permutation of few labels leaves some where they were, and because any direction through clustered
    features ranks whole classes together, which average precision rewards.
    """
    low = permuted.value if permuted.low is None else permuted.low
    noise = max(_MARGIN, 2 * (permuted.value - low)) + gain_of_random_order(permuted.name, n_test)
    allowed = max(noise, (true.value - chance) / 2)
    shown = (
        f"{permuted.name} {permuted.value:.4f} on permuted labels, {true.value:.4f} on true ones, chance {chance:.4f}"
    )
    findings = []
    if permuted.value > chance + allowed:
        findings.append(Finding("fail", f"{shown}: the fit knows the answers without having been told them"))
    details = {
        "metric": permuted.name, "value": permuted.value, "low": permuted.low, "high": permuted.high,
        "true": true.value, "chance": chance, "allowed": allowed,
    }  # fmt: skip
    return conclude("shuffled", findings, shown, details)
