"""Products of float32 stay float32, however they are computed; and nothing of torch's settings is left changed."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchkit.machine import float32
from benchkit.machine.float32 import _error, _exact, _has_idle_avx512, fast_float32


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch is tried on whatever processor this is."""
    monkeypatch.setattr(float32, "_has_idle_avx512", lambda _: True)


@pytest.mark.parametrize("m", [1, 7, 64, 700])
@pytest.mark.parametrize("k", [16, 768, 3072])
def test_products_have_float32s_precision_inside(any_processor: None, m: int, k: int) -> None:
    draw = torch.Generator().manual_seed(m)
    a, w = torch.randn(m, k, generator=draw), torch.randn(33, k, generator=draw)
    exact = a.double() @ w.double().T
    with fast_float32("cpu"):
        ways = a @ w.T, torch.nn.functional.linear(a, w), torch.bmm(a[None], w.T[None])[0]
    for way in ways:
        assert float((way - exact).abs().max()) < 2e-5 * k**0.5


def test_what_is_tried_tells_bfloat16_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _error(torch, 1, 64, 512, 64) < float32.ROUNDED / 5
    plain = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return plain(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else plain(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert _error(torch, 1, 64, 512, 64) > float32.ROUNDED * 5
    assert not _exact.__wrapped__(torch)
    assert torch.get_float32_matmul_precision() == "highest"


def test_it_is_on_inside_alone_also_when_nested_and_in_threads(any_processor: None) -> None:
    inside = "medium" if _exact(torch) else "highest"
    with fast_float32("cpu"):
        assert torch.get_float32_matmul_precision() == inside
        with fast_float32("cpu"):
            pass
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"
    at_once = threading.Barrier(8, timeout=30)
    seen: list[Any] = []

    def use() -> None:
        for _ in range(50):
            with fast_float32("cpu"):
                at_once.wait()
                seen.append(torch.get_float32_matmul_precision())
                at_once.wait()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400
    assert set(seen) == {inside}
    assert torch.get_float32_matmul_precision() == "highest"


def test_an_exception_inside_turns_it_off(any_processor: None) -> None:
    with pytest.raises(ZeroDivisionError), fast_float32("cpu"):
        _ = 1 / 0
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpus_products_are_left_alone(any_processor: None, device: str) -> None:
    with fast_float32(device):
        assert torch.get_float32_matmul_precision() == "highest"


def test_what_somebody_has_chosen_stays(any_processor: None) -> None:
    torch.set_float32_matmul_precision("high")
    with fast_float32("cpu"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "high"


def test_settings_made_one_by_one_stay() -> None:
    """In a process of its own: torch does not take it back."""
    code = """
import torch
from benchkit.machine import float32
float32._has_idle_avx512 = lambda _: True
torch.backends.mkldnn.matmul.fp32_precision = "bf16"
with float32.fast_float32("cpu"):
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_processors_are_left_alone() -> None:
    class Cpu:
        def __init__(self, **has: Any) -> None:
            self.cpu = self
            self.get_capabilities = lambda: has

    amd = {"cpu_name": "AMD EPYC 9B45", "avx512_dq": True, "amx_tile": False}
    assert _has_idle_avx512(Cpu(**amd))
    assert not _has_idle_avx512(Cpu(**amd | {"cpu_name": "Intel(R) Xeon(R)"}))
    assert not _has_idle_avx512(Cpu(**amd | {"avx512_dq": False}))
    assert not _has_idle_avx512(Cpu(**amd | {"amx_tile": True}))
    assert not _has_idle_avx512(Cpu(architecture="arm64"))
    assert not _has_idle_avx512(object())


def test_torch_need_not_be_there() -> None:
    code = """
import sys
from benchkit.machine.float32 import fast_float32
with fast_float32("cpu"):
    pass
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
