"""Gives MLX's CPU backend a real BLAS on Linux; must run before `mlx.core` is first imported.

MLX's Linux wheel ships the reference BLAS: 2 GFLOP/s where OpenBLAS reaches 92 on the same two
cores. A library loaded first, its symbols global, is found before the bundled one. Macs have
Accelerate and need nothing. `MLX_QWEN3_PLAIN=1` turns this and all of `backend.py` off.
"""

from __future__ import annotations

import ctypes
import os
import sys
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
            return candidate
    return None
