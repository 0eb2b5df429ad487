"""Gives MLX's CPU backend a real BLAS on Linux; must run before `mlx.core` is first imported.

MLX's Linux wheel ships the reference BLAS: 2 GFLOP/s where OpenBLAS reaches 92 on the same two
cores. A library loaded first, its symbols global, is found before the bundled one. Macs have
Accelerate and need nothing. `MLX_QWEN3_PLAIN=1` turns this and all of `backend.py` off.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# OpenBLAS as Debian, Fedora and conda name it, then Intel's MKL from the package index.
LIBRARIES = ("libopenblas.so.0", "libopenblasp.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2")


def is_plain() -> bool:
    """Whether the user asked for MLX as it is, with none of our device choices."""
    return os.environ.get("MLX_QWEN3_PLAIN", "") not in ("", "0")


def load_blas() -> str | None:
    """Load the first BLAS found and return its name; None where none is needed, found or wanted."""
    if sys.platform != "linux" or is_plain() or "mlx.core" in sys.modules:
        return None
    for name in LIBRARIES:
        for candidate in (name, str(Path(sys.prefix) / "lib" / name)):
            try:
                ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            atexit.register(_finish)
            return candidate
    return None


def _finish() -> None:
    """Wait for what MLX computes ahead: at the exit of the process OpenBLAS waits for its threads, which wait
    for whoever is still multiplying, for ever."""
    if (mlx := sys.modules.get("mlx.core")) is not None:
        mlx.synchronize()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have OpenBLAS multiply on the thread that asks. For callers with several threads: OpenBLAS lets only
    one of them use its own, which then wait for one another. Other libraries are left as they are."""
    found = _openblas_threads()
    if found is None:
        yield
        return
    set_threads, usual = found
    set_threads(1)
    try:
        yield
    finally:
        set_threads(usual)


@cache
def _openblas_threads() -> tuple[Callable[[int], object], int] | None:
    """How to say how many threads it uses, and how many it did at first; None where it is not loaded."""
    if sys.platform != "linux":
        return None
    loaded = ctypes.CDLL(None)
    try:
        return loaded.openblas_set_num_threads, loaded.openblas_get_num_threads()
    except AttributeError:
        return None
