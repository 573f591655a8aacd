"""The batched Kaldi filterbank against torchaudio's, called clip by clip, in one run.

    python bench/fbank.py [--clips 64] [--rounds 7] [--device cpu] [--threads 2]

The baseline is how it is done today: a loop over clips around `torchaudio.compliance.kaldi.fbank`, with the settings
that Bird-MAE's feature extractor uses. Rounds of all contestants alternate, so that a busy machine slows all of them;
the ratio is of the medians, and the best round of each stands beside. torchaudio shares each operation among all
threads, which costs more than it brings as soon as the machine has anything else to do, so both are also measured with
one thread; of those two, the processor's time is what a busy machine leaves alone. On a GPU the baseline stays on the
CPU, where people call it.
"""

import argparse
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch

from benchkit.media.frontends.kaldi import Fbank, fbank

SETTINGS = Fbank(sample_rate=32_000)
SECONDS = 5
SINGLE = (("benchkit", "torchaudio, 1 thread"), ("benchkit, 1 thread", "torchaudio, 1 thread"))


def torchaudio_kaldi() -> Any:
    """torchaudio's module, or None where it is not installed.

    Where its compiled extension does not fit the installed torch, the extension is left out: `compliance.kaldi` is
    plain Python over torch and never calls it.
    """
    try:
        import torchaudio.compliance.kaldi as kaldi
    except ModuleNotFoundError as e:
        if e.name != "torchaudio":
            raise
        return None
    except OSError as e:
        print(f"torchaudio's compiled part does not load ({e}); its filterbank is plain Python and is used without it")
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        absent = types.ModuleType("torchaudio._extension")
        vars(absent).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda f: f)
        sys.modules[absent.__name__] = absent
        import torchaudio.compliance.kaldi as kaldi
    return kaldi


def clip_by_clip(kaldi: Any, waves: torch.Tensor) -> torch.Tensor:
    s = SETTINGS
    return torch.stack(
        [
            kaldi.fbank(
                wave[None],
                htk_compat=True,
                sample_frequency=s.sample_rate,
                use_energy=False,
                window_type=s.window,
                num_mel_bins=s.n_mels,
                dither=0.0,
                frame_shift=s.shift_ms,
            )
            for wave in waves
        ]
    )


def seconds(work: Callable[[], Any], threads: int, device: str) -> tuple[float, float]:
    """Of the clock and, of all threads together, of the processor."""
    torch.set_num_threads(threads)
    start, spent = time.perf_counter(), time.process_time()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    waves = 0.1 * torch.randn(args.clips, SECONDS * SETTINGS.sample_rate, generator=torch.Generator().manual_seed(0))
    placed = waves.to(args.device)
    kaldi = torchaudio_kaldi()

    work = {"benchkit": (lambda: fbank(placed, SETTINGS), args.threads)}
    if args.device == "cpu" and args.threads > 1:
        work["benchkit, 1 thread"] = (lambda: fbank(placed, SETTINGS), 1)
    if kaldi is not None:
        work["torchaudio"] = (lambda: clip_by_clip(kaldi, waves), args.threads)
        work["torchaudio, 1 thread"] = (lambda: clip_by_clip(kaldi, waves), 1)
    for run, threads in work.values():
        seconds(run, threads, args.device)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(args.rounds):
        for name, (run, threads) in work.items():
            taken[name].append(seconds(run, threads, args.device))
    median = {name: args.clips / statistics.median(wall for wall, _ in t) for name, t in taken.items()}
    best = {name: args.clips / min(wall for wall, _ in t) for name, t in taken.items()}
    spent = {name: 1000 * min(cpu for _, cpu in t) / args.clips for name, t in taken.items()}

    where = torch.cuda.get_device_name() if args.device != "cpu" else f"{platform.machine()}, {args.threads} threads"
    print(
        f"{args.clips} clips of {SECONDS} s at 32 kHz, {SETTINGS.n_mels} mel bins, torch {torch.__version__}, {where}"
    )
    print(f"  {'clips/s of ' + str(args.rounds) + ' rounds':22} {'median':>9} {'best':>9}   processor, least")
    for name in work:
        print(f"  {name:22} {median[name]:9,.0f} {best[name]:9,.0f} {spent[name]:8.2f} ms/clip")
    if kaldi is None:
        print("torchaudio is not installed, so there is no ratio: pip install torchaudio")
        return
    difference = (fbank(waves, SETTINGS) - clip_by_clip(kaldi, waves)).abs()
    print(f"largest difference {difference.max():.1e}, mean {difference.mean():.1e} (of the natural logarithm)")
    for ours, theirs in (("benchkit", "torchaudio"), *SINGLE):
        if ours in work:
            ratios = (median[ours] / median[theirs], best[ours] / best[theirs], spent[theirs] / spent[ours])
            print(f"ratio, {ours} to {theirs}: " + "median {:.1f}, best {:.1f}, processor {:.1f}".format(*ratios))


if __name__ == "__main__":
    main()
