"""The device MLX computes on: which it is, its available memory, and memory that a Mac keeps resident."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import psutil

from mlx_qwen3.errors import InsufficientMemoryError

T = TypeVar("T")


def is_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def eval_unless_traced(*arrays: mx.array) -> bool:
    """Evaluate `arrays`. Returns False while mx.compile or mx.vmap is tracing: they have no values yet."""
    try:
        mx.eval(*arrays)
    except ValueError:
        return False
    return True


def compiled_on_gpu(function: Callable[..., T]) -> Callable[..., T]:
    """`function`, compiled where MLX computes on a GPU: it starts fewer kernels and runs less Python."""
    compiled: Callable[..., T] = mx.compile(function)
    return lambda *arrays: function(*arrays) if is_cpu() else compiled(*arrays)


def available_memory() -> int:
    """Bytes that arrays of this process may still take.

    The limit is `MLX_QWEN3_MEMORY` (such as 12GB) if it is set. Otherwise it is what the driver of a GPU
    recommends. On a CPU it is the free memory, or less where a container has a limit.

    Raises InsufficientMemoryError if `MLX_QWEN3_MEMORY` is not a size.
    """
    if (limit := _user_limit()) is not None:
        return max(0, limit - mx.get_active_memory())
    if not is_cpu() and (total := _gpu_memory()) is not None:
        return max(0, total - mx.get_active_memory())
    free = int(psutil.virtual_memory().available)
    container_limit, used = (_cgroup_bytes(f"memory.{name}") for name in ("max", "current"))
    return free if container_limit is None or used is None else max(0, min(free, container_limit - used))


def _user_limit() -> int | None:
    text = os.environ.get("MLX_QWEN3_MEMORY", "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise InsufficientMemoryError(f"MLX_QWEN3_MEMORY must be a size such as 12GB, not {text!r}")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _gpu_memory() -> int | None:
    """Metal's recommended maximum, or the memory of another GPU."""
    info = mx.device_info()
    sizes = [info.get(key) for key in ("max_recommended_working_set_size", "total_memory", "memory_size")]
    return next((int(size) for size in sizes if size), None)


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return None


def keep_resident(num_bytes: int) -> None:
    """Have a Mac keep up to `num_bytes` of the model in memory.

    Otherwise macOS reads the model from disk again after other programs needed the memory. Does nothing
    on other machines, or where macOS is too old.
    """
    if is_cpu() or not mx.metal.is_available():
        return
    most = int(mx.device_info()["max_recommended_working_set_size"])
    with suppress(RuntimeError, ValueError):
        mx.set_wired_limit(min(num_bytes, most))
