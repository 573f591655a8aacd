"""Ranking metrics and the bootstrap: from labels and scores to numbers with intervals. numpy only.

evaluate(("cmap", "auroc"), labels, scores, problem)   [Metric("cmap", 0.41, 0.39, 0.43), Metric("auroc", 0.88)]
chance("cmap", [(train_labels, test_labels)], problem)  what a constant scorer gets
paired_difference("cmap", labels, a, b, problem)        is model a better than model b on the same examples?
"""

from benchkit.metrics.bootstrap import Difference, paired_difference
from benchkit.metrics.definitions import METRICS, MetricDef, find
from benchkit.metrics.evaluate import Judged, chance, class_metrics, described, evaluate, judge, n_classes_evaluated

__all__ = [
    "METRICS", "Difference", "Judged", "MetricDef", "chance", "class_metrics", "described",
    "evaluate", "find", "judge", "n_classes_evaluated",
    "paired_difference",
]  # fmt: skip
