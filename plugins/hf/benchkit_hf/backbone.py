"""`hf:ORG/NAME`: an encoder from the hub, or from a folder made by `save_pretrained`, with its own processor.

Nothing downloaded is executed unless the spec says `allow_remote_code=true`; weights are read as safetensors, or from
torch files with `weights_only`. Image processors run on Pillow, so that a machine with torchvision gives the same.
docs/hf.md has the types that are known, and each one's window, padding and pooling.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from benchkit import (
    Backbone,
    BenchkitError,
    Encoded,
    Layout,
    Modality,
    StatedInputs,
    Trainable,
    Weights,
    fingerprint,
    fingerprint_tensors,
    param,
    require,
)
from benchkit_hf import loading, trial
from benchkit_hf.blocks import anatomy, blocks_of, points, shown
from benchkit_hf.depths import depths
from benchkit_hf.families import Family, family_of
from benchkit_hf.recipes import Recipe, recipe_of
from benchkit_hf.splicing import replaced
from benchkit_hf.states import kept, stack_of
from benchkit_hf.truth import untrue


@dataclass(frozen=True)
class HFParams:
    checkpoint: str = param(
        help="ORG/NAME on the hub, or a folder made by save_pretrained",
        place=("*.json", "*.safetensors", "*.bin", "*.txt", "**/*.py"),
    )
    revision: str = param("main", help="commit, tag or branch on the hub; give a commit to pin it")
    pool: Literal["auto", "mean", "cls", "pooler"] = param(
        "auto",
        help="mean of the clip's or image's own tokens, the class token, or the model's own pooler; auto: the mean, or "
        "of convolutional networks their own pooling",
    )
    layer: int | None = param(
        None,
        help="hidden state that is pooled, 0 is the embedding, i the output of block i - 1 (none: the model's output)",
    )
    seconds: float = param(
        5.0, help="longer audio is cut there, shorter is padded as its family pads and pooled alone", low=0.1, high=600
    )
    dtype: Literal["float32", "bfloat16"] = param("float32", help="precision of the forward pass")
    compile: bool = param(
        False, help="compile the encoder with torch.compile (without layer=): minutes at the start, faster after"
    )
    init: Literal["pretrained", "random"] = param("pretrained", help="random: the architecture without its weights")
    seed: int = param(0, help="of init=random", low=0)
    allow_remote_code: bool = param(False, help="execute Python code that the repository brings")
    prefix_tokens: int | None = param(
        None, help="tokens before the patches or frames, for a model type not known here (0: there are none)", low=0
    )


class HF(Backbone):
    Params = HFParams
    version = 2
    modalities = ("image", "audio")
    params: HFParams

    def __init__(self, params: HFParams) -> None:
        require("transformers", "benchkit-hf")
        super().__init__(params)
        self._encoder: Any = None
        self._compiled: Any = None
        self._untrue: dict[int, dict[str, str]] = {}
        self._device = "cpu"
        self._dim = self._states = 0

    # ------------------------------------------------------------------------------------------- before the weights

    @cached_property
    def folder(self) -> Path:
        """Where configuration, processor and weights lie: the user's folder, or a snapshot from the hub."""
        local = Path(self.params.checkpoint).expanduser()
        if local.is_dir():
            return local
        from benchkit_hf.snapshot import snapshot

        return snapshot(self.params.checkpoint, self.params.revision, self.params.allow_remote_code)

    @cached_property
    def config(self) -> Any:
        return loading.config_of(self.params.checkpoint, self.folder, self.params.allow_remote_code)

    @cached_property
    def family(self) -> Family:
        return family_of(self.config, self.params.prefix_tokens)

    @cached_property
    def processor(self) -> Any:
        p = self.params
        return loading.processor_of(p.checkpoint, self.folder, p.allow_remote_code, self.family.how)

    @cached_property
    def recipe(self) -> Recipe:
        p = self.params
        return recipe_of(p.checkpoint, self.family, self.config, self.processor, p.seconds)

    @property
    def sample_rate(self) -> int | None:  # type: ignore[override]
        return getattr(self.processor, "sampling_rate", None)

    @property
    def seconds(self) -> float:  # type: ignore[override]
        return self.params.seconds

    def preprocess(self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]) -> np.ndarray:
        takes = "images" if self.sample_rate is None else "audio"
        if (raw.ndim == 3) != (takes == "images"):
            raise BenchkitError(f"model 'hf:{self.params.checkpoint}' takes {takes}, and the task gives something else")
        if raw.ndim == 3 and raw.shape[2] not in (1, 3):
            raise BenchkitError(
                f"model 'hf:{self.params.checkpoint}' takes images of 1 or 3 channels, not {raw.shape[2]}"
            )
        return self.recipe.prepare(raw)

    # -------------------------------------------------------------------------------------------------- the encoder

    def setup(self, device: str) -> None:
        import torch

        p, part = self.params, self.family.part
        _ = self.recipe  # a processor that is missing, before weights that are large
        missing: list[str] = []
        if self.family.masks:
            self.config.mask_ratio = 0.0
        if p.init == "random":
            model = loading.random_model(p.checkpoint, self.config, p.allow_remote_code, self.family, p.seed)
        else:
            model, missing = loading.pretrained_model(
                p.checkpoint, self.folder, self.config, p.allow_remote_code, self.family
            )
        encoder = getattr(model, part) if part else model
        self._check_layer(encoder)
        self._encoder, self._device = encoder.eval().requires_grad_(False), "cpu"
        if missing:
            self._without(missing)
        loading.cast(self._encoder, getattr(torch, p.dtype)).to(device)
        self._device = device
        self._try()
        if p.compile and p.layer is None:
            self._compiled = torch.compile(self._encoder)  # beside the plain one: hooks and training need that

    def _check_layer(self, encoder: Any) -> None:
        layer, n = self.params.layer, len(stack_of(encoder))
        if layer is not None and n and not 0 <= layer <= n:
            raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has hidden states 0 to {n}, not {layer}")

    def _example(self) -> Any:
        """One preprocessed example of noise, on the device, [1, ...]. Raises BenchkitError for a processor that draws
        random numbers, or does not hear all of a clip."""
        import torch

        p = self.params
        with loading.readable(p.checkpoint, "processor"):
            raw = trial.example(self.sample_rate, p.seconds)
            made, again = self.recipe.prepare(raw.copy()), self.recipe.prepare(raw.copy())
            tail = None
            if self.sample_rate is not None:
                raw[-len(raw) // 10 :] *= -2
                tail = self.recipe.prepare(raw)
            trial.whole_clip(p.checkpoint, p.seconds, made, again, tail)
        return torch.from_numpy(made[None]).to(self._device)

    def _without(self, missing: Sequence[str]) -> None:
        """Sets tensors to 0 that the checkpoint lacks and no feature depends on (those of training alone, of another
        layer, of an unused pooler). Raises BenchkitError where one depends on them, or it is no parameter."""
        import torch

        named = dict(self._encoder.named_parameters())
        lacking = {k: named[k].requires_grad_() for k in missing if k in named}
        used = [k for k in missing if k not in named]
        if lacking:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                made = [x.float().sum() for x in self._attempt(self._example()) if x is not None and x.requires_grad]
                if made:
                    gradients = torch.autograd.grad(sum(made), list(lacking.values()), allow_unused=True)
                    used += [k for k, g in zip(lacking, gradients, strict=True) if g is not None]
        if used:
            raise loading.lacks(self.params.checkpoint, sorted(used))
        with torch.no_grad():
            for parameter in lacking.values():
                parameter.requires_grad_(False).zero_()

    def _attempt(self, x: Any) -> tuple[Any, Any]:
        """Features of a first batch, None for a pooling that the model does not have (`encode` says so). What a model's
        forward pass raises becomes one line."""
        name, kind = self.params.checkpoint, self.config.model_type
        try:
            made = self._read(x)
            return (None if isinstance(made[0], BenchkitError) else made[0]), made[1]
        except BenchkitError:
            raise
        except Exception as e:
            if isinstance(e, MemoryError) or "OutOfMemory" in type(e).__name__:
                raise
            raise trial.refuse(
                name,
                f"a model of type '{kind}' does not run on {'audio' if self.sample_rate else 'images'} alone, as its "
                f"processor gives it ({type(e).__name__}: {' '.join(str(e).split())[:300]})",
            ) from e

    def _try(self) -> None:
        """Runs one example twice, counts its tokens, and looks for their order. Raises BenchkitError."""
        import torch

        name, family, p = self.params.checkpoint, self.family, self.params
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            x = self._example()
            pooled, patches = self._attempt(x)
            again = self._attempt(x)
            self._dim = int((patches if pooled is None else pooled).shape[-1])
            trial.same_twice(name, patches, again[1])
            if pooled is not None:
                trial.same_twice(name, pooled[:, None], again[0][:, None])
            expected = self.recipe.expected_tokens()
            if p.layer is None and expected is not None and patches.shape[1] != expected:
                raise trial.refuse(name, f"it gives {patches.shape[1]} tokens of a clip, not {expected}")
            if p.layer is not None or self.sample_rate is not None or x.ndim != 4:
                return
            config = self._encoder.config
            grid = trial.grid_of(config, x.shape)
            if grid is None or family.own:
                return
            asked = p.prefix_tokens is not None
            cells = trial.cells_of(
                name, grid, patches.shape[1], family.prefix, merges=hasattr(config, "depths"), asked=asked
            )
            if cells[0] * cells[1] > 3:
                changed, chosen = trial.changed_images(x, cells)
                trial.in_order(name, patches, self._attempt(changed)[1], chosen)

    @property
    def dim(self) -> int:
        if not self._dim:
            raise BenchkitError("the model is not set up yet")
        return self._dim

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        import torch

        with torch.inference_mode():
            pooled, patches = self._features(self._on_device(batch), self._compiled)
        return Encoded(_numpy(pooled), _numpy(patches) if tokens else None)

    def real_tokens(self, batch: np.ndarray, n_tokens: int) -> Bool[np.ndarray, "B T"] | None:
        import torch

        real = self.recipe.real(torch.from_numpy(np.ascontiguousarray(batch)), n_tokens)
        return None if real is None else np.asarray(real.numpy())

    def model_inputs(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate(self.recipe.given(batch))

    def stated_inputs(self) -> StatedInputs:
        stated, trained = self.recipe.stated(), getattr(self.config, "sampling_rate", None) or self.family.rate
        doubts = loading.doubts_of(loading.stated(self.folder), self.sample_rate, trained)
        return replace(stated, doubts=(*stated.doubts, *doubts))

    def trainable(self) -> Trainable:
        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        other = copy.copy(self)
        other._encoder, other._compiled = copy.deepcopy(self._encoder).float(), None
        depth_of, top = depths(other._encoder, self.params.layer)
        return Trainable(other._encoder, lambda x: other._features(x)[0], depth_of, top)

    def _features(self, x: Any, encoder: Any = None) -> tuple[Any, Any]:
        """Pooled features and patches, as torch tensors on the device. encoder: the compiled one, if wanted."""
        pooled, patches = self._read(x, encoder)
        if isinstance(pooled, BenchkitError):
            raise pooled
        return pooled, patches

    def _read(self, x: Any, encoder: Any = None) -> tuple[Any, Any]:
        """The same; or, for a pooling that the model does not have, the error."""
        layer, pool = self.params.layer, self.params.pool
        output, states = self._forward(x, () if layer is None else (layer,), encoder)
        sequence, prefix = self._sequence(output.last_hidden_state if layer is None else states[layer])
        patches = sequence[:, prefix:]
        if pool == "mean" or (pool == "auto" and not (self.family.own and layer is None)):
            return _mean(patches, self.recipe.real(x, patches.shape[1])), patches
        name = f"model 'hf:{self.params.checkpoint}'"
        if pool == "cls":
            found = self.family.cls and prefix
            return sequence[:, 0] if found else BenchkitError(f"{name} has no class token: use pool=mean"), patches
        pooled = getattr(output, "pooler_output", None)
        if pooled is None or layer is not None:
            return BenchkitError(f"{name} has no pooler for this layer: use pool=mean"), patches
        return pooled.flatten(1), patches

    @property
    def prefix_tokens(self) -> int:  # type: ignore[override]
        return self.family.prefix

    def points(self) -> tuple[str, ...]:
        """After `setup`. The hidden states: `embeddings` and `blocks.N.resid_post`; in the blocks of pre-norm encoders
        also what benchkit_hf.blocks.PLACES names, and the `norm` behind them."""
        if self._encoder is None:
            return ("embeddings",)
        if found := points(self._encoder):
            return found
        return ("embeddings", *(f"blocks.{i}.resid_post" for i in range(len(stack_of(self._encoder)))))

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        known = self.points()
        for point in points:
            if point not in known:
                raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has no place '{point}' ({', '.join(known)})")
        import torch

        self._hold_to(batch, points)
        places = bool(blocks_of(self._encoder))
        numbers = {p: 0 if p == "embeddings" else known.index(p) for p in points if p == "embeddings" or not places}
        with torch.inference_mode(), shown(self._encoder, points) as found:
            states = self._forward(self._on_device(batch), tuple(numbers.values()))[1]
        found |= {p: states[i] for p, i in numbers.items()}
        return {p: _numpy(self._sequence(found[p])[0]) for p in points}

    def _hold_to(self, batch: np.ndarray, points: Sequence[str]) -> None:
        """Raises BenchkitError for a place inside a block that is not what it is called; each block is asked once."""
        import torch

        blocks = blocks_of(self._encoder)
        wanted = [p.split(".") for p in points if p.startswith("blocks.")] if blocks else []
        for number in sorted({int(parts[1]) for parts in wanted} - self._untrue.keys()):
            with torch.inference_mode():
                few = self._on_device(batch[:2])
                self._untrue[number] = untrue(self._encoder, number, lambda few=few: self._forward(few))
        for _, number, place in wanted:
            if why := self._untrue[int(number)].get(place):
                raise BenchkitError(
                    f"model 'hf:{self.params.checkpoint}': 'blocks.{number}.{place}' is not what it is called ({why}); "
                    f"'embeddings', 'blocks.{number}.resid_pre' and 'blocks.{number}.resid_post' are hidden states"
                )

    def spliced(
        self,
        batch: np.ndarray,
        point: str,
        replace: Callable[[Float32[np.ndarray, "B T D"]], Float32[np.ndarray, "B T D"]],
    ) -> Encoded:
        """At hidden states and norms: what attention and MLPs add is taken as differences, and is nowhere by itself."""
        import torch

        if point not in self.points():
            raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has no place '{point}'")
        self._hold_to(batch, [point])

        def other(x: Any) -> Any:
            seen, _ = self._sequence(x)
            if seen.shape != x.shape:
                raise BenchkitError(f"model 'hf:{self.params.checkpoint}' hears more than '{point}' shows: not spliced")
            return torch.from_numpy(replace(_numpy(x))).to(x.device, x.dtype)

        with torch.inference_mode(), replaced(self._encoder, stack_of(self._encoder), point, other):
            pooled, _ = self._features(self._on_device(batch))
        return Encoded(_numpy(pooled))

    def layout(self, modality: Modality) -> Layout | None:
        return self.recipe.layout()

    def anatomy(self) -> Iterator[Weights]:
        """Of encoders with pre-norm blocks known to benchkit_hf.blocks; of others nothing."""
        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        return anatomy(self._encoder)

    # ----------------------------------------------------------------------------------------------- what it is made of

    def fingerprint(self) -> str:
        """Of the weights, and of the files of configuration and processor."""
        weights = fingerprint_tensors((k, _numpy(v)) for k, v in sorted(self._encoder.state_dict().items()))
        return fingerprint([weights, loading.files_fingerprint(self.folder, self.params.allow_remote_code)])

    def feature_key(self) -> Mapping[str, str]:
        """Versions of what preprocesses and computes, where another one is known to give other features."""
        from importlib.metadata import PackageNotFoundError, version

        import transformers

        kind = type(self.processor)
        made = {"transformers": transformers.__version__, "processor": f"{kind.__module__}.{kind.__name__}"}
        for package in ("torchaudio", "torchvision"):  # used where they are, with other arithmetic
            try:
                made[package] = version(package)
            except PackageNotFoundError:
                continue
        return made

    def _on_device(self, batch: np.ndarray) -> Any:
        import torch

        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        return torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)

    def _forward(self, x: Any, wanted: Sequence[int] = (), encoder: Any = None) -> tuple[Any, Mapping[int, Any]]:
        """The model's output, and the hidden states of these numbers."""
        dtype = next(self._encoder.parameters()).dtype
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.recipe.arguments(x).items()}
        encoder = self._encoder if encoder is None else encoder
        if not wanted:
            return encoder(**given, return_dict=True), {}
        if stack_of(self._encoder):
            with kept(self._encoder, wanted) as states:
                return encoder(**given, return_dict=True), states
        output = encoder(**given, return_dict=True, output_hidden_states=True)
        n = len(output.hidden_states) - 1
        if not all(0 <= number <= n for number in wanted):
            raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has hidden states 0 to {n}, not {max(wanted)}")
        return output, dict(enumerate(output.hidden_states))

    def _sequence(self, states: Any) -> tuple[Any, int]:
        """Hidden states as [B, T, D], less those that no clip of `seconds` reaches; and how many tokens come before the
        patches. Maps, [B, D, H, W], have none."""
        if states.ndim == 4:
            return states.flatten(2).transpose(1, 2), 0
        return self.recipe.cut(states, self.family.prefix), self.family.prefix


def _mean(patches: Any, real: Any) -> Any:
    """Of each example's real tokens; None: of all."""
    if real is None or bool(real.all()):
        return patches.mean(dim=1)
    weight = (real / real.sum(dim=1, keepdim=True)).float()
    return (weight[..., None] * patches.float()).sum(dim=1).to(patches.dtype)


def _numpy(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16, torch.float64) else tensor).numpy()
