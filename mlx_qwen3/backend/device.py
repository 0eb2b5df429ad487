"""The device MLX computes on: which it is, and how much memory there is for arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
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


def is_metal() -> bool:
    """Whether MLX computes on Apple's GPU."""
    return not is_cpu() and bool(mx.metal.is_available())


def is_cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU."""
    return not is_cpu() and not mx.metal.is_available()


def available_memory() -> int:
    """Bytes that arrays of this process may still take.

    The limit is `MLX_QWEN3_MEMORY` (such as 12GB) if it is set. Otherwise:

    - on a Mac's GPU what Metal recommends for one program, or less where other programs have taken memory;
    - on another GPU what is free there;
    - on a CPU the free memory, or less where a container has a limit.

    Raises InsufficientMemoryError if `MLX_QWEN3_MEMORY` is not a size.
    """
    if (limit := user_limit()) is not None:
        return max(0, limit - mx.get_active_memory())
    if is_metal() and (most := recommended_memory()) is not None:
        return max(0, min(most - mx.get_active_memory(), free_memory() + mx.get_cache_memory()))
    if not is_cpu():
        info = mx.device_info()
        if free := info.get("free_memory"):  # counts other programs
            return int(free) + mx.get_cache_memory()
        if total := info.get("total_memory") or info.get("memory_size"):
            return max(0, int(total) - mx.get_active_memory())
    return free_memory()


def free_memory() -> int:
    """Bytes of the machine's memory, or of the container's, that are free or can be freed at once."""
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup_bytes(f"memory.{name}") for name in ("max", "current"))
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _reclaimable()))


def total_memory() -> int:
    """Bytes of memory that the machine has, or the container may take."""
    total, limit = int(psutil.virtual_memory().total), _cgroup_bytes("memory.max")
    return total if limit is None else min(total, limit)


def user_limit() -> int | None:
    """The size that `MLX_QWEN3_MEMORY` says; None if it is not set."""
    text = os.environ.get("MLX_QWEN3_MEMORY", "").strip()
    return parse_size(text, "MLX_QWEN3_MEMORY") if text else None


def parse_size(text: str, name: str) -> int:
    """Bytes of a size such as 12GB. Raises InsufficientMemoryError that names `name`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InsufficientMemoryError(f"{name} must be a size such as 12GB, not {text!r}")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def recommended_memory() -> int | None:
    """The bytes that Metal recommends as the most for one program; None on other devices."""
    size = mx.device_info().get("max_recommended_working_set_size")
    return int(size) if size else None


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return None


def _reclaimable() -> int:
    """Bytes of a container's memory that only cache files which were read, and go when memory is needed."""
    try:
        lines = (Path("/sys/fs/cgroup") / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(fields.get("inactive_file", 0))
