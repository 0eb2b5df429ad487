"""e^x for attention and SwiGLU: on Linux's CPU with numpy, which takes a tenth of MLX's time.

MLX calls the C library for one number after another there, 13 ns each, and half of a prompt's time went
into its scores and gates. numpy uses the processor's vectors. On a Mac MLX does so itself.
"""

from __future__ import annotations

import sys
from typing import cast

import mlx.core as mx

from mlx_qwen3.backend.blas import is_plain
from mlx_qwen3.backend.device import computed, is_cpu

# Fewer numbers are done before numpy has begun. A token's are left to MLX, which then need not be waited for.
LEAST = 2**14


def exp(x: mx.array) -> mx.array:
    """e^x. Where numpy does it, `x` is computed at once."""
    return cast(mx.array, _by_numpy(x)) if _is_for_numpy(x) else mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e^-x), computed as in `exp`."""
    return 1 / (1 + exp(-x)) if _is_for_numpy(x) else mx.sigmoid(x)


def _is_for_numpy(x: mx.array) -> bool:
    on_cpu = is_cpu() and sys.platform == "linux"
    return on_cpu and x.dtype == mx.float32 and x.size >= LEAST and not is_plain()


@mx.custom_function
def _by_numpy(x: mx.array) -> mx.array:
    import numpy as np  # only once it is needed: a tenth of a second

    result = mx.zeros(x.shape)
    if not computed(x, result):
        return mx.exp(x)
    with np.errstate(over="ignore"):  # infinity, as MLX says without a warning
        np.exp(np.asarray(x), out=np.asarray(result))  # into MLX's memory, of which it keeps some at hand
    return result


@_by_numpy.vjp
def _gradient(_: mx.array, cotangent: mx.array, result: mx.array) -> mx.array:
    return cotangent * result


@_by_numpy.jvp
def _derivative(x: mx.array, tangent: mx.array) -> mx.array:
    return tangent * mx.exp(x)
