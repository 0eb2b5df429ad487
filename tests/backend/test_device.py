"""The device: how much memory it has, and what a Mac keeps resident."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_qwen3.backend import device
from mlx_qwen3.errors import InsufficientMemoryError


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    """Compute on the CPU, whatever else the machine has."""
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    yield
    mx.set_default_device(before)


def test_available_memory_respects_a_container_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    free = device.available_memory()
    assert 0 < free < 1 << 50
    limits = {"memory.max": 5 << 20, "memory.current": 2 << 20}
    monkeypatch.setattr(device, "_cgroup_bytes", limits.get)
    assert device.available_memory() == 3 << 20
    monkeypatch.setattr(device, "_cgroup_bytes", lambda name: None)
    assert device.available_memory() > 3 << 20


@pytest.mark.parametrize(
    ("text", "bytes_"), [("12GB", 12 * 10**9), ("9.3 gb", 93 * 10**8), ("500M", 5 * 10**8), ("4096", 4096)]
)
def test_the_user_may_limit_memory(monkeypatch: pytest.MonkeyPatch, text: str, bytes_: int) -> None:
    monkeypatch.setattr(mx, "get_active_memory", lambda: 96)
    monkeypatch.setenv("MLX_QWEN3_MEMORY", text)
    assert device.available_memory() == bytes_ - 96


def test_a_limit_that_is_not_a_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_QWEN3_MEMORY", "much")
    with pytest.raises(InsufficientMemoryError, match="12GB, not 'much'"):
        device.available_memory()


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for a Mac of 16 GB; the wired limits that were set."""
    limits: list[int] = []
    monkeypatch.setattr(device, "is_cpu", lambda: False)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 11_800_000_000})
    monkeypatch.setattr(mx, "get_active_memory", lambda: 800_000_000)
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    return limits


def test_a_mac_uses_what_metal_recommends_and_keeps_the_model_resident(mac: list[int]) -> None:
    assert device.available_memory() == 11_000_000_000
    device.keep_resident(9_000_000_000)
    device.keep_resident(20_000_000_000)
    assert mac == [9_000_000_000, 11_800_000_000]


def test_a_mac_too_old_to_keep_memory_resident_still_runs(
    monkeypatch: pytest.MonkeyPatch, mac: list[int]
) -> None:
    def refuse(limit: int) -> int:
        raise ValueError("only on macOS 15 and later")

    monkeypatch.setattr(mx, "set_wired_limit", refuse)
    device.keep_resident(9_000_000_000)
    assert mac == []


def test_nothing_is_wired_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: pytest.fail("a CPU has nothing to wire"))
    device.keep_resident(1)
