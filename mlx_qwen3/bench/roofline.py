"""Measures the ceilings of the roofline model on this device: memory bandwidth and arithmetic.

Decoding reads all weights for every token, so bandwidth bounds it. Prefill multiplies each weight with
many tokens, so arithmetic bounds it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import mlx.core as mx

from mlx_qwen3.backend.matmul import multiply  # a better BLAS than MLX's own, where it has a slow one
from mlx_qwen3.model.prepare import compute_dtype

# Bytes of the matrix that is read: more than any cache between processor and memory holds.
READ_BYTES = 2**28
# Rows of the largest square matrix that is multiplied. Sizes double until one product takes so many seconds.
LARGEST_PRODUCT, LONG_ENOUGH = 8192, 0.05
COLUMNS = 2048
REPEAT = 5
VECTORS = 8


def measure_ceilings() -> dict[str, float]:
    """`bandwidth` in bytes per second and `arithmetic` in FLOP per second, in the device's compute dtype."""
    return {"bandwidth": measure_bandwidth(), "arithmetic": measure_arithmetic()}


def measure_bandwidth() -> float:
    """The most bytes per second that are read, or read and written, by simple kernels."""
    dtype = compute_dtype(mx.bfloat16)
    matrix = mx.full((READ_BYTES // (COLUMNS * dtype.size), COLUMNS), 0.5, dtype)
    vectors = _random((VECTORS, 1, COLUMNS), dtype)
    mx.eval(matrix)
    read = _best(lambda: [multiply(vector, matrix.T) for vector in vectors])
    copied = _best(lambda: [matrix + 1])
    return max(VECTORS * matrix.nbytes / read, 2 * matrix.nbytes / copied)


def measure_arithmetic() -> float:
    """FLOP per second of the product of two matrices: the best rate over growing sizes."""
    size, best = 1024, 0.0
    while True:
        matrix = _random((size, size), compute_dtype(mx.bfloat16))
        seconds = _best(partial(_squared, matrix))
        best = max(best, 2.0 * size**3 / seconds)
        if seconds >= LONG_ENOUGH or size >= LARGEST_PRODUCT:
            return best
        size *= 2


def _squared(matrix: mx.array) -> list[mx.array]:
    return [multiply(matrix, matrix)]


def _best(work: Callable[[], list[mx.array]]) -> float:
    """Seconds of the fastest of several runs; slower ones were disturbed."""
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        mx.eval(work())
        times.append(time.perf_counter() - start)
    return min(times)


def _random(shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    array = mx.random.normal(shape).astype(dtype)
    mx.eval(array)
    return array


def main() -> None:
    """Print the ceilings as one line of JSON. Run in a process of its own, it gives its memory back."""
    sys.stdout.write(json.dumps(measure_ceilings()) + "\n")


if __name__ == "__main__":
    main()
