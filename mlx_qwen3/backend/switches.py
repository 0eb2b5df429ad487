"""Whether this package computes in its own way, or leaves all to MLX."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

compile_listeners: list[Callable[[], None]] = []
"""Called when kernels are about to be compiled, which happens once on a machine and takes seconds."""

# Processors whose machine code `native` is written and tested for.
MACHINES = ("x86_64", "aarch64")

# MLX's own: how many kernels make a command buffer on Metal. The doctor measures these lengths.
BUFFER_VARIABLE, BUFFER_LENGTHS = "MLX_MAX_OPS_PER_BUFFER", (20, 100, 200)


def is_plain() -> bool:
    """Whether the user asked for MLX as it is, without this package's choices for the device."""
    return os.environ.get("MLX_QWEN3_PLAIN", "") not in ("", "0")


def has_kernels() -> bool:
    """Whether products on the CPU are those of `native` and of numpy: on Linux, unless `is_plain`.

    MLX's Linux wheel multiplies with the reference BLAS, fifty times slower than what the processor can do.
    On a Mac it has Accelerate.
    """
    return sys.platform == "linux" and not is_plain() and _has_llvm()


@cache
def _has_llvm() -> bool:
    return platform.machine() in MACHINES and find_spec("llvmlite") is not None
