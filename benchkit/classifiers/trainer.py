"""Trains many heads at once with AdamW: as batched matrix products, each head as it would be by itself.

Heads differ in their examples, seeds, learning rates, decays and lengths; nothing of one reaches another. A stream
whose steps are over leaves the batch, so that few-shot heads cost little beside those trained on everything.

On a CPU every kernel runs on one core, and streams are shared out over the cores where there is work enough. A kernel
that is cut into parts for several cores rounds otherwise, by how it is cut, and training can blow that up until a head
is not what it would be by itself; and small kernels on cores that are busy wait for each other most of the time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64

from benchkit.classifiers.losses import Balance, LossFunction
from benchkit.classifiers.nets import Net, Weights
from benchkit.classifiers.streams import Stream, aligned, next_block
from benchkit.machine.float32 import fast_float32
from benchkit.machine.seeds import Purpose, generator

BLOCK = 64
"""Steps whose minibatches are drawn at a time."""

CPU_MEMORY = 2 * 2**30
"""Bytes that heads trained at the same time on a CPU may take together: more would be no faster."""

SHARED = 5e7
"""Operations of a step of all streams from which on they are worth sharing out: below, Python itself takes longer."""

FUSED = 8192
"""Numbers of one head's tensor from which on it is large: a CPU updates it in one pass over memory, head by head, and
not by one operation after the other over all heads, each a pass of its own."""

FAST_PRODUCT = 16**3
"""Multiplications of a product above which `fast_float32` changes it (torch's mkldnn_gemm_min_size)."""

Share = list[tuple[int, range]]
"""Streams, and which of their heads."""


@runtime_checkable
class Examples(Protocol):
    """Prepared features and labels, wherever they are."""

    def take(self, rows: Int64[np.ndarray, "S B"]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [S, B, ...] and labels [S, B] or [S, B, C] of these rows, on the device, for as long as the same
        thread does not ask for others."""


@dataclass(frozen=True)
class Trained:
    """One head after training. weights: one [...] for each name."""

    weights: dict[str, torch.Tensor]
    record: dict[str, Any]
    broke: int | None = None
    """The first step, from 1, whose loss was not finite."""

    @property
    def finite(self) -> bool:
        return all(bool(torch.isfinite(w).all()) for w in self.weights.values())


def train(
    net: Net, loss: LossFunction, examples: Examples, streams: Sequence[Stream], device: str
) -> list[list[Trained]]:
    """The trained heads of each stream."""
    found: dict[tuple[int, int], Trained] = {}
    stop = threading.Event()

    def train_share(share: Share) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            parts = [replace(streams[i], heads=tuple(streams[i].heads[h] for h in heads)) for i, heads in share]
            run = _Run(net, loss, examples, parts, device, stop)
            while run.live and not stop.is_set():
                run.advance()
        for (i, heads), result in zip(share, run.results, strict=True):
            found.update({(i, h): trained for h, trained in zip(heads, result, strict=True)})

    workers = torch.get_num_threads() if device.startswith("cpu") else 1
    batches = _batches(net, streams, free_memory(device) // workers)
    shares = [share for batch in batches for share in _shares(net, streams, batch, workers)]
    # torch chooses a product's library by how large it is with all that is stacked: a head's own must suffice.
    fast = net.smallest_product(aligned(1)) > FAST_PRODUCT
    with (
        fast_float32(device) if fast else nullcontext(),
        _one_thread_each() if device.startswith("cpu") else nullcontext(),
    ):
        if len(shares) == len(batches):
            for share in shares:
                train_share(share)
        else:
            _train_at_once(train_share, shares, workers, stop)
    return [[found[i, h] for h in range(len(stream.heads))] for i, stream in enumerate(streams)]


def _train_at_once(
    train_share: Callable[[Share], None], shares: list[Share], workers: int, stop: threading.Event
) -> None:
    with ThreadPoolExecutor(workers, "benchkit-train") as pool:
        futures = [pool.submit(train_share, share) for share in shares]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C too: the others must not go on for minutes
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def free_memory(device: str) -> int:
    """Bytes that training may take."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.startswith("cuda") else CPU_MEMORY


def _batches(net: Net, streams: Sequence[Stream], limit: int) -> list[list[int]]:
    """Streams that are trained at the same time: of as many heads and as large batches each, and together within
    `limit` bytes (one alone may need more)."""
    alike: dict[tuple[int, int], list[list[int]]] = {}
    for i, stream in enumerate(streams):
        batches = alike.setdefault((len(stream.heads), stream.batch), [[]])
        needs = 4 * len(stream.heads) * net.floats(stream.batch)
        if batches[-1] and (len(batches[-1]) + 1) * needs > limit:
            batches.append([])
        batches[-1].append(i)
    return [batch for batches in alike.values() for batch in batches]


def _shares(net: Net, streams: Sequence[Stream], batch: list[int], n: int) -> list[Share]:
    """The batch in at most `n` shares, where that is worth it: whole streams to each, or a part of every stream's
    heads, whichever makes the largest share smaller."""
    n_heads = len(streams[batch[0]].heads)
    whole = [(i, range(n_heads)) for i in batch]
    if n == 1 or len(batch) * n_heads * net.operations(streams[batch[0]].batch) < SHARED:
        return [whole]
    by_stream: list[Share] = [[] for _ in range(min(n, len(batch)))]
    steps = [0] * len(by_stream)
    for i, heads in sorted(whole, key=lambda one: -streams[one[0]].steps):
        least = steps.index(min(steps))
        by_stream[least].append((i, heads))
        steps[least] += streams[i].steps
    each = -(-n_heads // n)
    if max(steps) * n_heads <= sum(steps) * each:
        return by_stream
    return [[(i, range(h, min(h + each, n_heads))) for i in batch] for h in range(0, n_heads, each)]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """torch's kernels on one core each, until it is over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The weights and AdamW's moments of all streams that still have steps to go."""

    def __init__(
        self,
        net: Net,
        loss: LossFunction,
        examples: Examples,
        streams: Sequence[Stream],
        device: str,
        stop: threading.Event,
    ) -> None:
        self.net, self.loss, self.examples, self.device, self.stop = net, loss, examples, device, stop
        self.streams = list(streams)
        self.live = list(range(len(streams)))
        self.minibatches = [s.minibatches() for s in streams]
        self.best = [_Best(s) for s in streams]
        self.broke: list[list[int | None]] = [[None] * len(s.heads) for s in streams]
        self.history: list[list[np.ndarray]] = [[] for _ in streams]
        self.results: list[list[Trained]] = [[] for _ in streams]
        self.done = 0
        first = [net.init(generator(s.seed, Purpose.INIT)) for s in streams]
        for weights_of, s in zip(first, streams, strict=True):
            if s.prior is not None:
                weights_of["bias"] = weights_of["bias"] + s.prior
        n_heads = len(streams[0].heads)
        self.w = {
            name: torch.from_numpy(np.stack([f[name] for f in first]))[:, None]
            .expand(-1, n_heads, *first[0][name].shape)
            .to(device)
            .clone(memory_format=torch.contiguous_format)
            .requires_grad_()
            for name in first[0]
        }
        self.m = {name: torch.zeros_like(w) for name, w in self.w.items()}
        self.shared = {name for name in self.w if net.shares(name)}
        self.v = {name: torch.zeros_like(w[..., :1] if name in self.shared else w) for name, w in self.w.items()}
        self.step_of = {name: torch.zeros_like(w) for name, w in self.w.items() if not self._is_fused(name)}
        rates = {name: torch.tensor([[net.rate(name, h) for h in s.heads] for s in streams]) for name in self.w}
        self.peak, self.decay = ({name: r[:, :, i].to(device) for name, r in rates.items()} for i in (0, 1))
        self.columns = {name: net.decayed(name, streams[0].params) for name in self.w}
        self.balance: Balance | None = None
        if weights := [s.balance for s in streams if s.balance is not None]:
            both = torch.from_numpy(np.stack(weights, axis=1)).to(device)
            self.balance = Balance(both[0], both[1])

    def advance(self) -> None:
        """Some steps, up to the next at which a stream ends or is validated."""
        live = [self.streams[i] for i in self.live]
        stops = [s.steps for s in live]
        stops += [(self.done // s.steps_per_epoch + 1) * s.steps_per_epoch for s in live if len(s.split.val)]
        steps = min(BLOCK, min(stops) - self.done)
        rows, weights = next_block([self.minibatches[i] for i in self.live], self.streams[0].batch, steps)
        rates = [[(s.rate(self.done + k), s.floor(self.done + k)) for s in live] for k in range(steps)]
        weights_ks1b = torch.from_numpy(weights)[:, :, None].to(self.device)
        rates_ks2 = torch.tensor(rates, dtype=torch.float32, device=self.device)
        losses = []
        for k in range(steps):
            if self.stop.is_set():
                return
            losses.append(self._step(rows[k], weights_ks1b[k], rates_ks2[k], self.done + k + 1))
        losses_ksl = torch.stack(losses).cpu().numpy()
        self._look_for_breaks(losses_ksl)
        self.done += steps
        for s, i in enumerate(self.live):
            self.history[i].append(losses_ksl[:, s])
            self.history[i] = self._last_epoch(i)
        self._validate()
        self._retire()

    def _look_for_breaks(self, losses_ksl: Float[np.ndarray, "k S L"]) -> None:
        for k, s, h in zip(*np.nonzero(~np.isfinite(losses_ksl)), strict=True):
            broke = self.broke[self.live[s]]
            broke[h] = broke[h] or self.done + int(k) + 1

    def _last_epoch(self, i: int) -> list[np.ndarray]:
        return [np.concatenate(self.history[i])[-self.streams[i].steps_per_epoch :]]

    def _step(
        self,
        rows: Int64[np.ndarray, "S B"],
        weights_s1b: Float[torch.Tensor, "S 1 B"],
        rate_s2: Float[torch.Tensor, "S 2"],
        t: int,
    ) -> Float[torch.Tensor, "S L"]:
        """rate: the part of each tensor's peak that its learning rate is, and what is added to that."""
        x, y = self.examples.take(rows)
        loss_sl = (self.loss(self.net.logits(self.w, x), y, self.balance) * weights_s1b).sum(dim=2)
        penalty = self.net.penalty(self.w)
        total_sl = loss_sl if penalty is None else loss_sl + penalty
        gradients = dict(zip(self.w, torch.autograd.grad(total_sl.sum(), list(self.w.values())), strict=True))
        with torch.no_grad():
            self._clip(gradients)
            for name, g in gradients.items():
                self._adamw(name, g, rate_s2, t)
        return loss_sl.detach()

    def _clip(self, gradients: dict[str, torch.Tensor]) -> None:
        limit = self.streams[0].params.grad_clip
        if limit:
            norm_sl = torch.stack([_square_sum(g) for g in gradients.values()]).sum(dim=0).sqrt()
            factor_sl = (limit / (norm_sl + 1e-6)).clamp(max=1.0).float()
            if not self.device.startswith("cuda") and bool((factor_sl == 1).all()):
                return  # a pass over all gradients; to look would stop a GPU
            for g in gradients.values():
                g *= _spread(factor_sl, g)

    def _adamw(self, name: str, g: torch.Tensor, rate_s2: torch.Tensor, t: int) -> None:
        """Loshchilov & Hutter, arXiv 1711.05101, algorithm 2, with a learning rate and decay for each head."""
        p = self.streams[0].params
        w, m, v = self.w[name], self.m[name], self.v[name]
        lr_sl = self.peak[name] * rate_s2[:, :1] + rate_s2[:, 1:]
        if self._is_fused(name):
            self._adamw_each(name, g, lr_sl, t)
            return
        correction = (1 - p.beta2**t) ** 0.5
        m.lerp_(g, 1 - p.beta1)
        step = self.step_of[name]
        if name in self.shared:
            v.lerp_(g.square().mean(dim=-1, keepdim=True), 1 - p.beta2)
            torch.div(m, v.sqrt().add_(p.eps * correction), out=step)
        else:
            v.mul_(p.beta2).addcmul_(g, g, value=1 - p.beta2)
            torch.sqrt(v, out=step).add_(p.eps * correction)
            torch.div(m, step, out=step)
        w[..., : self.columns[name]].mul_(_spread(1 - lr_sl * self.decay[name], w))
        w.addcmul_(step, _spread(lr_sl, w), value=-correction / (1 - p.beta1**t))

    def _is_fused(self, name: str) -> bool:
        return name not in self.shared and _is_fused(self.w[name])

    def _adamw_each(self, name: str, g: torch.Tensor, lr_sl: torch.Tensor, t: int) -> None:
        """The same for a large tensor: torch's own kernel, head by head."""
        p = self.streams[0].params
        step = torch.tensor(float(t))
        decay_sl = self.decay[name]
        if self.columns[name] is not None:
            w = self.w[name].detach()
            w[..., : self.columns[name]].mul_(_spread(1 - lr_sl * decay_sl, w))
            decay_sl = torch.zeros_like(decay_sl)
        tensors = (self.w[name].detach(), g.contiguous(), self.m[name], self.v[name])  # it reads them as they lie
        heads = zip(*(tensor.flatten(0, 1).unbind() for tensor in tensors), strict=True)
        rates = zip(lr_sl.flatten().tolist(), decay_sl.flatten().tolist(), strict=True)
        for (w, own_g, m, v), (lr, decay) in zip(heads, rates, strict=True):
            torch._fused_adamw_(
                [w], [own_g], [m], [v], [], [step], lr=lr, beta1=p.beta1, beta2=p.beta2, weight_decay=decay, eps=p.eps,
                amsgrad=False, maximize=False,
            )  # fmt: skip

    def _validate(self) -> None:
        with torch.no_grad():
            for s, i in enumerate(self.live):
                stream = self.streams[i]
                if len(stream.split.val) and self.done % stream.steps_per_epoch == 0:
                    w = {name: t[s : s + 1] for name, t in self.w.items()}
                    balance = self.balance and Balance(
                        self.balance.positive[s : s + 1], self.balance.negative[s : s + 1]
                    )
                    train_loss = self.history[i][0].mean(axis=0)
                    losses, right = self._judge(w, stream, balance)
                    judged = losses if stream.params.choose == "loss" else -right
                    self.best[i].look(judged, losses, train_loss, self.done // stream.steps_per_epoch, w)

    def _judge(
        self, w: Weights, stream: Stream, balance: Balance | None
    ) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
        """Mean loss on the held-out examples, and the share of them whose top class is right."""
        total, right = np.zeros(len(stream.heads)), np.zeros(len(stream.heads))
        step = max(stream.batch, 64)
        for start in range(0, len(stream.split.val), step):
            x, y = self.examples.take(stream.split.val[None, start : start + step])
            logits = self.net.logits(w, x)
            total += self.loss(logits, y, balance).sum(dim=2)[0].double().cpu().numpy()
            right += hits(logits, y).sum(dim=2)[0].double().cpu().numpy()
        return total / len(stream.split.val), right / len(stream.split.val)

    def _retire(self) -> None:
        """Takes the streams that are over out of the batch."""
        over = [self.done == self.streams[i].steps or self.best[i].stopped for i in self.live]
        if not any(over):
            return
        for s, i in enumerate(self.live):
            if over[s]:
                self.results[i] = [self._trained(s, i, h) for h in range(len(self.streams[i].heads))]
        keep = [s for s, is_over in enumerate(over) if not is_over]
        self.live = [self.live[s] for s in keep]
        with torch.no_grad():
            for tensors in (self.w, self.m, self.v, self.step_of, self.peak, self.decay):
                tensors.update({name: t[keep] for name, t in tensors.items()})
            if self.balance is not None:
                self.balance = Balance(self.balance.positive[keep], self.balance.negative[keep])
        for w in self.w.values():
            w.requires_grad_()

    def _trained(self, s: int, i: int, h: int) -> Trained:
        stream, best = self.streams[i], self.best[i].heads[h]
        broke = self.broke[i][h]
        if best.weights:
            return Trained(best.weights, best.record, broke)
        record = {
            "steps": self.done,
            "epochs": self.done // stream.steps_per_epoch,
            "train_loss": float(self.history[i][0][:, h].mean()),
        }
        return Trained({name: w[s, h].detach().clone() for name, w in self.w.items()}, record, broke)


@dataclass
class _BestHead:
    judged: float = float("inf")
    """Loss, or what is wrong, of the best epoch; counted: of the last one that was better by min_delta."""
    counted: float = float("inf")
    loss: float = float("inf")
    epoch: int = 0
    waited: int = 0
    stopped: bool = False
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


class _Best:
    """The best weights so far, on held-out examples, of each head of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.heads = [_BestHead() for _ in stream.heads]

    def look(
        self,
        judged: Float[np.ndarray, " L"],
        val_losses: Float[np.ndarray, " L"],
        train_losses: Float[np.ndarray, " L"],
        epoch: int,
        w: Weights,
    ) -> None:
        """A head that has stopped goes on being trained, for it is in the batch, but is not looked at any more."""
        for h, head in enumerate(self.heads):
            if head.stopped:
                continue
            if judged[h] < head.judged:
                head.judged, head.loss, head.epoch = float(judged[h]), float(val_losses[h]), epoch
                head.weights = {name: t[0, h].detach().clone() for name, t in w.items()}
            head.waited += 1
            if judged[h] + self.stream.params.min_delta < head.counted:
                head.counted, head.waited = float(judged[h]), 0
            head.stopped = head.waited >= self.stream.params.patience
            head.record = {
                "steps": epoch * self.stream.steps_per_epoch,
                "epochs": epoch,
                "train_loss": float(train_losses[h]),
                "val_loss": head.loss,
                "best_epoch": head.epoch,
            }

    @property
    def stopped(self) -> bool:
        return all(head.stopped for head in self.heads)


def hits(logits_slcb: torch.Tensor, targets: torch.Tensor) -> Float[torch.Tensor, "S L B"]:
    """1 where the top class is right (of several labels: one of them), else 0."""
    top_slb = logits_slcb.argmax(dim=2)
    if targets.ndim == 2:
        return (top_slb == targets[:, None]).float()
    heads = logits_slcb.shape[1]
    return targets.transpose(1, 2)[:, None].expand(-1, heads, -1, -1).gather(2, top_slb[:, :, None])[:, :, 0].float()


def _is_fused(w: torch.Tensor) -> bool:
    return w.device.type == "cpu" and w[0, 0].numel() >= FUSED


def _square_sum(g: torch.Tensor) -> Float64[torch.Tensor, "S L"]:
    """Of each head's numbers. In double precision: the order of a sum, which depends on its neighbours, must not show.
    Of a large matrix only what its rows add up to: its copy in double precision would take longer than its products.
    """
    if g.ndim > 3 and g[0, 0].numel() >= FUSED:
        g = torch.linalg.vector_norm(g, dim=-1)
    return g.flatten(2).double().square().sum(dim=2)


def _spread(value_sl: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[S, L] as [S, L, 1, ...], to multiply a tensor of weights with."""
    return value_sl.view(*value_sl.shape, *(1,) * (like.ndim - 2))
