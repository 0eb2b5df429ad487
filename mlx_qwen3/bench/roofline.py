"""What the device can do at best: bytes a second through one large matrix, multiplications through another.

Decoding reads all weights for every token, so it is bound by the first; a prompt multiplies each
weight with many tokens, so it is bound by the second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import mlx.core as mx

from mlx_qwen3.model.prepare import compute_dtype

LARGEST_READ, LARGEST_PRODUCT = 16384, 8192
# Sizes double until one measurement takes this long.
LONG_ENOUGH = 0.05
REPEAT, AT_ONCE = 5, 8


def ceilings() -> dict[str, float]:
    """`bandwidth` in bytes a second and `arithmetic` in FLOP a second, in the format computed in."""
    dtype = compute_dtype(mx.bfloat16)
    return {"bandwidth": max(_read(dtype), _copy(dtype)), "arithmetic": _multiply(dtype)}


def _read(dtype: mx.Dtype) -> float:
    """A matrix times a vector: the matrix is read once."""

    def rate(size: int) -> tuple[float, float]:
        matrix, vectors = _random((size, size), dtype), _random((AT_ONCE, size, 1), dtype)
        seconds = _best(lambda: [matrix @ vector for vector in vectors])
        return AT_ONCE * matrix.nbytes / seconds, seconds

    return _growing(rate, LARGEST_READ)


def _copy(dtype: mx.Dtype) -> float:
    """Every number of a matrix changed: it is read once and written once."""

    def rate(size: int) -> tuple[float, float]:
        matrix = _random((size, size), dtype)
        seconds = _best(lambda: [matrix + 1])
        return 2 * matrix.nbytes / seconds, seconds

    return _growing(rate, LARGEST_READ)


def _multiply(dtype: mx.Dtype) -> float:
    def rate(size: int) -> tuple[float, float]:
        matrix = _random((size, size), dtype)
        seconds = _best(lambda: [matrix @ matrix])
        return 2.0 * size**3 / seconds, seconds

    return _growing(rate, LARGEST_PRODUCT)


def _growing(rate: Callable[[int], tuple[float, float]], largest: int) -> float:
    size, best = 1024, 0.0
    while True:
        found, seconds = rate(size)
        best = max(best, found)
        if seconds >= LONG_ENOUGH or size >= largest:
            return best
        size *= 2


def _best(work: Callable[[], list[mx.array]]) -> float:
    """The fastest of several runs; others were disturbed."""
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
    """Print the ceilings as a line of JSON: a process of its own gives its memory back."""
    sys.stdout.write(json.dumps(ceilings()) + "\n")


if __name__ == "__main__":
    main()
