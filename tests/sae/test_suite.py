"""The sae scorer passes the suite that other people's scorers must pass."""

from pathlib import Path

import numpy as np
import pytest

from benchkit.sae import SAEConfig, TrainConfig, train
from benchkit.testing import ScorerSuite


class _Trained(ScorerSuite):
    config: SAEConfig

    @pytest.fixture(autouse=True)
    def _train(self, as_recording, tmp_path_factory: pytest.TempPathFactory) -> None:
        def make() -> str:
            x = np.concatenate([np.asarray(b) for b in self.stream()])
            to: Path = tmp_path_factory.mktemp("sae") / "t"
            (t,) = train(as_recording(x), to, [self.config], TrainConfig(batch_size=256)).trained
            return f"sae:{t.path}"

        type(self).spec = self.once("spec", make)


class TestTopK(_Trained):
    config = SAEConfig("topk", 64, "dimension", k=6)


class TestBatchTopK(_Trained):
    config = SAEConfig("batchtopk", 64, "whiten", k=6)


class TestReLU(_Trained):
    config = SAEConfig("relu", 64, "layernorm", l1=0.01)
