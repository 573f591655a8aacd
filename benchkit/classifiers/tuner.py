"""Trains a backbone and a linear head end to end. Shapes: B examples, D features, C classes, P trained numbers."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import nn
from torch.nn import functional as F

from benchkit.classifiers.data import Split
from benchkit.classifiers.losses import Balance, balanced, make_loss, name_of_loss
from benchkit.classifiers.normalise import fit_normaliser, plain_normaliser
from benchkit.classifiers.params import FinetuneParams
from benchkit.classifiers.streams import Stream
from benchkit.classifiers.token_table import layer_norm
from benchkit.classifiers.trainer import hits
from benchkit.errors import FitError, PluginError
from benchkit.features.batches import ahead, free
from benchkit.features.scratch import Scratch
from benchkit.interfaces import Fitted, Labels, Problem, Trainable
from benchkit.machine.float32 import fast_float32
from benchkit.machine.seeds import Purpose, generator
from benchkit.machine.trouble import is_out_of_memory

T = TypeVar("T")
ALIKE = 0.02
"""How far a copy's features may lie from those of `encode`, relative to their norm: half precision rounds."""


@dataclass(frozen=True, eq=False)
class State:
    """What the backbone is at one moment. weights: of the trained tensors, one behind the other, a memory map. buffers:
    what a module keeps beside its parameters, as running statistics."""

    weights: Float32[np.ndarray, " P"]
    buffers: Mapping[str, torch.Tensor]


class Head(nn.Module):
    """LayerNorm and standardisation, which are not trained, and a linear layer; in float32."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, n_classes: int, params: FinetuneParams) -> None:
        super().__init__()
        self.plain = plain_normaliser(params, dim)
        self.weight = nn.Parameter(torch.zeros(n_classes, dim))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, pooled_bd: Float[torch.Tensor, "B D"]) -> Float32[torch.Tensor, "B C"]:
        x_bd = pooled_bd.float()
        if self.plain.layer:
            x_bd = layer_norm(x_bd, self.plain.eps)
        return F.linear((x_bd - self.mean) * self.scale, self.weight, self.bias)


class Tuner:
    """The only copy of the backbone on the device, whichever fit's weights it holds at the moment. It is in evaluation
    mode throughout, however it came.

    encode: the frozen backbone's pooled features; those of the copy are held against them once, before the first step.
    """

    def __init__(
        self,
        trainable: Trainable,
        dim: int,
        params: FinetuneParams,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.trainable, self.dim, self.params, self.encode = trainable, dim, params, encode
        self.trainable.module.eval()
        self.parameters = _trained(trainable)
        self.device = next(iter(self.parameters.values())).device
        self.most = params.batch
        """Examples that go through the backbone at a time; fewer once memory did not suffice."""
        self._pretrained = self.save()
        self._loaded: State | None = None

    def fit(
        self, features: Shaped[np.ndarray, "N ..."], labels: Labels, problem: Problem, split: Split, seed: int
    ) -> "Tuned":
        """From the pretrained weights, on the split's rows. Raises FitError where that diverges or does not fit into
        memory, StoreError where the scratch folder cannot hold the weights."""
        self.load(self._pretrained)
        self._loaded = None
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            _deterministic(self.device),
            fast_float32(str(self.device)),
        ):
            self._compare(features, split)
            run = _Run(self, features, labels, problem, split, seed)
            state = run.train()
        softmax = name_of_loss(self.params, problem) == "cross-entropy"
        return Tuned(self, state, run.head, softmax, run.record | run.head.plain.record)

    def _compare(self, features: Shaped[np.ndarray, "N ..."], split: Split) -> None:
        """Raises PluginError where the copy's features of the first examples are not those of `encode`."""
        if self.encode is None:
            return
        encode, self.encode = self.encode, None
        batch = np.array(features[np.sort(split.train)[: min(self.params.batch, 16)]])
        frozen = np.asarray(encode(batch), np.float64)
        with torch.no_grad():
            parts = self.in_parts(
                len(batch), lambda part: self.trainable.pooled(torch.from_numpy(batch[part]).to(self.device))
            )
        ours = torch.cat(parts).double().cpu().numpy()
        if ours.shape == frozen.shape and np.isfinite(frozen).all():
            gap = float(np.linalg.norm(ours - frozen) / max(float(np.linalg.norm(frozen)), 1e-30))
            if gap <= ALIKE:
                return
            what = f"lie {gap:.2g} of their norm away from"
        else:
            what = f"are {list(ours.shape)}, finite {np.isfinite(ours).all()}, unlike"
        raise PluginError(
            f"the features of what trainable() gives {what} those of encode for the same {len(batch)} examples: its "
            "pooled() must make what encode() makes, with the module in evaluation mode"
        )

    def pooled(self, x: Shaped[np.ndarray, "B ..."]) -> Float[torch.Tensor, "B D"]:
        """The backbone's features, with its present weights and in the precision that was asked for."""
        batch = torch.from_numpy(np.array(x)).to(self.device)  # a copy: the map is read-only
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.precision == "bfloat16"):
            return self.trainable.pooled(batch)

    def in_parts(self, n: int, work: Callable[[slice], T]) -> list[T]:
        """What `work` makes of `n` examples, as many at a time as memory allows; begins again where it did not suffice.

        Raises FitError where it does not suffice for a single one.
        """
        while True:
            try:
                return [work(slice(at, at + self.most)) for at in range(0, n, self.most)]
            except Exception as e:
                if not is_out_of_memory(e):
                    raise
                if self.most == 1:
                    raise FitError(f"'{self.device}' has too little memory to fine-tune on one example: {e}") from e
            # Outside of the except clause: there, the exception's frames still hold what filled the memory.
            self.most = (min(self.most, n) + 1) // 2
            free(str(self.device))

    def save(self) -> State:
        """The present state, its weights in a scratch file."""
        buffers = {name: b.detach().cpu().clone() for name, b in self.trainable.module.named_buffers()}
        with Scratch(None, "fine-tuned weights") as scratch:
            for parameter in self.parameters.values():
                scratch.append(parameter.detach().cpu().numpy())
            size = sum(p.numel() for p in self.parameters.values())
            return State(scratch.map((size,), np.dtype(np.float32)), buffers)

    def load(self, state: State) -> None:
        """Makes this the present state."""
        self.trainable.module.eval()
        if state is self._loaded:
            return
        at = 0
        with torch.no_grad():
            for p in self.parameters.values():
                p.copy_(torch.from_numpy(np.array(state.weights[at : at + p.numel()])).view_as(p))
                at += p.numel()
            for name, buffer in self.trainable.module.named_buffers():
                buffer.copy_(state.buffers[name])
        self._loaded = state

    def groups(self, head: Head) -> list[dict[str, Any]]:
        """For torch's optimisers: the parameters with the learning rate and weight decay of each."""
        p = self.params
        found: dict[tuple[int, bool], list[nn.Parameter]] = {}
        matrices = _matrices(self.trainable.module)
        for name, parameter in self.parameters.items():
            decays = p.decay == "all" or id(parameter) in matrices
            found.setdefault((self.trainable.depth_of[name], decays), []).append(parameter)
        found.setdefault((self.trainable.top, True), []).append(head.weight)
        found.setdefault((self.trainable.top, p.decay == "all"), []).append(head.bias)
        return [
            {
                "params": parameters,
                "lr": p.lr * p.layer_decay ** (self.trainable.top - depth),
                "weight_decay": p.weight_decay if decays else 0.0,
            }
            for (depth, decays), parameters in found.items()
        ]


