"""`hf:ORG/NAME`: an encoder from the hub, or from a folder made by `save_pretrained`, with its own processor.

Nothing downloaded is executed unless the spec says `allow_remote_code=true`; weights are read as safetensors, or from
torch files with `weights_only`. Image processors run on Pillow, so that a machine with torchvision gives the same.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import Backbone, BenchkitError, Encoded, Trainable, Weights, param, require
from benchkit_hf.blocks import anatomy, blocks_of, points, shown
from benchkit_hf.depths import depths
from benchkit_hf.families import Family, family_of


@dataclass(frozen=True)
class HFParams:
    checkpoint: str = param(
        help="ORG/NAME on the hub, or a folder made by save_pretrained",
        place=("*.json", "*.safetensors", "*.bin", "*.txt", "*.py"),
    )
    revision: str = param("main", help="commit, tag or branch on the hub; give a commit to pin it")
    pool: Literal["mean", "cls", "pooler"] = param(
        "mean", help="mean of the patch or frame tokens, the class token, or the model's own pooler"
    )
    layer: int | None = param(None, help="hidden state that is pooled, 0 is the embedding (none: the model's output)")
    seconds: float = param(
        5.0, help="audio is cut or zero-padded to this length before the processor", low=0.1, high=600
    )
    dtype: Literal["float32", "bfloat16"] = param("float32", help="precision of the forward pass")
    compile: bool = param(False, help="compile the encoder with torch.compile: minutes at the start, faster after")
    init: Literal["pretrained", "random"] = param("pretrained", help="random: the architecture without its weights")
    seed: int = param(0, help="of init=random", low=0)
    allow_remote_code: bool = param(False, help="execute Python code that the repository brings")
    prefix_tokens: int | None = param(None, help="tokens before the patches, for a model type not known here", low=0)


class HF(Backbone):
    Params = HFParams
    modalities = ("image", "audio")
    params: HFParams

    def __init__(self, params: HFParams) -> None:
        require("transformers", "benchkit-hf")
        super().__init__(params)
        self._encoder: Any = None
        self._compiled: Any = None
        self._device = "cpu"

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
        from transformers import AutoConfig

        with _readable(self.params.checkpoint, "configuration"):
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=self.params.allow_remote_code)

    @cached_property
    def family(self) -> Family:
        return family_of(self.config, self.params.prefix_tokens)

    @cached_property
    def processor(self) -> Any:
        from transformers import AutoFeatureExtractor, AutoImageProcessor

        trust = self.params.allow_remote_code
        with _readable(self.params.checkpoint, "processor"):
            try:
                return AutoFeatureExtractor.from_pretrained(self.folder, trust_remote_code=trust)
            except (ValueError, KeyError, AttributeError):  # not an audio model: transformers says so in many ways
                return AutoImageProcessor.from_pretrained(self.folder, trust_remote_code=trust, backend="pil")

    @property
    def sample_rate(self) -> int | None:  # type: ignore[override]
        return getattr(self.processor, "sampling_rate", None)

    def preprocess(self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]) -> np.ndarray:
        takes = "images" if self.sample_rate is None else "audio"
        if (raw.ndim == 3) != (takes == "images"):
            raise BenchkitError(f"model 'hf:{self.params.checkpoint}' takes {takes}, and the task gives something else")
        if raw.ndim == 3:
            image = np.repeat(raw, 3, axis=2) if raw.shape[2] == 1 else raw
            made = self.processor(images=image, input_data_format="channels_last", return_tensors="np")
        else:
            made = self.processor(self._fit(raw), sampling_rate=self.sample_rate, return_tensors="np")
        values = next(made[k] for k in ("pixel_values", "input_features", "input_values") if k in made)
        return np.asarray(values[0], dtype=np.float32)

    def _fit(self, wave: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " fixed"]:
        assert self.sample_rate is not None
        wanted = round(self.params.seconds * self.sample_rate)
        return np.pad(wave[:wanted], (0, max(0, wanted - len(wave))))

    # -------------------------------------------------------------------------------------------------- the encoder

    def setup(self, device: str) -> None:
        import torch

        self._device = device
        model = self._random() if self.params.init == "random" else self._pretrained()
        part = self.family.part
        encoder = getattr(model, part) if part else model
        layers = self.config.get_text_config().num_hidden_layers if part == "" else None
        if self.params.layer is not None and layers is not None and not 0 <= self.params.layer <= layers:
            raise BenchkitError(
                f"model 'hf:{self.params.checkpoint}' has hidden states 0 to {layers}, not {self.params.layer}"
            )
        self._encoder = encoder.eval().requires_grad_(False).to(device, getattr(torch, self.params.dtype))
        if self.params.compile:
            self._compiled = torch.compile(self._encoder)  # beside the plain one: hooks and training need that

    def _pretrained(self) -> Any:
        import torch
        from transformers import AutoModel

        with _readable(self.params.checkpoint, "weights"):
            model, info = AutoModel.from_pretrained(
                self.folder,
                trust_remote_code=self.params.allow_remote_code,
                dtype=torch.float32,
                output_loading_info=True,
            )
        part = f"{self.family.part}." if self.family.part else ""
        unused = () if self.params.pool == "pooler" else ("pooler.", f"{part}pooler.")
        missing = [
            k for k in sorted(info["missing_keys"]) if k.startswith(part) and not k.startswith(unused or ("\0",))
        ]
        extra = [k for k in sorted(info["unexpected_keys"]) if _of_encoder(k, model, part)]
        for keys, what in ((missing, "lacks"), (extra, "has an unknown tensor")):
            if keys:
                more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
                raise BenchkitError(f"the checkpoint '{self.params.checkpoint}' {what} '{keys[0]}'{more}")
        return model

    def _random(self) -> Any:
        import torch
        from transformers import AutoModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.params.seed)
            return AutoModel.from_config(self.config, trust_remote_code=self.params.allow_remote_code)

    @property
    def dim(self) -> int:
        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        return int(
            self._encoder.config.hidden_size
            if hasattr(self._encoder.config, "hidden_size")
            else self._encoder.config.d_model
        )

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        import torch

        with torch.inference_mode():
            pooled, patches = self._features(self._on_device(batch), self._compiled)
        return Encoded(_numpy(pooled), _numpy(patches) if tokens else None)

    def trainable(self) -> Trainable:
        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        other = copy.copy(self)
        other._encoder, other._compiled = copy.deepcopy(self._encoder).float(), None
        depth_of, top = depths(other._encoder, self.params.layer)
        return Trainable(other._encoder, lambda x: other._features(x)[0], depth_of, top)

    def _features(self, x: Any, encoder: Any = None) -> tuple[Any, Any]:
        """Pooled features and patches, as torch tensors on the device. encoder: the compiled one, if wanted."""
        output = self._forward(x, encoder)
        sequence = output.last_hidden_state if self.params.layer is None else output.hidden_states[self.params.layer]
        sequence = self._sequence(sequence)
        patches = sequence[:, self.family.prefix :]
        if self.params.pool == "mean":
            pooled = patches.mean(dim=1)
        elif self.params.pool == "cls":
            if not self.family.cls:
                raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has no class token: use pool=mean")
            pooled = sequence[:, 0]
        else:
            pooled = getattr(output, "pooler_output", None)
            if pooled is None or self.params.layer is not None:
                raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has no pooler for this layer: use pool=mean")
        return pooled, patches

    @property
    def prefix_tokens(self) -> int:  # type: ignore[override]
        return self.family.prefix

    def points(self) -> tuple[str, ...]:
        """After `setup`. The hidden states: `embeddings` and `blocks.N.resid_post`; in the blocks of pre-norm encoders
        also what benchkit_hf.blocks.PLACES names, and the `norm` behind them."""
        if self._encoder is not None and (found := points(self._encoder)):
            return found
        n = getattr(self._encoder.config, "num_hidden_layers", None) if self._encoder is not None else None
        return ("embeddings", *(f"blocks.{i}.resid_post" for i in range(n or 0)))

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        known = self.points()
        for point in points:
            if point not in known:
                raise BenchkitError(f"model 'hf:{self.params.checkpoint}' has no place '{point}' ({', '.join(known)})")
        import torch

        with torch.inference_mode(), shown(self._encoder, points) as found:
            states = self._forward(self._on_device(batch)).hidden_states
        if "embeddings" in points:
            found["embeddings"] = states[0]
        if not blocks_of(self._encoder):
            found |= {p: states[known.index(p)] for p in points}
        return {p: _numpy(self._sequence(found[p])) for p in points}

    def anatomy(self) -> Iterator[Weights]:
        """Of encoders with pre-norm blocks known to benchkit_hf.blocks; of others nothing."""
        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        return anatomy(self._encoder)

    def fingerprint(self) -> str:
        from benchkit import fingerprint_tensors

        return fingerprint_tensors((k, _numpy(v)) for k, v in sorted(self._encoder.state_dict().items()))

    def _on_device(self, batch: np.ndarray) -> Any:
        import torch

        if self._encoder is None:
            raise BenchkitError("the model is not set up yet")
        return torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)

    def _forward(self, x: Any, encoder: Any = None) -> Any:
        import torch

        x = x.to(next(self._encoder.parameters()).dtype)
        extra = {"is_longer": torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)} if self._is_clap else {}
        encoder = self._encoder if encoder is None else encoder
        return encoder(x, output_hidden_states=True, return_dict=True, **extra)

    @property
    def _is_clap(self) -> bool:
        return self.config.model_type.startswith("clap")

    def _sequence(self, states: Any) -> Any:
        """Hidden states as [B, T, D]: CLAP's are [B, D, H, W], and Whisper's go on long after the clip has ended."""
        if states.ndim == 4:
            states = states.flatten(2).transpose(1, 2)
        if self.family.frames_per_second is not None:
            states = states[:, : max(1, round(self.params.seconds * self.family.frames_per_second))]
        return states


def _of_encoder(key: str, model: Any, part: str) -> bool:
    """Whether a tensor the model does not know would belong to its encoder: heads trained on top are no concern."""
    base = key.removeprefix(f"{model.base_model_prefix}.")
    top = {name for name, _ in model.named_children()}
    return base.startswith(part) if part else base.split(".")[0] in top - {"pooler"}


def _numpy(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16, torch.float64) else tensor).numpy()


@contextmanager
def _readable(name: str, what: str) -> Iterator[None]:
    """transformers' many errors, as one line. Its messages for tensors of the wrong shape name them."""
    try:
        yield
    except BenchkitError:
        raise
    except Exception as e:
        text = " ".join(str(e).split())
        if "trust_remote_code" in text:
            raise BenchkitError(
                f"'hf:{name}' needs Python code that it brings: allow_remote_code=true executes it"
            ) from e
        raise BenchkitError(f"cannot load the {what} of 'hf:{name}': {text[:400]}") from e
