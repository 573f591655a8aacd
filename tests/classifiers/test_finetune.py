"""Fine-tuning: what is trained, how fast, and that it leaves the backbone as it was."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchkit
from benchkit.api import Settings
from benchkit.catalog.resolve import resolve
from benchkit.classifiers.finetune import Finetune
from benchkit.classifiers.params import FinetuneParams
from benchkit.errors import BenchkitError, FitError, PluginError
from benchkit.interfaces import Backbone, Encoded, Problem, Subset, Trainable
from benchkit.planning.plan import Grid, make_plan
from benchkit.testing import ClassifierSuite

VIT = "random-vit,size=16,patch=8,width=32,depth=2,heads=2"
TWO = Problem("multiclass", 2, ("even", "odd"))
ONE_STEP = {"epochs": 1, "min_steps": 0, "batch": 64, "warmup": 0.0, "schedule": "constant", "grad_clip": 0.0}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models so small are faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parity(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 2 x 2 patches that are bright or dark, and whether the number of bright ones is odd."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, (n, 2, 2))
    x = rng.integers(0, 60, (n, 2, 8, 2, 8))
    x[:, :, 2:6, :, 2:6] += 150 * bright[:, :, None, :, None]
    return x.reshape(n, 16, 16, 1).astype(np.uint8), bright.sum(axis=(1, 2)) % 2


class Watched:
    """A backbone, and the copy of it that is trained."""

    def __init__(self, spec: str = VIT) -> None:
        self.backbone: Any = resolve("model", spec).build()
        self.backbone.setup("cpu")
        self.made: list[Trainable] = []
        trainable = self.backbone.trainable

        def keep() -> Trainable:
            self.made.append(trainable())
            return self.made[-1]

        self.backbone.trainable = keep

    def probe(self, **params: Any) -> Finetune:
        probe = Finetune(FinetuneParams(**({"precision": "float32"} | params)))
        probe.bind(self.backbone)
        return probe

    def weights(self) -> dict[str, torch.Tensor]:
        """Those that the copy has at the moment."""
        return {name: p.detach().clone() for name, p in self.made[-1].module.named_parameters()}

    def prepared(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = parity(n, seed)
        return np.stack([self.backbone.preprocess(image) for image in x]), y


@pytest.fixture
def vit() -> Watched:
    return Watched()


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_solves_what_a_linear_probe_on_frozen_features_cannot(vit: Watched, precision: Any) -> None:
    (x, y), (test, truth) = vit.prepared(128, 0), vit.prepared(256, 1)
    before, frozen = vit.backbone.fingerprint(), vit.backbone.encode(x).pooled
    linear: Any = resolve("classifier", "linear").build()
    fitted = linear.fit(frozen, y, TWO, seed=0)
    probed = (fitted.scores(vit.backbone.encode(test).pooled).argmax(axis=1) == truth).mean()
    probe = vit.probe(lr=3e-3, batch=32, epochs=20, min_steps=0, precision=precision)
    tuned = probe.fit(x, y, TWO, seed=0)
    assert (tuned.scores(test).argmax(axis=1) == truth).mean() > 0.95
    assert probed < 0.7
    assert tuned.record["steps"] == 80
    assert tuned.record["train_loss"] < 0.1
    assert vit.backbone.fingerprint() == before
    np.testing.assert_array_equal(vit.backbone.encode(x).pooled, frozen)


def one_step(vit: Watched, **params: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """All weights before and after one step."""
    x, y = vit.prepared(64, 0)
    probe = vit.probe(**(ONE_STEP | params))
    before = vit.weights()
    probe.fit(x, y, TWO, seed=0)
    return before, vit.weights()


def test_every_parameter_has_the_learning_rate_of_its_depth(vit: Watched) -> None:
    """Adam's first step moves every weight that has a gradient by its learning rate."""
    before, after = one_step(vit, lr=1e-3, layer_decay=0.5, weight_decay=0.0, eps=1e-30)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    by_prefix = {"embed_image": 1.25e-4, "cls": 1.25e-4, "blocks.0": 2.5e-4, "blocks.1": 5e-4, "norm": 1e-3}
    for name, distance in moved.items():
        if name.startswith("embed_audio"):
            assert distance == 0, "images do not pass it"
        else:
            (rate,) = (rate for prefix, rate in by_prefix.items() if name.startswith(f"{prefix}.") or name == prefix)
            assert distance == pytest.approx(rate, rel=1e-2), name


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_weight_decay_leaves_out_biases_norms_and_tokens_unless_told(vit: Watched, decay: Any) -> None:
    plain = one_step(vit, lr=1e-2, layer_decay=1.0, weight_decay=0.0)[1]
    before, decayed = one_step(vit, lr=1e-2, layer_decay=1.0, weight_decay=10.0, decay=decay)
    for name, start in before.items():
        takes_part = not name.startswith("embed_audio")
        matrix = name.endswith("weight") and "norm" not in name
        expected = -0.1 * start if takes_part and (matrix or decay == "all") else torch.zeros_like(start)
        torch.testing.assert_close(decayed[name] - plain[name], expected, atol=1e-5, rtol=1e-3, msg=name)


