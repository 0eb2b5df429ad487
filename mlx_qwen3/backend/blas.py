"""Gives MLX's CPU backend a fast BLAS on Linux. It must run before `mlx.core` is first imported.

MLX's Linux wheel ships the reference BLAS: 2 GFLOP/s where OpenBLAS reaches 92 on the same two cores.
A library that is loaded earlier, with global symbols, is found before the bundled one. Macs have
Accelerate and need nothing. `MLX_QWEN3_PLAIN=1` turns off this and all of model/prepare.py.
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

# OpenBLAS as Debian, Fedora and conda name it, then Intel's MKL as PyPI has it.
LIBRARIES = ("libopenblas.so.0", "libopenblasp.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2")


def is_plain() -> bool:
    """Whether the user asked for MLX as it is, without this package's choices for the device."""
    return os.environ.get("MLX_QWEN3_PLAIN", "") not in ("", "0")


def load_blas() -> str | None:
    """Load the first BLAS of `LIBRARIES` that exists and return its name.

    Returns None if no library is needed, found or wanted.
    """
    if sys.platform != "linux" or is_plain() or "mlx.core" in sys.modules:
        return None
    for name in LIBRARIES:
        for candidate in (name, str(Path(sys.prefix) / "lib" / name)):
            try:
                ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            atexit.register(_wait_for_mlx)
            _loaded.append(candidate)
            return candidate
    return None


_loaded: list[str] = []


def mlx_is_slow() -> bool:
    """Whether MLX multiplies with the reference BLAS of its Linux wheel. Then numpy's own BLAS is faster."""
    return sys.platform == "linux" and not is_plain() and not _loaded


def _wait_for_mlx() -> None:
    """Wait until MLX has computed what was asked ahead.

    When the process exits, OpenBLAS waits for its threads. If MLX is still multiplying then, they never end.
    """
    if (mlx := sys.modules.get("mlx.core")) is not None:
        mlx.synchronize()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have OpenBLAS multiply on the calling thread alone, for callers that use several threads themselves.

    OpenBLAS lets one caller at a time use its threads, so the callers would wait for each other. Other
    libraries stay as they are.
    """
    if (openblas := _openblas_threads()) is None:
        yield
        return
    set_threads, default = openblas
    set_threads(1)
    try:
        yield
    finally:
        set_threads(default)


@cache
def _openblas_threads() -> tuple[Callable[[int], object], int] | None:
    """The function that sets its number of threads, and the default number; None if it is not loaded."""
    if sys.platform != "linux":
        return None
    process = ctypes.CDLL(None)
    try:
        return process.openblas_set_num_threads, process.openblas_get_num_threads()
    except AttributeError:
        return None
