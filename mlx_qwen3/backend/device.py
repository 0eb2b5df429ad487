"""What MLX computes on, how much memory that has, and what of it a Mac keeps from being swapped out."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import psutil

from mlx_qwen3.errors import InsufficientMemoryError


def is_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def computed(*arrays: mx.array) -> bool:
    """Compute `arrays` now. False while mx.compile or mx.vmap is tracing, when there are no numbers yet."""
    try:
        mx.eval(*arrays)
    except ValueError:
        return False
    return True


def available_memory() -> int:
    """Bytes that arrays of this process may still take.

    What the user grants (`MLX_QWEN3_MEMORY=12GB`), else what a GPU's driver recommends, else the
    memory that is free, or less where a container has a limit. Raises InsufficientMemoryError for a
    grant that is no size.
    """
    if (granted := _granted_memory()) is not None:
        return max(0, granted - mx.get_active_memory())
    if not is_cpu() and (total := _gpu_memory()) is not None:
        return max(0, total - mx.get_active_memory())
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup_bytes(f"memory.{name}") for name in ("max", "current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _granted_memory() -> int | None:
    text = os.environ.get("MLX_QWEN3_MEMORY", "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise InsufficientMemoryError(f"MLX_QWEN3_MEMORY is a size such as 12GB, not {text!r}")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _gpu_memory() -> int | None:
    """What Metal recommends to take at most, or the memory of another GPU."""
    info = mx.device_info()
    sizes = [info.get(key) for key in ("max_recommended_working_set_size", "total_memory", "memory_size")]
    return next((int(size) for size in sizes if size), None)


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return None


def keep_resident(num_bytes: int) -> None:
    """Have a Mac keep up to `num_bytes` of the model in memory: else it is read from the disk again
    after other programs needed the memory. Does nothing elsewhere, or where macOS is too old for it."""
    if is_cpu() or not mx.metal.is_available():
        return
    most = int(mx.device_info()["max_recommended_working_set_size"])
    with suppress(RuntimeError, ValueError):
        mx.set_wired_limit(min(num_bytes, most))
