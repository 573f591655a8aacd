"""Our own backbones, tasks, classifiers and scorers pass the suites that we ask others to pass."""

from pathlib import Path

import numpy as np
import pytest

from benchkit.interfaces import Modality
from benchkit.testing import BackboneSuite, ClassifierSuite, QuestionSuite, ScorerSuite, TaskSuite


class TestPixels(BackboneSuite):
    """Without a size it takes images of one shape alone."""

    spec = "pixels"

    def inputs(self, modality: Modality) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {f"image {i}": rng.integers(0, 256, (8, 8, 1)).astype(np.uint8) for i in range(5)}


class TestPixelsOfAnySize(BackboneSuite):
    spec = "pixels,size=16,colour=rgb"


class TestLogMel(BackboneSuite):
    spec = "logmel"


class TestMFCC(BackboneSuite):
    spec = "mfcc"


class TestRandomViT(BackboneSuite):
    spec = "random-vit"
    other = "random-vit,seed=1"


class TestLinear(ClassifierSuite):
    spec = "linear"


class TestLogReg(ClassifierSuite):
    spec = "logreg"


class TestCentroid(ClassifierSuite):
    spec = "centroid"


class TestKNN(ClassifierSuite):
    spec = "knn"


class TestRetrieval(QuestionSuite):
    spec = "retrieval"


class TestRetrievalInTrain(QuestionSuite):
    spec = "retrieval,gallery=train"


class TestClustering(QuestionSuite):
    spec = "clustering,repeats=3"


class TestMLP(ClassifierSuite):
    spec = "mlp"


class TestRandomScorer(ScorerSuite):
    spec = "random,k=64"


class TestRandomScorerByDefault(ScorerSuite):
    spec = "random"
    n_vectors = 9000  # it has more prototypes than the suite has vectors


class TestRandomDirections(ScorerSuite):
    spec = "random,k=64,variant=directions,similarity=dot"


class TestKMeans(ScorerSuite):
    spec = "kmeans,k=40"


class TestPCA(ScorerSuite):
    spec = "pca,k=20,signs=both,whiten=true"


class TestDigits(TaskSuite):
    spec = "digits"


class TestESC10(TaskSuite):
    @pytest.fixture(autouse=True)
    def _root(self, shared: Path) -> None:
        type(self).spec = f"esc50,root={shared / 'data' / 'esc10'}"


class TestESC10OneFold(TaskSuite):
    @pytest.fixture(autouse=True)
    def _root(self, shared: Path) -> None:
        type(self).spec = f"esc50,root={shared / 'data' / 'esc10'},fold=2"
