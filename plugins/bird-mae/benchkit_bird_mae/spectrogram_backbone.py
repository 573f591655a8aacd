"""What the backbones over a spectrogram ViT have in common: everything but the recipe and where weights come from.

This module and those of the backbones import no torch: they are imported to read a spec.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from benchkit import Backbone, BenchkitError, Encoded, Layout, Modality, Trainable, Weights, did_you_mean, param
from benchkit_bird_mae.architecture import Architecture


@dataclass(frozen=True)
class EncoderParams:
    """Parameters that every spectrogram ViT has. A subclass adds where its weights come from."""

    pool: Literal["mean", "cls"] = param(
        "mean", help="mean: mean of the patch tokens, then fc_norm; cls: the class token after the final norm"
    )
    layer: int | None = param(
        None,
        low=0,
        help="block whose output is used, counted from 0 (as in blocks.N.resid_post); none is the last. "
        "Its pooled features pass the same norm as the last block's",
    )
    tokens: Literal["plain", "norm", "focal"] = param(
        "plain",
        help="patch tokens for token probes: plain as the block leaves them; norm after the final norm; "
        "focal after the final norm, less the class token (as in Bird-MAE's prototypical probing)",
    )
    init: Literal["pretrained", "random"] = param("pretrained", help="random: an untrained model, as a control")
    seed: int = param(0, low=0, help="of init=random")
    dtype: Literal["float32", "bfloat16"] = param(
        "float32", help="of matrix products and attention; the spectrogram, norms and residual stream stay float32"
    )

    compile: bool = param(False, help="compile the blocks with torch.compile: minutes at the start, faster after")

    def check(self, depth: int) -> None:
        """Drops a `layer` that names the last block, so that one model has one name. Raises ValueError."""
        if self.seed and self.init != "random":
            raise ValueError("seed is of init=random; pretrained weights have none")
        if self.layer is not None and self.layer >= depth:
            raise ValueError(f"layer is {self.layer}, and its {depth} blocks are 0 to {depth - 1}")
        if self.layer == depth - 1:
            object.__setattr__(self, "layer", None)


class SpectrogramBackbone(Backbone):
    """A frozen ViT over a log-mel spectrogram. The filterbank runs on the device, a batch at a time."""

    modalities: ClassVar[tuple[Modality, ...]] = ("audio",)
    prefix_tokens = 1
    params: Any
    module: Any = None
    """The benchkit_bird_mae.vit.ViT itself, after `setup`."""

    @property
    @abstractmethod
    def architecture(self) -> Architecture:
        """Known without loading weights. Raises BenchkitError for an unreadable configuration."""

    @property
    def stored(self) -> Architecture:
        """The checkpoint's, where another one runs."""
        return self.architecture

    @property
    @abstractmethod
    def samples(self) -> int:
        """Length of the clip that the model sees, at `sample_rate`."""

    @property
    def seconds(self) -> float:  # type: ignore[override]
        assert self.sample_rate is not None
        return self.samples / self.sample_rate

    @abstractmethod
    def recipe(self) -> Any:
        """The benchkit_bird_mae.spectrogram.Recipe."""

    @abstractmethod
    def pretrained(self) -> tuple[dict[str, Any], str]:
        """The checkpoint's tensors by name, and what it is called in an error. Raises BenchkitError."""

    def adapt(self, model: Any) -> None:
        """Makes of a model as `stored` one as `architecture`, in place."""

    @property
    def dim(self) -> int:
        return self.architecture.width

    def preprocess(
        self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, " clip"]:
        """The first `samples` of the waveform; where it is shorter, zeros behind it with a minus sign: `real_tokens`
        knows padding from silence by it, and the model sees no difference."""
        if raw.ndim != 1:
            raise BenchkitError(f"{type(self).__name__} takes audio, not an image of {'x'.join(map(str, raw.shape))}")
        clip = np.full(self.samples, -0.0, np.float32)
        clip[: len(raw)] = raw[: self.samples]
        return clip

    def real_tokens(self, batch: np.ndarray, n_tokens: int) -> Bool[np.ndarray, "B T"] | None:
        """Patches of whose frames none reaches into padding; the first ones in time at least."""
        padding = (batch == 0) & np.signbit(batch)
        if not padding[:, -1].any():
            return None
        fbank, (columns, _) = self.recipe().fbank, self.architecture.grid
        length = batch.shape[1] - np.where(padding.all(axis=1), batch.shape[1], (~padding)[:, ::-1].argmax(axis=1))
        frames = 1 + (length - fbank.frame) // fbank.shift
        known = np.where(length == batch.shape[1], columns, np.clip(frames // self.architecture.patch, 1, columns))
        real = np.arange(columns) < known[:, None]
        return np.repeat(real, n_tokens // columns, axis=1)

    def layout(self, modality: Modality) -> Layout:
        """Seconds of the frames that the patches hold: those of the clip, and of what it was padded with."""
        arch, fbank = self.architecture, self.recipe().fbank
        return Layout(
            ("time", "mel"), arch.grid, (arch.frames * fbank.shift / fbank.sample_rate, arch.mels), ("s", "mel"),
            f"the first {self.samples / fbank.sample_rate:g} s, padded at the end",
        )  # fmt: skip

    def setup(self, device: str) -> None:
        import torch

        from benchkit_bird_mae.vit import random_weights
        from benchkit_bird_mae.weights import build, digest

        if self.params.init == "random":
            weights, source = random_weights(self.stored, self.params.seed), "the random initialisation"
        else:
            weights, source = self.pretrained()
        model = build(self.stored, weights, source)
        self._fingerprint = digest(self.stored, model.state_dict())
        self.adapt(model)
        if self.params.dtype == "bfloat16":
            model.lower_precision(torch.bfloat16)
        try:
            self.module = model.to(device)
        except (RuntimeError, AssertionError) as e:  # torch raises either where it was built without the device
            raise BenchkitError(f"cannot use the device '{device}': {str(e).splitlines()[0]}") from e
        if self.params.compile:
            for block in self.module.blocks:
                block.compile()

    def forward(self, waves: Any, tap: Any = None) -> tuple[Any, Any]:
        """Waveforms on the module's device, a torch tensor [B, samples], as (pooled [B, D], tokens [B, T, D]). tap: see
        benchkit_bird_mae.vit.

        Gradients reach the module's parameters where those ask for them.
        """
        import torch

        from benchkit_bird_mae.spectrogram import spectrogram

        model = self._loaded()
        with torch.autocast(waves.device.type, enabled=False):  # levels need float32
            levels = spectrogram(waves, self.recipe())
        x = model(levels, last=self.params.layer, tap=tap)
        pooled = model.pool_mean(x) if self.params.pool == "mean" else model.pool_cls(x)
        if self.params.tokens == "plain":
            return pooled, x[:, 1:]
        normed = model.norm(x)
        return pooled, normed[:, 1:] - normed[:, :1] if self.params.tokens == "focal" else normed[:, 1:]

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        import torch

        with torch.inference_mode():
            pooled, patches = self.forward(self._on_device(batch))
            return Encoded(pooled.cpu().numpy(), patches.cpu().numpy() if tokens else None)

    def spliced(
        self,
        batch: np.ndarray,
        point: str,
        replace: Callable[[Float32[np.ndarray, "B T D"]], Float32[np.ndarray, "B T D"]],
    ) -> Encoded:
        import torch

        blocks = self.architecture.depth if self.params.layer is None else self.params.layer + 1
        if point not in self.points() or point == "norm" or int(point.split(".")[1]) >= blocks:
            raise BenchkitError(f"nothing goes on from '{point}' in {type(self).__name__}: name a place in its blocks")

        def tap(place: str, x: Any) -> Any:
            if place != point:
                return None
            return torch.from_numpy(replace(x.float().cpu().numpy())).to(x.device, x.dtype)

        with torch.inference_mode():
            pooled, _ = self.forward(self._on_device(batch), tap)
            return Encoded(pooled.cpu().numpy())

    def trainable(self) -> Trainable:
        """Positions stay as they are: they are fixed sines and cosines, which pretraining did not learn either."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self._loaded()).float()
        last = self.params.layer
        blocks = self.architecture.depth if last is None else last + 1
        depths = {name: _depth(name, blocks) for name, _ in other.module.named_parameters()}
        depth_of = {name: depth for name, depth in depths.items() if depth is not None}
        return Trainable(other.module, lambda waves: other.forward(waves)[0], depth_of, blocks + 1)

    def fingerprint(self) -> str:
        self._loaded()
        return self._fingerprint

    def points(self) -> tuple[str, ...]:
        """`blocks.N.` and resid_pre, norm1, attn_out, resid_mid, norm2, mlp_out or resid_post; and the final `norm`."""
        from benchkit_bird_mae.vit import points

        return points(self.architecture)

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        """At these places, class token first: T counts it. Only the blocks that lie before the last place are run."""
        import torch

        from benchkit_bird_mae.spectrogram import spectrogram

        known = self.points()
        for point in points:
            if point not in known:
                raise BenchkitError(
                    f"{type(self).__name__} of {self.architecture} has no place '{point}'{did_you_mean(point, known)}"
                )
        model = self._loaded()
        found: dict[str, np.ndarray] = {}

        def keep(point: str, x: Any) -> None:
            if point in points:
                found[point] = x.float().cpu().numpy()

        last = None if "norm" in points else max((int(point.split(".")[1]) for point in points), default=0)
        with torch.inference_mode():
            model(spectrogram(self._on_device(batch), self.recipe()), last=last, tap=keep)
        return {point: found[point] for point in points}

    def anatomy(self) -> Iterator[Weights]:
        from benchkit_bird_mae.anatomy import anatomy

        return anatomy(self._loaded())

    def _loaded(self) -> Any:
        if self.module is None:
            raise BenchkitError(f"{type(self).__name__} has no weights yet: call setup(device) first")
        return self.module

    def _on_device(self, batch: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self._loaded().cls_token.device)


def _depth(name: str, blocks: int) -> int | None:
    """How far from the input a parameter of the ViT is, of which so many blocks are used; None: it is not trained."""
    if name.startswith("blocks."):
        block = int(name.split(".")[1])
        return block + 1 if block < blocks else None
    if name == "pos_embed":
        return None
    return blocks + 1 if name.startswith(("norm.", "fc_norm.")) else 0