def test_layers_behind_the_one_that_is_used_are_left_alone(shared: Path) -> None:
    vit = Watched(f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'},layer=0")
    trainable = vit.backbone.trainable()
    assert trainable.top == 2
    assert {name.split(".")[1] for name in trainable.depth_of if name.startswith("blocks.")} == {"0"}


# ------------------------------------------------------------------------------------------------------ the same again


def test_the_same_seed_gives_the_same_scores_and_no_global_generator_is_touched(vit: Watched) -> None:
    (x, y), (test, _) = vit.prepared(48, 0), vit.prepared(8, 1)
    probe = vit.probe(lr=1e-3, batch=16, epochs=2, min_steps=0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    scores = [probe.fit(x, y, TWO, seed=seed).scores(test) for seed in (3, 4, 3)]
    np.testing.assert_array_equal(scores[0], scores[2])
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    np.testing.assert_array_equal(Watched().probe(**vars_of(probe)).fit(x, y, TWO, seed=3).scores(test), scores[0])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def vars_of(probe: Finetune) -> Mapping[str, Any]:
    return {name: getattr(probe.params, name) for name in ("lr", "batch", "epochs", "min_steps")}


def test_one_copy_serves_all_fits_and_each_scores_with_its_own_weights(vit: Watched) -> None:
    (x, y), (test, _) = vit.prepared(40, 0), vit.prepared(8, 1)
    probe = vit.probe(lr=1e-3, batch=16, epochs=2, min_steps=0)
    subsets = [Subset(np.arange(40), 0), Subset(np.arange(0, 40, 2), 1), Subset(np.array([], np.int64), 2)]
    stream = probe.fit_many(x, y, TWO, subsets)
    many = [next(stream), next(stream)]
    with pytest.raises(FitError, match="no example to be fitted on"):
        next(stream)
    interleaved = [many[i].scores(test) for i in (0, 1, 0, 1)]
    assert len(vit.made) == 1
    np.testing.assert_array_equal(interleaved[0], interleaved[2])
    for fitted_scores, s in zip(interleaved, subsets[:2], strict=False):
        np.testing.assert_array_equal(probe.fit(x[s.rows], y[s.rows], TWO, seed=s.seed).scores(test), fitted_scores)


def test_a_validation_part_ends_training_early_and_the_best_weights_count(vit: Watched) -> None:
    x, _ = vit.prepared(60, 0)
    noise = np.random.default_rng(0).integers(0, 2, 60)  # nothing to learn: validation gets worse
    fitted = vit.probe(lr=3e-3, batch=16, epochs=200, val=0.3, patience=3).fit(x, noise, TWO, seed=0)
    record = fitted.record
    assert record["epochs"] == record["best_epoch"] + 3 < 200
    assert record["val_loss"] > 0.5
    loss = -np.take_along_axis(fitted.scores(x), noise[:, None], axis=1).mean()
    assert loss > 0.5, "the best epoch's weights, not the last one's, which know the training part by heart"


class Cramped(Watched):
    """So many examples at a time, and no more, fit into memory."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        made = self.backbone.trainable

        def trainable() -> Trainable:
            t = made()

            def pooled(x: torch.Tensor) -> torch.Tensor:
                if len(x) > fits:
                    raise torch.OutOfMemoryError("out of memory")
                return t.pooled(x)

            return Trainable(t.module, pooled, t.depth_of, t.top)

        self.backbone.trainable = trainable


def test_a_minibatch_that_does_not_fit_into_memory_goes_through_in_parts(vit: Watched) -> None:
    (x, y), (test, _) = vit.prepared(48, 0), vit.prepared(20, 1)
    params: dict[str, Any] = {"lr": 1e-3, "batch": 16, "epochs": 2, "min_steps": 0}
    whole = vit.probe(**params).fit(x, y, TWO, seed=0)
    parts = Cramped(5).probe(**params).fit(x, y, TWO, seed=0)
    np.testing.assert_allclose(parts.scores(test), whole.scores(test), atol=1e-4)
    with pytest.raises(FitError, match="too little memory to fine-tune on one example"):
        Cramped(0).probe(**params).fit(x, y, TWO, seed=0)


# -------------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_trained_is_one_line() -> None:
    probe = Finetune()
    with pytest.raises(FitError, match="call bind"):
        probe.fit(np.zeros((4, 2)), np.array([0, 1, 0, 1]), TWO, seed=0)
    pixels = resolve("model", "pixels").build()
    with pytest.raises(BenchkitError, match="Pixels cannot be fine-tuned: it is no torch model"):
        probe.bind(pixels)


@pytest.mark.parametrize(
    ("depth_of", "words"),
    [({"weight": 2}, "'weight' the depth 2 of 0 to 1"), ({"head": 0}, "'head' the depth 0"), ({}, "no parameter")],
)
def test_a_backbone_that_names_the_wrong_parameters_is_told(depth_of: dict[str, int], words: str) -> None:
    class Wrong(Points):
        def trainable(self) -> Trainable:
            module = torch.nn.Linear(16, 16)
            return Trainable(module, module, depth_of, 1)

    with pytest.raises(PluginError, match=words):
        Finetune().bind(Wrong())


def test_training_that_diverges_is_one_line(vit: Watched) -> None:
    x, y = vit.prepared(32, 0)
    with pytest.raises(FitError, match=r"fine-tuning diverged: give a learning rate below lr=1e\+30"):
        vit.probe(lr=1e30, epochs=3, min_steps=0, norm="none").fit(x, y, TWO, seed=0)


# ------------------------------------------------------------------------------------------------------- in a real run


def test_a_run_fine_tunes_beside_other_probes(tmp_path: Path) -> None:
    def reports(model: str) -> dict[tuple[str, int], benchkit.Report]:
        found = benchkit.run(
            task="digits",
            model=model,
            classifier=["linear", "finetune,lr=0.003,precision=float32,epochs=10,min_steps=60,batch=32"],
            n_train=[2, 20],
            settings=Settings(db=tmp_path / "r.sqlite", replicates=20),
        )
        return {(r.cell.classifier.split(",")[0], r.cell.n_train): r for r in found}

    found = reports("random-vit,size=8,patch=4,width=32,depth=2,heads=2")
    assert len(found) == 4
    tuned, linear = found["finetune@2", 20], found["linear@2", 20]
    assert tuned.value > max(linear.value, 0.7)
    assert tuned.n_test == linear.n_test
    assert tuned.record["fit"]["steps"] == 70
    assert {c.name: c.status for c in tuned.checks}["leakage"] == "ok"


def test_a_model_that_is_no_torch_model_is_refused_when_planned() -> None:
    with pytest.raises(BenchkitError) as caught:
        make_plan([Grid(("digits",), ("pixels",), ("finetune",))], None)
    assert re.fullmatch(
        "classifier 'finetune' .* model 'pixels' cannot be fine-tuned: it is no torch model", str(caught.value)
    )
    assert len(make_plan([Grid(("digits",), ("random-vit",), ("finetune",))], None).cells) == 1


def test_a_model_that_turns_out_not_to_be_trainable_fails_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchkit_baselines.random_vit import RandomViT

    def refuse(self: RandomViT) -> Trainable:
        raise BenchkitError("this one is frozen for good")

    def decode(self: RandomViT, raw: np.ndarray) -> np.ndarray:
        raise AssertionError("too late: examples are being prepared")

    monkeypatch.setattr(RandomViT, "trainable", refuse)
    monkeypatch.setattr(RandomViT, "preprocess", decode)
    with pytest.raises(BenchkitError, match="this one is frozen for good"):
        benchkit.run(
            task="digits", model=VIT, classifier="finetune", n_train=2,
            settings=Settings(db=tmp_path / "r.sqlite", workers=0),
        )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- conformance


class Points(Backbone):
    """Points through a matrix and a non-linearity."""

    modalities = ("image",)
    dim = 16

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(np.tanh(batch))

    def trainable(self) -> Trainable:
        module = torch.nn.Linear(16, 16, bias=False)
        with torch.no_grad():
            module.weight.copy_(torch.eye(16))
        return Trainable(module, lambda x: torch.tanh(module(x)), {"weight": 0}, 1)

    def fingerprint(self) -> str:
        return "points"


class TestConformance(ClassifierSuite):
    spec = "finetune,lr=0.01,epochs=5,min_steps=60,batch=16,precision=float32"

    def make(self) -> Any:
        probe = super().make()
        with torch.random.fork_rng():
            probe.bind(Points())
        return probe

    def features(self, x: np.ndarray) -> np.ndarray:
        return x


# ----------------------------------------------------------------------------------- a copy that is not as it should be


class Restless(Points):
    """Its copy comes in training mode, with dropout, and with a counter that every pass moves."""

    class Net(torch.nn.Module):
        passes: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(16, 16, bias=False)
            self.norm, self.drop = torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5)
            self.register_buffer("passes", torch.zeros(()))
            with torch.no_grad():
                self.linear.weight.copy_(torch.eye(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            return self.drop(self.norm(torch.tanh(self.linear(x)))) * (1 + 1e-3 * self.passes)

    def trainable(self) -> Trainable:
        net = Restless.Net().train()
        self.net = net
        return Trainable(net, net, {"linear.weight": 0, "norm.weight": 1, "norm.bias": 1}, 1)


def test_a_copy_in_training_mode_is_put_into_evaluation_mode_and_fits_do_not_reach_each_other() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 16)).astype(np.float32), np.arange(40) % 2
    x[:, 0] += 2 * y

    def fresh() -> Finetune:
        probe = Finetune(FinetuneParams(epochs=2, min_steps=0, batch=8, lr=1e-2, precision="float32"))
        probe.bind(Restless())
        return probe

    probe = fresh()
    fits = list(probe.fit_many(x, y, TWO, [Subset(np.arange(40), 0), Subset(np.arange(20), 1)]))
    first = fits[0].scores(x)
    fits[1].scores(x)
    np.testing.assert_allclose(fits[0].scores(x), first, atol=1e-5)  # its own statistics came back with its weights
    np.testing.assert_array_equal(first, fresh().fit(x, y, TWO, seed=0).scores(x))
    alone = fresh().fit(x[:20], y[:20], TWO, seed=1).scores(x)
    np.testing.assert_allclose(fits[1].scores(x), alone, atol=1e-5)


def test_a_copy_that_gives_other_features_than_encode_is_refused() -> None:
    class Other(Points):
        def trainable(self) -> Trainable:
            made = super().trainable()
            return Trainable(made.module, lambda x: 2 * made.pooled(x), made.depth_of, made.top)

    probe = Finetune(FinetuneParams(precision="float32"))
    probe.bind(Other())
    x = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    with pytest.raises(PluginError, match="lie 1 of their norm away from those of encode for the same 8 examples"):
        probe.fit(x, np.arange(8) % 2, TWO, seed=0)
