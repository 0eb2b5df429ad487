"""Measures the ceilings of the roofline model on this device: memory bandwidth and arithmetic.

Decoding reads all weights for every token, so bandwidth bounds it. Prefill multiplies each weight with
many tokens, so arithmetic bounds it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import mlx.core as mx

from mlx_qwen3.backend.matmul import multiply  # a better BLAS than MLX's own, where it has a slow one
from mlx_qwen3.model.prepare import compute_dtype

# Rows of the largest square matrix that is read, and of the largest that is multiplied.
LARGEST_READ, LARGEST_PRODUCT = 16384, 8192
# Sizes double until one measurement takes this many seconds.
LONG_ENOUGH = 0.05
REPEAT = 5
VECTORS = 8


def measure_ceilings() -> dict[str, float]:
    """`bandwidth` in bytes per second and `arithmetic` in FLOP per second, in the device's compute dtype."""
    return {"bandwidth": measure_bandwidth(), "arithmetic": _multiply(compute_dtype(mx.bfloat16))}


def measure_bandwidth() -> float:
    """The most bytes per second that are read, or read and written, by simple kernels."""
    dtype = compute_dtype(mx.bfloat16)
    return max(_read(dtype), _copy(dtype))


def _read(dtype: mx.Dtype) -> float:
    """Bandwidth of matrix times vector, which reads the matrix once."""

    def rate(size: int) -> tuple[float, float]:
        matrix, vectors = _random((size, size), dtype), _random((VECTORS, size, 1), dtype)
        seconds = _best(lambda: [multiply(matrix, vector) for vector in vectors])
        return VECTORS * matrix.nbytes / seconds, seconds

    return _growing(rate, LARGEST_READ)


def _copy(dtype: mx.Dtype) -> float:
    """Bandwidth of adding 1 to a matrix, which reads it once and writes it once."""

    def rate(size: int) -> tuple[float, float]:
        matrix = _random((size, size), dtype)
        seconds = _best(lambda: [matrix + 1])
        return 2 * matrix.nbytes / seconds, seconds

    return _growing(rate, LARGEST_READ)


def _multiply(dtype: mx.Dtype) -> float:
    def rate(size: int) -> tuple[float, float]:
        matrix = _random((size, size), dtype)
        seconds = _best(lambda: [multiply(matrix, matrix)])
        return 2.0 * size**3 / seconds, seconds

    return _growing(rate, LARGEST_PRODUCT)


def _growing(rate: Callable[[int], tuple[float, float]], largest: int) -> float:
    """The best rate over growing sizes. `rate` returns the rate at a size, and the seconds it took."""
    size, best = 1024, 0.0
    while True:
        measured, seconds = rate(size)
        best = max(best, measured)
        if seconds >= LONG_ENOUGH or size >= largest:
            return best
        size *= 2


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
