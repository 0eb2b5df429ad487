"""e^x for attention and SwiGLU: numpy on Linux CPUs, where it takes a tenth of MLX's time.

There MLX calls the C library for each number, 13 ns each, and the scores and gates took half of prefill.
numpy uses vector instructions. On a Mac, so does MLX.
"""

from __future__ import annotations

import sys
from typing import cast

import mlx.core as mx

from mlx_qwen3.backend.device import eval_unless_traced, is_cpu
from mlx_qwen3.backend.switches import is_plain

# Below this size MLX is faster than calling numpy. MLX also computes the numbers of a single token without
# waiting for them.
MIN_NUMPY_SIZE = 2**14


def exp(x: mx.array) -> mx.array:
    """e^x. Where numpy computes it, `x` is evaluated now."""
    return cast(mx.array, _numpy_exp(x)) if _is_for_numpy(x) else mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e^-x), by way of `exp`."""
    return 1 / (1 + exp(-x)) if _is_for_numpy(x) else mx.sigmoid(x)


def _is_for_numpy(x: mx.array) -> bool:
    on_cpu = is_cpu() and sys.platform == "linux"
    return on_cpu and x.dtype == mx.float32 and x.size >= MIN_NUMPY_SIZE and not is_plain()


@mx.custom_function
def _numpy_exp(x: mx.array) -> mx.array:
    import numpy as np  # takes a tenth of a second, so only where it is used

    result = mx.zeros(x.shape)
    if not eval_unless_traced(x, result):
        return mx.exp(x)
    with np.errstate(over="ignore"):  # too large a result is infinity, without a warning, as in MLX
        np.exp(np.asarray(x), out=np.asarray(result))  # into MLX's memory, which MLX reuses
    return result


@_numpy_exp.vjp
def _gradient(_: mx.array, cotangent: mx.array, result: mx.array) -> mx.array:
    return cotangent * result


@_numpy_exp.jvp
def _derivative(x: mx.array, tangent: mx.array) -> mx.array:
    return tangent * mx.exp(x)
