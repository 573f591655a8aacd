"""What is fine-tuned of Bird-MAE: depths by name, and recordings through the published layout of weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchkit import Problem
from benchkit.classifiers.finetune import Finetune
from benchkit.classifiers.params import FinetuneParams
from benchkit_bird_mae.backbone import BirdMAE, Params


@pytest.fixture
def tiny(shared: Path) -> Path:
    return shared / "fixtures" / "bird_mae_tiny"


def loaded(path: Path, **params: Any) -> BirdMAE:
    backbone = BirdMAE(Params(path=path, **params))
    backbone.setup("cpu")
    return backbone


def test_every_parameter_but_the_positions_has_the_depth_of_its_place(tiny: Path) -> None:
    backbone = loaded(tiny)
    depth, trainable = backbone.architecture.depth, backbone.trainable()
    names = {name for name, _ in trainable.module.named_parameters()}
    assert names - set(trainable.depth_of) == {"pos_embed"}
    assert trainable.top == depth + 1
    for name, found in trainable.depth_of.items():
        part = name.split(".")[0]
        expected = {"cls_token": 0, "patch_embed": 0, "norm": depth + 1, "fc_norm": depth + 1}.get(part)
        assert found == (int(name.split(".")[1]) + 1 if expected is None else expected), name


def test_blocks_behind_the_pooled_layer_are_not_trained(tiny: Path) -> None:
    trainable = loaded(tiny, layer=0).trainable()
    assert trainable.top == 2
    assert {name.split(".")[1] for name in trainable.depth_of if name.startswith("blocks.")} == {"0"}
    assert trainable.depth_of["fc_norm.weight"] == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_real_recordings_are_told_apart_after_a_few_steps_and_the_model_stays_as_it_was(tiny: Path, dtype: str) -> None:
    backbone = loaded(tiny, dtype=dtype)
    stored = np.load(tiny / "expected.npz")
    x = np.stack([backbone.preprocess(stored[f"wave{i}"]) for i in range(2)])
    before = backbone.encode(x).pooled
    weights = {name: p.clone() for name, p in backbone.module.state_dict().items()}
    probe = Finetune(FinetuneParams(lr=1e-3, epochs=3, min_steps=0))
    probe.bind(backbone)
    fitted = probe.fit(x, np.array([1, 0]), Problem("multiclass", 2), seed=0)
    assert fitted.scores(x).argmax(axis=1).tolist() == [1, 0]
    assert fitted.record["steps"] == 3
    np.testing.assert_array_equal(backbone.encode(x).pooled, before)
    assert all(torch.equal(p, weights[name]) for name, p in backbone.module.state_dict().items())
