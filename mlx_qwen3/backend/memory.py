"""Keeps a machine usable while a model runs: limits for MLX, memory that stays resident, and pressure.

MLX's limits are those of the whole process, so what several engines need is added up here.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from contextlib import suppress
from enum import IntEnum

import mlx.core as mx

from mlx_qwen3.backend.device import (
    free_memory,
    is_cpu,
    is_metal,
    parse_size,
    recommended_memory,
    total_memory,
    user_limit,
)

# MLX keeps freed buffers for the next step, up to what a chunk of a prompt needs and this much at least.
LEAST_CACHE = 2**27
# Free memory below these shares of all memory is pressure, where the system does not say so itself.
WARNING_SHARE, CRITICAL_SHARE = 0.06, 0.03
# macOS: dispatch/source.h, DISPATCH_MEMORYPRESSURE_*.
MACOS_WARNING, MACOS_CRITICAL = 2, 4


class Pressure(IntEnum):
    """How scarce the machine's memory is."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


def memory_pressure() -> Pressure:
    """How scarce memory is now: by what the system says, and beside the limit of `MLX_QWEN3_MEMORY`."""
    return max(_system_pressure(), _limit_pressure())


def _limit_pressure() -> Pressure:
    """MLX's memory beside the user's limit: what it holds, and what it merely keeps for later."""
    limit = user_limit()
    if limit is None or (active := mx.get_active_memory()) + mx.get_cache_memory() <= limit:
        return Pressure.NORMAL
    return Pressure.CRITICAL if active > limit else Pressure.WARNING


def _system_pressure() -> Pressure:
    if sys.platform == "darwin" and (level := _sysctl("kern.memorystatus_vm_pressure_level")) is not None:
        if level >= MACOS_CRITICAL:
            return Pressure.CRITICAL
        return Pressure.WARNING if level >= MACOS_WARNING else Pressure.NORMAL
    share = free_memory() / max(1, total_memory())
    if share < CRITICAL_SHARE:
        return Pressure.CRITICAL
    return Pressure.WARNING if share < WARNING_SHARE else Pressure.NORMAL


def memory_to_free() -> int:
    """Bytes that would have to be freed for the pressure to end."""
    limit = user_limit()
    beyond = 0 if limit is None else mx.get_active_memory() - limit
    return max(0, beyond, int(WARNING_SHARE * total_memory()) - free_memory())


def _sysctl(name: str) -> int | None:
    """A whole number that macOS's kernel tells; None where it does not."""
    value, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    try:
        failed = ctypes.CDLL(None).sysctlbyname(
            name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
    except (AttributeError, OSError):
        return None
    return None if failed else value.value


def limit_memory(available: int, workspace: int) -> None:
    """Have MLX on a GPU wait for running work before it takes more than was planned.

    Args:
        available: Bytes that the plan may fill beside what is taken already.
        workspace: Bytes that a chunk of a prompt takes. MLX keeps no more than that for later.
    """
    if is_cpu():
        return
    mx.set_memory_limit(mx.get_active_memory() + available)
    mx.set_cache_limit(max(workspace, LEAST_CACHE))


_resident: dict[int, int] = {}  # bytes that models want to stay in memory, by their ids


def keep_resident(model: object, num_bytes: int, wired: bool | None = None) -> int:
    """Have macOS keep `num_bytes` for `model` in memory, until it is let go, if the user asks for that.

    Off by default: kernel panics were reported with wired memory (https://github.com/ml-explore/mlx/issues/3186).
    Never more than Metal recommends, for all models of the process together.

    Args:
        model: What the bytes are for. May be given again, with another number.
        num_bytes: What the plan says it takes.
        wired: Whether to; None does as `MLX_QWEN3_WIRED` says: 1, or a size as the upper bound.

    Returns:
        The bytes that may be wired now, of all models; 0 where nothing is.
    """
    bound = wired_bound(wired)
    if not bound or not is_metal():
        return 0
    if id(model) not in _resident:
        weakref.finalize(model, _release, id(model), bound).atexit = False
    _resident[id(model)] = num_bytes
    return _wire(bound)


def _release(key: int, bound: int) -> None:
    _resident.pop(key, None)
    _wire(bound)


def _wire(bound: int) -> int:
    wanted = min(sum(_resident.values()), bound)
    with suppress(RuntimeError, ValueError):  # macOS is too old
        mx.set_wired_limit(wanted)
        return wanted
    return 0


def wired_bound(wired: bool | None = None) -> int:
    """The most bytes that may be wired; 0 for none. Raises InsufficientMemoryError for no size."""
    setting = os.environ.get("MLX_QWEN3_WIRED", "").strip().lower()
    if wired is False or (wired is None and setting in ("", "0", "off", "no", "false")):
        return 0
    most = recommended_memory() or 0
    if setting in ("", "0", "1", "off", "no", "false", "on", "yes", "true"):
        return most
    return min(most, parse_size(setting, "MLX_QWEN3_WIRED"))
