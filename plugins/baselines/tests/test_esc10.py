"""The baselines on real recordings, with a probe that owes nothing to benchkit: are the features any good?"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchkit import Task, resolve


@pytest.fixture(scope="module")
def esc10(shared: Path) -> tuple[Task, list[np.ndarray]]:
    """The task and all its recordings at 32 kHz."""
    task = resolve("task", f"esc50,root={shared / 'data' / 'esc10'}").build()
    return task, [example.media.load(32_000) for example in task.examples("clips", range(400))]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mfcc", "logmel"])
def test_esc10_in_five_folds_is_at_least_what_the_paper_reports_for_such_features(
    esc10: tuple[Task, list[np.ndarray]], model: str
) -> None:
    task, recordings = esc10
    labels, backbone = task.labels("clips"), resolve("model", model).build()
    assert backbone.sample_rate == 32_000
    waves = [backbone.preprocess(recording) for recording in recordings]
    features = np.concatenate([backbone.encode(np.stack(waves[i : i + 20])).pooled for i in range(0, 400, 20)])
    right = 0
    for fold in task.folds():
        probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0))
        probe.fit(features[fold.train], labels[fold.train])
        right += (probe.predict(features[fold.test]) == labels[fold.test]).sum()
    assert 0.727 <= right / 400 <= 0.90  # Piczak 2015: 72.7 %; and what these features cannot reach without a leak
