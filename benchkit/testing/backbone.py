"""Conformance of a backbone."""

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import numpy as np

from benchkit.catalog.contract import checked_real_tokens
from benchkit.catalog.spec import Kind
from benchkit.errors import BenchkitError
from benchkit.interfaces import Backbone, Encoded, Modality, WeightRole
from benchkit.testing.common import Suite, expect, expect_array, expect_same, run_all, unharmed

MAX_POINTS = 6
"""Of a backbone with many named places, as many are looked at."""


class BackboneSuite(Suite):
    """Subclass it in a test module: `class TestMine(BackboneSuite): spec = "my-model"`."""

    kind: ClassVar[Kind] = "model"
    attribute: ClassVar[str] = "backbone"

    backbone: Any = None
    """A class or an instance, where no `spec` is given."""
    other: Any = None
    """The same kind of model with other weights (a spec, a class or an instance), whose fingerprint must differ."""
    tolerance: float = 1e-4
    """By how much features may differ between batches and instances, relative to the largest."""

    # ------------------------------------------------------------------------------------------------------ checks

    def test_it_says_what_media_it_takes(self) -> None:
        backbone = self.make()
        known = backbone.modalities and set(backbone.modalities) <= {"image", "audio"}
        expect(known, f"modalities is {backbone.modalities!r}, and must name 'image', 'audio' or both")
        rate = backbone.sample_rate
        if "audio" in backbone.modalities:
            expect(isinstance(rate, int) and rate > 0, f"sample_rate is {rate!r}, and must be a whole number of Hz")

    def test_it_can_be_sent_to_a_worker_before_setup(self) -> None:
        backbone = self.make()
        try:
            copy = pickle.loads(pickle.dumps(backbone))
        except Exception as e:
            raise AssertionError(f"{type(backbone).__name__} cannot be pickled before setup: {e}") from e
        for modality in backbone.modalities:
            for name, raw in self.inputs(modality).items():
                expect_same(preprocess(backbone, raw), preprocess(copy, raw), 0.0, f"{name}, preprocessed by a copy")

    def test_preprocess_gives_one_shape_and_type_for_whatever_comes(self) -> None:
        backbone = self.make()
        for modality in backbone.modalities:
            made = {n: preprocess(backbone, raw) for n, raw in self.inputs(modality).items()}
            first, reference = next(iter(made.items()))
            for name, x in made.items():
                expect(isinstance(x, np.ndarray), f"preprocess gives {type(x).__name__} for {name}, not a numpy array")
                expect(x.dtype != object, f"preprocess gives an array of objects for {name}")
                expect(
                    (x.shape, x.dtype) == (reference.shape, reference.dtype),
                    f"preprocess gives {x.dtype} {list(x.shape)} for {name}, but {reference.dtype} "
                    f"{list(reference.shape)} for {first}",
                )
                expect(np.isfinite(x).all(), f"preprocess gives NaN or infinity for {name}")

    def test_no_more_of_a_recording_is_used_than_it_states(self) -> None:
        backbone = self.make()
        seconds, rate = backbone.seconds, backbone.sample_rate
        if seconds is None or not rate or "audio" not in backbone.modalities:
            return
        expect(seconds > 0, f"seconds is {seconds!r}, and must be above 0, or None where all of a recording is used")
        used = round(float(seconds) * rate)
        wave = 0.1 * np.random.default_rng(0).standard_normal(2 * used, dtype=np.float32)
        expect_same(
            preprocess(backbone, wave),
            preprocess(backbone, wave[:used]),
            0.0,
            f"a recording of {2 * seconds:g} s and its first {seconds:g} s, which is what seconds states",
        )

    def test_preprocess_is_deterministic(self) -> None:
        one, two = self.make(), self.make()
        for modality in one.modalities:
            for name, raw in self.inputs(modality).items():
                first = preprocess(one, raw)
                expect_same(first, preprocess(one, raw), 0.0, f"{name}, preprocessed twice")
                expect_same(first, preprocess(two, raw), 0.0, f"{name}, preprocessed by two instances")

    def test_features_have_the_declared_shape_and_type(self) -> None:
        backbone = self.ready
        for modality in backbone.modalities:
            batch = self.batch(modality)
            encoded = self.encoded(modality)
            expect(isinstance(encoded, Encoded), f"encode gives {type(encoded).__name__}, not benchkit.Encoded")
            dim = backbone.dim
            expect(isinstance(dim, int) and dim > 0, f"dim is {dim!r}, and must be a whole number above 0")
            expect_array(encoded.pooled, (len(batch), dim), "Encoded.pooled")
            expect(encoded.tokens is None, "encode gives tokens although tokens=False: they cost memory nobody needs")

    def test_features_do_not_depend_on_the_rest_of_the_batch(self) -> None:
        for modality in self.ready.modalities:
            batch, pooled = self.batch(modality), self.encoded(modality).pooled
            turned = self.encode(batch[::-1]).pooled[::-1]
            expect_same(pooled, turned, self.tolerance, "features of a batch and of the same batch turned round")
            doubled = self.encode(np.concatenate([batch, batch])).pooled
            expect_same(np.concatenate([pooled, pooled]), doubled, self.tolerance, "features in a larger batch")

    def test_a_batch_of_one_gives_the_same_features(self) -> None:
        for modality in self.ready.modalities:
            batch, pooled = self.batch(modality), self.encoded(modality).pooled
            for i in range(len(batch)):
                alone = self.encode(batch[i : i + 1]).pooled
                expect_same(pooled[i : i + 1], alone, self.tolerance, f"features of example {i}, in a batch and alone")

    def test_features_tell_examples_apart(self) -> None:
        for modality in self.ready.modalities:
            pooled = self.encoded(modality).pooled
            spread = float(np.ptp(pooled, axis=0).max())
            scale = float(np.abs(pooled).max())
            expect(
                spread > 1e-5 * scale,
                f"all {modality} inputs give the same features (the largest difference is {spread:.3g} at a magnitude "
                f"of {scale:.3g}): is the model dead?",
            )

    def test_two_instances_give_the_same_features(self) -> None:
        other = self.make()
        other.setup(self.device)
        for modality in other.modalities:
            pooled = other.encode(np.array(self.batch(modality))).pooled
            expect_same(self.encoded(modality).pooled, pooled, self.tolerance, "features of two instances")

    def test_tokens_come_only_where_asked_for_and_change_nothing(self) -> None:
        for modality in self.ready.modalities:
            batch = self.batch(modality)
            encoded = self.encode(batch, tokens=True)
            expect_same(
                self.encoded(modality).pooled, encoded.pooled, self.tolerance, "pooled features without and with tokens"
            )
            if encoded.tokens is not None:
                expect_array(encoded.tokens, (len(batch), None, None), "Encoded.tokens")
                alone = self.encode(batch[:1], tokens=True).tokens
                if alone is None:
                    raise AssertionError("encode gives tokens for four examples, but none for one")
                expect_same(encoded.tokens[:1], alone, self.tolerance, "tokens of an example, in a batch and alone")
                together, one = self.real(batch, alone.shape[1]), self.real(batch[:1], alone.shape[1])
                same = np.array_equal(together[:1], one)
                expect(same, "real_tokens differ for an example in a batch and alone")

    def test_activations_at_every_named_place(self) -> None:
        points = self.ready.points()
        named = isinstance(points, tuple) and all(isinstance(p, str) for p in points)
        expect(
            named and len(set(points)) == len(points), f"points() is {points!r}, and must be a tuple of unique names"
        )
        some = (
            tuple(dict.fromkeys(points[i] for i in np.linspace(0, len(points) - 1, MAX_POINTS).astype(int)))
            if points
            else ()
        )
        for modality in self.ready.modalities if some else ():
            batch = np.array(self.batch(modality)[:2])
            shown = unharmed(self.ready.activations, batch, some)
            expect(isinstance(shown, Mapping), f"activations gives {type(shown).__name__}, not a mapping")
            expect(set(shown) == set(some), f"activations at {list(some)} gives {sorted(shown)}")
            for point in some:
                expect_array(shown[point], (2, None, None), f"activations at '{point}'")
                prefix = self.ready.prefix_tokens
                fits = type(prefix) is int and 0 <= prefix < shown[point].shape[1]
                expect(fits, f"prefix_tokens is {prefix!r}, where '{point}' has {shown[point].shape[1]} tokens")
                checked_real_tokens(self.ready, batch, shown[point].shape[1] - prefix)
            alone = self.ready.activations(np.array(batch[:1]), some[-1:])[some[-1]]
            expect_same(
                shown[some[-1]][:1], alone, self.tolerance, f"activations at '{some[-1]}', in a batch and alone"
            )

    def test_a_place_that_does_not_exist_is_an_error(self) -> None:
        for modality in self.ready.modalities:
            try:
                self.ready.activations(np.array(self.batch(modality)), ["no.such.place"])
            except BenchkitError as e:
                expect("no.such.place" in str(e), f"the error does not name the place: {e}")
            else:
                raise AssertionError("activations at 'no.such.place' raises no BenchkitError")

    def test_the_weights_it_shows_have_names_and_roles(self) -> None:
        """Of a backbone that shows any (`anatomy`)."""
        layers = list(self.ready.anatomy())
        names = [layer.name for layer in layers]
        expect(len(set(names)) == len(names), f"anatomy() names a layer twice: {names}")
        known = {p.partition(".")[2].partition(".")[0] for p in self.ready.points() if p.startswith("blocks.")}
        for layer in layers:
            roles = get_args(WeightRole)
            expect(layer.role in roles, f"'{layer.name}' has the role '{layer.role}', and must have one of {roles}")
            inside = layer.block is None or not known or str(layer.block) in known
            expect(inside, f"'{layer.name}' is of block {layer.block}, and no place is: the blocks are {sorted(known)}")
            for what, array in (("weight", layer.weight), ("bias", layer.bias)):
                fine = array is None or (isinstance(array, np.ndarray) and array.dtype == np.float32)
                expect(fine, f"the {what} of '{layer.name}' must be a float32 array")

    def test_what_is_fine_tuned_is_a_copy_of_the_same_model(self) -> None:
        """Of a model that can be; and changing the copy changes its features, but not the model's."""
        if type(self.ready).trainable is Backbone.trainable:
            return
        import torch

        for modality in self.ready.modalities:
            batch, pooled = self.batch(modality), self.encoded(modality).pooled
            copied = self.ready.trainable()
            named = dict(copied.module.named_parameters())
            strange = {name: d for name, d in copied.depth_of.items() if name not in named or not 0 <= d <= copied.top}
            expect(not strange, f"depth_of has {strange}, of parameters and depths from 0 to {copied.top} that are not")
            trained = [named[name].requires_grad_() for name in copied.depth_of]
            x = torch.from_numpy(np.array(batch)).to(trained[0].device)
            ours = copied.pooled(x)
            expect_same(pooled, ours.detach().cpu().numpy(), self.tolerance, "features of encode and of trainable()")
            ours.square().sum().backward()
            touched = {d for name, d in copied.depth_of.items() if named[name].grad is not None}
            expect(0 in touched, f"no parameter at depth 0 gets a gradient, only at {sorted(touched)}")
            with torch.no_grad():
                for parameter in trained:
                    parameter.mul_(1.5)
                after = copied.pooled(x).cpu().numpy()
            gap = float(np.abs(after - pooled).max())
            expect(gap > 0, "the features of trainable() stay as they are when its parameters change")
            expect_same(pooled, self.encode(batch).pooled, self.tolerance, "features before and after training a copy")

    def test_the_fingerprint_is_of_the_weights_alone(self) -> None:
        print_ = self.ready.fingerprint()
        plain = isinstance(print_, str) and print_ and print_.isprintable()
        expect(plain, f"fingerprint() is {print_!r}, and must be a short text (benchkit.media.fingerprint makes one)")
        self.expect_same_in_a_fresh_process(self.make(), f"[x.setup({self.device!r}), x.fingerprint()][1]", print_)

    def test_other_weights_have_another_fingerprint(self) -> None:
        if self.other is None:
            return
        other = self._make(self.other)
        other.setup(self.device)
        expect(
            other.fingerprint() != self.ready.fingerprint(),
            f"two models with different weights have one fingerprint, '{other.fingerprint()}'",
        )

    # -------------------------------------------------------------------------------------------- what they work on

    @property
    def ready(self) -> Backbone:
        """An instance after setup."""
        return self.once("ready", self._set_up)

    def _set_up(self) -> Backbone:
        backbone = self.make()
        backbone.setup(self.device)
        return backbone

    def inputs(self, modality: Modality) -> dict[str, np.ndarray]:
        """Decoded examples by what they are; four of them at least, which a model should tell apart.

        Override it for a backbone that takes less than any recording or any image, as one of a single size does.
        """
        return waveforms(self.make().sample_rate or 16_000) if modality == "audio" else images()

    def batch(self, modality: Modality) -> np.ndarray:
        """Four preprocessed examples."""
        return self.once(f"batch {modality}", lambda: self._batch(modality))

    def _batch(self, modality: Modality) -> np.ndarray:
        backbone = self.make()
        return np.stack([preprocess(backbone, raw) for raw in list(self.inputs(modality).values())[:4]])

    def real(self, batch: np.ndarray, n_tokens: int) -> np.ndarray:
        """Which tokens are no padding, [B, T]."""
        found = checked_real_tokens(self.ready, np.array(batch), n_tokens)
        return np.ones((len(batch), n_tokens), bool) if found is None else found

    def encode(self, batch: np.ndarray, tokens: bool = False) -> Any:
        return unharmed(self.ready.encode, np.array(batch), tokens=tokens)

    def encoded(self, modality: Modality) -> Any:
        return self.once(f"encoded {modality}", lambda: self.encode(self.batch(modality)))