class Tuned(Fitted):
    """One fine-tuned model. Scores are log-probabilities where it was trained with cross-entropy, else logits."""

    def __init__(self, tuner: Tuner, state: State, head: Head, softmax: bool, record: Mapping[str, Any]) -> None:
        self.tuner, self.state, self.head, self.softmax, self.record = tuner, state, head, softmax, record

    def scores(self, x: Shaped[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        self.tuner.load(self.state)
        with torch.inference_mode(), fast_float32(str(self.tuner.device)):
            parts = self.tuner.in_parts(len(x), lambda part: self._scores(x[part]))
        return np.concatenate([np.zeros((0, len(self.head.bias)), np.float32), *parts])

    def _scores(self, x: Shaped[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B C"]:
        logits_bc = self.head(self.tuner.pooled(x))
        return (logits_bc.log_softmax(dim=1) if self.softmax else logits_bc).cpu().numpy()


class _Run:
    """One fit. `head` and `record` are its result after `train`, which gives the backbone's state."""

    def __init__(
        self,
        tuner: Tuner,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        split: Split,
        seed: int,
    ) -> None:
        self.tuner, self.features, self.labels, self.params = tuner, features, labels, tuner.params
        self.stream = Stream(split, seed, (tuner.params,))
        self.loss = make_loss(tuner.params, problem)
        self.balance: Balance | None = None
        if (weights := balanced(tuner.params, labels[split.train], problem)) is not None:
            both = torch.from_numpy(weights[:, None]).to(tuner.device)
            self.balance = Balance(both[0], both[1])
        self.head = self._first_head(problem.n_classes)
        p = tuner.params
        self.optimizer = torch.optim.AdamW(tuner.groups(self.head), betas=(p.beta1, p.beta2), eps=p.eps)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.record: dict[str, Any] = {}

    def _first_head(self, n_classes: int) -> Head:
        """Random, behind the normalisation of what the pretrained backbone makes of the training examples."""
        tuner = self.tuner
        head = Head(tuner.dim, n_classes, self.params)
        rng = generator(self.stream.seed, Purpose.INIT)
        std = self.params.init_std
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(std * rng.standard_normal(head.weight.shape)))
            rows = np.sort(self.stream.split.train)
            pooled = tuner.in_parts(len(rows), lambda p: tuner.pooled(self.features[rows[p]]).float().cpu().numpy())
            found = fit_normaliser(self.params, np.concatenate(pooled))
            if found.mean is not None and found.scale is not None:
                head.mean.copy_(torch.from_numpy(found.mean))
                head.scale.copy_(torch.from_numpy(found.scale))
        return head.to(tuner.device)

    def train(self) -> State:
        stream, losses = self.stream, []
        best: tuple[float, float, int, State, Head] | None = None
        counted, waited = float("inf"), 0
        minibatches = zip(range(stream.steps), stream.minibatches(), strict=False)
        with ahead(((step, r, self.features[r]) for step, r in minibatches), 2, lambda: None) as batches:
            for step, rows, x in batches:
                losses.append(self._step(step, rows, x))
                epoch, left = divmod(step + 1, stream.steps_per_epoch)
                if left:
                    continue
                loss = self._finite(
                    torch.stack(losses).mean().item(), first=losses[0].item() if step < len(losses) else 0.0
                )
                losses = []
                self.record = {"steps": step + 1, "epochs": epoch, "train_loss": loss}
                if not len(stream.split.val):
                    continue
                val, right = self._judge()
                judged = self._finite(val) if self.params.choose == "loss" else -right
                if best is None or judged < best[0]:
                    best = (judged, val, epoch, self.tuner.save(), copy.deepcopy(self.head))
                self.record |= {"val_loss": best[1], "best_epoch": best[2]}
                waited += 1
                if judged + self.params.min_delta < counted:
                    counted, waited = judged, 0
                if waited >= self.params.patience:
                    break
        state, self.head = (best[3], best[4]) if best else (self.tuner.save(), self.head)
        self._finite(float(state.weights.sum()))
        return state

    def _step(self, step: int, rows: np.ndarray, x: np.ndarray) -> torch.Tensor:
        """The minibatch's mean loss, before the step."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.stream.rate(step) + self.stream.floor(step)

        def backward(part: slice) -> torch.Tensor:
            if part.start == 0:
                self.optimizer.zero_grad()
            loss = self._losses(rows[part], x[part]).sum() / len(rows)
            loss.backward()
            return loss.detach()

        losses = self.tuner.in_parts(len(rows), backward)
        if self.params.grad_clip:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.params.grad_clip)
        self.optimizer.step()
        return torch.stack(losses).sum()

    def _losses(self, rows: np.ndarray, x: np.ndarray) -> Float32[torch.Tensor, " B"]:
        return self._looked_at(rows, x)[0]

    def _looked_at(self, rows: np.ndarray, x: np.ndarray) -> Float32[torch.Tensor, "2 B"]:
        """Each example's loss, and whether its top class is right."""
        logits_11cb = self.head(self.tuner.pooled(x)).T[None, None]
        targets = torch.from_numpy(self.labels[rows]).to(self.tuner.device)[None]
        loss = self.loss(logits_11cb, targets, self.balance)
        return torch.stack([loss[0, 0], hits(logits_11cb.detach(), targets)[0, 0]])

    def _judge(self) -> tuple[float, float]:
        """The mean loss of the held-out examples, and the share whose top class is right."""
        rows = self.stream.split.val
        with torch.no_grad():
            found = self.tuner.in_parts(len(rows), lambda p: self._looked_at(rows[p], self.features[rows[p]]))
        loss, right = torch.cat(found, dim=1).double().mean(dim=1).tolist()
        return loss, right

    def _finite(self, value: float, first: float = 0.0) -> float:
        """first: the loss before any step, where that is among what `value` is of."""
        if not np.isfinite(first):
            raise FitError(
                "the loss of fine-tuning is not finite before its first step: look at what the backbone makes of the "
                f"training examples in {self.params.precision}"
            )
        if not np.isfinite(value):
            raise FitError(f"fine-tuning diverged: give a learning rate below lr={self.params.lr:g}")
        return value


def _trained(trainable: Trainable) -> dict[str, nn.Parameter]:
    """The parameters that are to be trained, by name; gradients are asked for theirs alone. Raises PluginError."""
    named = dict(trainable.module.named_parameters())
    for name, depth in trainable.depth_of.items():
        if name not in named or not 0 <= depth <= trainable.top:
            raise PluginError(f"trainable() gives '{name}' the depth {depth} of 0 to {trainable.top}")
        if named[name].dtype != torch.float32:
            raise PluginError(f"trainable() gives '{name}' in {named[name].dtype}, not in float32")
    if not trainable.depth_of:
        raise PluginError("trainable() names no parameter to train")
    for name, parameter in named.items():
        parameter.requires_grad_(name in trainable.depth_of)
    return {name: p for name, p in named.items() if p.requires_grad}


def _matrices(module: nn.Module) -> set[int]:
    """The ids of what weight decay is for."""
    found = set()
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found.add(id(m.weight))
        elif isinstance(m, nn.MultiheadAttention) and m.in_proj_weight is not None:
            found.add(id(m.in_proj_weight))
    return found


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """The gradient of attention on a GPU is otherwise summed in an order that differs from run to run."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic", category=UserWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
