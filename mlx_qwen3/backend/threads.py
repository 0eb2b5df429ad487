"""How many threads compute on the CPU."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

from mlx_qwen3.errors import EngineError

VARIABLE = "MLX_QWEN3_THREADS"
CGROUP = Path("/sys/fs/cgroup")


@cache
def num_threads() -> int:
    """The number of threads: `MLX_QWEN3_THREADS`, or the cores that this process may use.

    Those are what its affinity mask allows, and no more than the quota of its container.

    Raises EngineError if `MLX_QWEN3_THREADS` is not a positive number.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        if not text.isdecimal() or not 0 < int(text) <= 1024:
            raise EngineError(f"{VARIABLE} must be a number of threads from 1 to 1024, not {text!r}")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """The cores that the container's quota amounts to; None if it has none."""
    try:
        limit, period = (CGROUP / "cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:  # version 1 of control groups
        limit, period = ((CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
