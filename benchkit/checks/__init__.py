"""What makes a number trustworthy: one file a check, each gives one benchkit.records.report.Check.

Once a (task, model), before any cell: check_labels, check_leakage, check_features, check_inputs, check_media,
check_repeatable. For each cell: check_chance, check_plain, check_converged where a solver says whether it did,
check_published, check_precision, and check_shuffled on demand. `warn` and `fail` both
mark the result wherever it is shown: `warn` says that a number means less than it seems, `fail` that something is
broken.
"""

from benchkit.checks.chance import check_chance
from benchkit.checks.converged import check_converged
from benchkit.checks.features import check_features
from benchkit.checks.inputs import check_inputs
from benchkit.checks.labels import check_labels
from benchkit.checks.leakage import check_leakage
from benchkit.checks.media import check_media
from benchkit.checks.plain import check_plain
from benchkit.checks.precision import check_precision
from benchkit.checks.published import check_published
from benchkit.checks.repeatable import check_repeatable
from benchkit.checks.shuffled import check_shuffled

__all__ = [
    "check_chance", "check_converged", "check_features", "check_inputs", "check_labels", "check_leakage", "check_media",
    "check_plain", "check_precision", "check_published", "check_repeatable", "check_shuffled",
]  # fmt: skip
