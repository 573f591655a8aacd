"""Trains a backbone and a linear head end to end. Shapes: B examples, D features, C classes, P trained numbers."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import nn
from torch.nn import functional as F

from benchkit.classifiers.data import Split
from benchkit.classifiers.losses import make_loss, name_of_loss
from benchkit.classifiers.normalise import fit_normaliser
from benchkit.classifiers.params import FinetuneParams
from benchkit.classifiers.streams import Stream
from benchkit.errors import FitError, PluginError
from benchkit.features.batches import ahead, free
from benchkit.features.scratch import Scratch
from benchkit.interfaces import Fitted, Labels, Problem, Trainable
from benchkit.machine.float32 import fast_float32
from benchkit.machine.seeds import Purpose, generator
from benchkit.machine.trouble import is_out_of_memory

T = TypeVar("T")
Weights = Float32[np.ndarray, " P"]
"""Of the backbone, one tensor behind the other: a memory map."""


class Head(nn.Module):
    """LayerNorm and standardisation, which are not trained, and a linear layer; in float32."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, n_classes: int, params: FinetuneParams) -> None:
        super().__init__()
        self.layer, self.eps = params.norm in ("layer+standard", "layer"), params.norm_eps
        self.weight = nn.Parameter(torch.zeros(n_classes, dim))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, pooled_bd: Float[torch.Tensor, "B D"]) -> Float32[torch.Tensor, "B C"]:
        x_bd = pooled_bd.float()
        if self.layer:
            x_bd = F.layer_norm(x_bd, x_bd.shape[1:], eps=self.eps)
        return F.linear((x_bd - self.mean) * self.scale, self.weight, self.bias)


class Tuner:
    """The only copy of the backbone on the device, whichever fit's weights it holds at the moment."""

    def __init__(self, trainable: Trainable, dim: int, params: FinetuneParams) -> None:
        self.trainable, self.dim, self.params = trainable, dim, params
        self.parameters = _trained(trainable)
        self.device = next(iter(self.parameters.values())).device
        self.most = params.batch
        """Examples that go through the backbone at a time; fewer once memory did not suffice."""
        self._pretrained = self.save()
        self._loaded: np.ndarray | None = None

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
            run = _Run(self, features, labels, problem, split, seed)
            weights = run.train()
        softmax = name_of_loss(self.params, problem) == "cross-entropy"
        return Tuned(self, weights, run.head, softmax, run.record)

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

    def save(self) -> Weights:
        """The present weights, in a scratch file."""
        with Scratch(None, "fine-tuned weights") as scratch:
            for parameter in self.parameters.values():
                scratch.append(parameter.detach().cpu().numpy())
            return scratch.map((sum(p.numel() for p in self.parameters.values()),), np.dtype(np.float32))

    def load(self, weights: Weights) -> None:
        """Makes these the present weights."""
        if weights is self._loaded:
            return
        at = 0
        with torch.no_grad():
            for p in self.parameters.values():
                p.copy_(torch.from_numpy(np.array(weights[at : at + p.numel()])).view_as(p))
                at += p.numel()
        self._loaded = weights

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

    def __init__(self, tuner: Tuner, weights: Weights, head: Head, softmax: bool, record: Mapping[str, Any]) -> None:
        self.tuner, self.weights, self.head, self.softmax, self.record = tuner, weights, head, softmax, record

    def scores(self, x: Shaped[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        self.tuner.load(self.weights)
        with torch.inference_mode(), fast_float32(str(self.tuner.device)):
            parts = self.tuner.in_parts(len(x), lambda part: self._scores(x[part]))
        return np.concatenate([np.zeros((0, len(self.head.bias)), np.float32), *parts])

    def _scores(self, x: Shaped[np.ndarray, "B ..."]) -> Float32[np.ndarray, "B C"]:
        logits_bc = self.head(self.tuner.pooled(x))
        return (logits_bc.log_softmax(dim=1) if self.softmax else logits_bc).cpu().numpy()


class _Run:
    """One fit. `head` and `record` are its result after `train`, which gives the backbone's weights."""

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

    def train(self) -> Weights:
        stream, losses = self.stream, []
        best: tuple[float, int, np.ndarray, Head] | None = None
        minibatches = zip(range(stream.steps), stream.minibatches(), strict=False)
        with ahead(((step, r, self.features[r]) for step, r in minibatches), 2, lambda: None) as batches:
            for step, rows, x in batches:
                losses.append(self._step(step, rows, x))
                epoch, left = divmod(step + 1, stream.steps_per_epoch)
                if left:
                    continue
                loss = self._finite(torch.stack(losses).mean().item())
                losses = []
                self.record = {"steps": step + 1, "epochs": epoch, "train_loss": loss}
                if not len(stream.split.val):
                    continue
                val = self._finite(self._val_loss())
                if best is None or val < best[0]:
                    best = (val, epoch, self.tuner.save(), copy.deepcopy(self.head))
                self.record |= {"val_loss": best[0], "best_epoch": best[1]}
                if epoch - best[1] >= self.params.patience:
                    break
        weights, self.head = (best[2], best[3]) if best else (self.tuner.save(), self.head)
        self._finite(float(weights.sum()))
        return weights

    def _step(self, step: int, rows: np.ndarray, x: np.ndarray) -> torch.Tensor:
        """The minibatch's mean loss, before the step."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.stream.rate(step)

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
        logits_bc = self.head(self.tuner.pooled(x))
        targets = torch.from_numpy(self.labels[rows]).to(self.tuner.device)
        return self.loss(logits_bc.T[None, None], targets[None])[0, 0]

    def _val_loss(self) -> float:
        rows = self.stream.split.val
        with torch.no_grad():
            losses = self.tuner.in_parts(len(rows), lambda p: self._losses(rows[p], self.features[rows[p]]))
        return torch.cat(losses).double().mean().item()

    def _finite(self, value: float) -> float:
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
