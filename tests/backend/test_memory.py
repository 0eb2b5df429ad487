"""Limits for MLX, memory that stays resident, and pressure: with stand-ins for a Mac."""

from __future__ import annotations

import gc

import mlx.core as mx
import pytest

from mlx_qwen3.backend import memory
from mlx_qwen3.backend.memory import Pressure
from mlx_qwen3.errors import InsufficientMemoryError

MOST = 11_800_000_000


class Model:
    """What memory is kept for."""


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for a Mac of 16 GB; the wired limits that were set."""
    limits: list[int] = []
    monkeypatch.setattr(memory, "is_metal", lambda: True)
    monkeypatch.setattr(memory, "is_cpu", lambda: False)
    monkeypatch.setattr(memory, "_resident", {})
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": MOST})
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    return limits


def test_nothing_is_wired_unless_asked_for(mac: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLX_QWEN3_WIRED", raising=False)
    assert memory.keep_resident(Model(), 9_000_000_000) == 0
    assert memory.keep_resident(Model(), 9_000_000_000, wired=False) == 0
    monkeypatch.setenv("MLX_QWEN3_WIRED", "0")
    assert memory.keep_resident(Model(), 9_000_000_000) == 0
    assert mac == []


def test_wired_memory_is_the_sum_of_all_models_and_never_more_than_recommended(mac: list[int]) -> None:
    first, second, third = Model(), Model(), Model()
    assert memory.keep_resident(first, 5_000_000_000, wired=True) == 5_000_000_000
    assert memory.keep_resident(second, 2_000_000_000, wired=True) == 7_000_000_000
    assert memory.keep_resident(third, 9_000_000_000, wired=True) == MOST
    del third
    gc.collect()
    del first
    gc.collect()
    assert mac == [5_000_000_000, 7_000_000_000, MOST, 7_000_000_000, 2_000_000_000]


def test_the_user_may_bound_wired_memory(mac: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_QWEN3_WIRED", "4GB")
    model = Model()
    assert memory.keep_resident(model, 9_000_000_000) == 4_000_000_000
    monkeypatch.setenv("MLX_QWEN3_WIRED", "all of it")
    with pytest.raises(InsufficientMemoryError, match="MLX_QWEN3_WIRED must be a size such as 12GB"):
        memory.keep_resident(model, 9_000_000_000)


def test_a_mac_too_old_to_wire_memory_still_runs(mac: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(limit: int) -> int:
        raise ValueError("only on macOS 15 and later")

    monkeypatch.setattr(mx, "set_wired_limit", refuse)
    assert memory.keep_resident(Model(), 9_000_000_000, wired=True) == 0


def test_a_gpu_gets_the_limits_of_the_plan_and_a_cpu_none(
    mac: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(mx, "set_memory_limit", limits.append)
    monkeypatch.setattr(mx, "set_cache_limit", limits.append)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 300)
    memory.limit_memory(available=10**10, workspace=10**9)
    memory.limit_memory(available=10**10, workspace=5)
    assert limits == [10**10 + 300, 10**9, 10**10 + 300, memory.LEAST_CACHE]
    monkeypatch.setattr(memory, "is_cpu", lambda: True)
    memory.limit_memory(available=1, workspace=1)
    assert len(limits) == 4


@pytest.mark.parametrize(
    ("level", "expected"), [(1, Pressure.NORMAL), (2, Pressure.WARNING), (4, Pressure.CRITICAL)]
)
def test_macos_says_how_scarce_memory_is(
    monkeypatch: pytest.MonkeyPatch, level: int, expected: Pressure
) -> None:
    monkeypatch.delenv("MLX_QWEN3_MEMORY", raising=False)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory, "_sysctl", {"kern.memorystatus_vm_pressure_level": level}.get)
    assert memory.memory_pressure() is expected


def test_elsewhere_little_free_memory_is_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLX_QWEN3_MEMORY", raising=False)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory, "total_memory", lambda: 1000)
    for free, expected in ((500, Pressure.NORMAL), (50, Pressure.WARNING), (10, Pressure.CRITICAL)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert memory.memory_pressure() is expected
    assert memory.memory_to_free() == 50


def test_a_limit_of_the_user_is_pressure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_system_pressure", lambda: Pressure.NORMAL)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**15)
    monkeypatch.setenv("MLX_QWEN3_MEMORY", "1000")
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 300)
    for active, expected in ((600, Pressure.NORMAL), (800, Pressure.WARNING), (1200, Pressure.CRITICAL)):
        monkeypatch.setattr(mx, "get_active_memory", lambda active=active: active)
        assert memory.memory_pressure() is expected
    assert memory.memory_to_free() == 200
