"""float32 arithmetic in torch: as exact as its name says, and as fast as this processor can be at that.

Everything here does nothing where torch is not loaded: a backbone in JAX needs none of it.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

ROUNDED = 1e-3
"""Largest error of a product of 512 standard normal numbers that float32 may have: it has 1e-5, bfloat16 0.05."""

_SHAPES = ((1, 1, 512, 64), (1, 16, 512, 64), (1, 96, 512, 512), (6, 64, 512, 33), (1, 300, 512, 21))
"""Matrices in a batch, rows, inner size and columns of the products that are tried."""

_lock = threading.Lock()
_users = 0
_set = False


def whole_float32() -> None:
    """torch rounds the float32 convolutions of a GPU to TF32's 10 bits unless it is told otherwise: that would be a
    precision that no name shows, and other features than a CPU's. A backbone that wants less names it as a parameter.
    """
    if torch := sys.modules.get("torch"):
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def fast_float32(device: str) -> Iterator[None]:
    """Inside it, torch's float32 matrix products on a CPU go to oneDNN instead of MKL, where that is no less exact.

    On an AMD processor with AVX-512 oneDNN's are twice as fast as MKL's (bench/float32.py); on Intel's MKL uses AVX-512
    itself. torch hands them to oneDNN only where it may round their factors to bfloat16 ("medium"); oneDNN has
    such kernels for processors with AMX, and for others it takes those of float32. That this is so is tried here, once
    a process (`_exact`); where it is not, or somebody has already chosen a precision, everything stays as it is.
    """
    global _users, _set
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cpu") or not _has_idle_avx512(torch):
        yield
        return
    with _lock:
        if _users == 0 and _chosen(torch) == "highest" and _exact(torch):
            torch.set_float32_matmul_precision("medium")
            _set = True
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _set:
                torch.set_float32_matmul_precision("highest")
                _set = False


@cache
def _has_idle_avx512(torch: Any) -> bool:
    """Whether this is an AMD processor with AVX-512 and without AMX."""
    try:
        has = torch.cpu.get_capabilities()
        return has["cpu_name"].startswith("AMD") and has["avx512_dq"] and not has["amx_tile"]
    except (AttributeError, KeyError):  # another kind of processor, or an earlier torch
        return False


def _chosen(torch: Any) -> str:
    """The precision that is set for all products; none where they have been set one by one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return ""


@cache
def _exact(torch: Any) -> bool:
    """Whether products keep float32's precision with the setting that lets them be rounded; leaves it at "highest"."""
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode():
            return all(_error(torch, *shape) < ROUNDED for shape in _SHAPES)
    finally:
        torch.set_float32_matmul_precision("highest")


def _error(torch: Any, s: int, m: int, k: int, n: int) -> float:
    """The largest of a product of standard normal numbers, each factor as it lies and transposed."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(s, m, k, generator=draw), torch.randn(s, n, k, generator=draw)
    exact = a.double() @ b.double().transpose(1, 2)
    ways = (a @ b.transpose(1, 2), (b @ a.transpose(1, 2)).transpose(1, 2), a @ b.transpose(1, 2).contiguous())
    return max(float((way - exact).abs().max()) for way in ways)
