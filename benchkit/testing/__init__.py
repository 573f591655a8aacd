"""The conformance suites: what every backbone, task, classifier and scorer must do for its numbers to be trusted.

In a plugin's own tests, one class each; pytest finds the checks:

    from benchkit.testing import BackboneSuite

    class TestMyModel(BackboneSuite):
        spec = "my-model"              # an installed plugin, or: backbone = MyModel, or: backbone = MyModel(MyParams())

Without pytest, one call, which raises an AssertionError that lists what is wrong:

    from benchkit.testing import check_backbone

    check_backbone("my-model")

docs/plugins.md walks through a whole plugin and its tests.
"""

from benchkit.testing.backbone import BackboneSuite, check_backbone
from benchkit.testing.classifier import ClassifierSuite, check_classifier
from benchkit.testing.common import HEAVY
from benchkit.testing.question import QuestionSuite, check_question
from benchkit.testing.scorer import ScorerSuite, check_scorer
from benchkit.testing.task import TaskSuite, check_task

__all__ = [
    "HEAVY", "BackboneSuite", "ClassifierSuite", "QuestionSuite", "ScorerSuite", "TaskSuite", "check_backbone",
    "check_classifier", "check_question", "check_scorer", "check_task",
]  # fmt: skip
