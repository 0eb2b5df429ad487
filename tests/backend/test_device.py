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


def test_files_that_were_read_are_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container counts cached files as used; a checkpoint just read would leave no memory for its model."""
    limits = {"memory.max": 5 << 20, "memory.current": 5 << 20}
    monkeypatch.setattr(device, "_cgroup_bytes", limits.get)
    monkeypatch.setattr(device, "_reclaimable", lambda: 4 << 20)
    assert device.available_memory() == 4 << 20


def test_a_mac_uses_what_metal_recommends_less_what_others_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = 14_000_000_000
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 0)
    monkeypatch.setattr(device, "is_metal", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 11_800_000_000})
    monkeypatch.setattr(mx, "get_active_memory", lambda: 800_000_000)
    monkeypatch.setattr(device, "free_memory", lambda: free)
    assert device.available_memory() == 11_000_000_000
    free -= 4_000_000_000  # another program takes 4 GB
    assert device.available_memory() == 10_000_000_000


def test_another_gpu_counts_what_is_free_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"total_memory": 80_000_000_000, "free_memory": 30_000_000_000}
    monkeypatch.setattr(device, "is_cpu", lambda: False)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 0)
    assert device.available_memory() == 30_000_000_000
    del info["free_memory"]
    assert device.available_memory() == 80_000_000_000 - mx.get_active_memory()
