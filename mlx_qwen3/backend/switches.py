"""Whether this package computes in its own way, or leaves all to MLX."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

compile_listeners: list[Callable[[], None]] = []
"""Called when kernels are about to be compiled, which happens once on a machine and takes seconds."""

# Processors whose machine code `native` is written and tested for.
MACHINES = ("x86_64", "aarch64")


def is_plain() -> bool:
    """Whether the user asked for MLX as it is, without this package's choices for the device."""
    return os.environ.get("MLX_QWEN3_PLAIN", "") not in ("", "0")


def has_kernels() -> bool:
    """Whether products on the CPU are those of `native` and of numpy: on Linux, unless `is_plain`.

    MLX's Linux wheel multiplies with the reference BLAS, fifty times slower than what the processor can do.
    On a Mac it has Accelerate.
    """
    return sys.platform == "linux" and not is_plain() and _has_llvm()


def import_llvm_early() -> None:
    """Begin to import LLVM beside what the caller does next: it takes a tenth of a second."""
    if has_kernels():
        names = ("llvmlite.binding", "llvmlite.ir")
        threading.Thread(target=lambda: [import_module(name) for name in names], daemon=True).start()


@cache
def _has_llvm() -> bool:
    return platform.machine() in MACHINES and find_spec("llvmlite") is not None