def check_backbone(which: Any, *, other: Any = None, device: str = "cpu", tolerance: float = 1e-4) -> None:
    """Every check, without pytest.

    which: the spec of an installed plugin, a class or an instance.
    other: likewise, with other weights. Raises AssertionError that lists what is wrong.
    """
    given = {"spec": which} if isinstance(which, str) else {"backbone": which}
    run_all(type("Checked", (BackboneSuite,), {**given, "other": other, "device": device, "tolerance": tolerance}))


def preprocess(backbone: Backbone, raw: np.ndarray) -> Any:
    return unharmed(backbone.preprocess, np.array(raw))


def waveforms(rate: int) -> dict[str, np.ndarray]:
    """Recordings at `rate` Hz by what they are, float32; the first four differ in what a model could tell."""
    rng = np.random.default_rng(0)
    t = np.arange(3 * rate) / rate
    waves: dict[str, np.ndarray] = {
        "a tone of 3 s": 0.5 * np.sin(2 * np.pi * 0.05 * rate * t),
        "noise of 5 s": 0.1 * rng.standard_normal(5 * rate),
        "a rising tone of 3 s": 0.3 * np.sin(2 * np.pi * 0.03 * rate * t * t),
        "noise of 0.1 s": 0.8 * rng.uniform(-1, 1, rate // 10),
        "silence of 1 s": np.zeros(rate),
        "a recording of 20 s": 0.2 * rng.standard_normal(20 * rate),
        "one sample": np.full(1, 0.5),
    }
    return {name: wave.astype(np.float32) for name, wave in waves.items()}


def images() -> dict[str, np.ndarray]:
    """Images by what they are, uint8 [H, W, 1 or 3]; the first four differ in what a model could tell."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 48)[:, None, None]
    pixels: dict[str, np.ndarray] = {
        "an RGB image of 32 x 48": rng.integers(0, 256, (32, 48, 3)),
        "a grey ramp of 48 x 40": np.repeat(ramp, 40, axis=1),
        "a red image of 64 x 64": np.broadcast_to(np.array([220, 20, 10]), (64, 64, 3)),
        "a grey image of 8 x 8": rng.integers(0, 256, (8, 8, 1)),
        "a black image of 20 x 20": np.zeros((20, 20, 3)),
        "a wide image of 5 x 300": rng.integers(0, 256, (5, 300, 3)),
        "one grey pixel": np.full((1, 1, 1), 128),
    }
    return {name: image.astype(np.uint8) for name, image in pixels.items()}
